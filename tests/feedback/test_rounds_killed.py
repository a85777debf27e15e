"""The process of a round is killed at each of its steps: a server takes the round up, once, and nothing is done twice."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tutelage.feedback import people, queue, rounds, rounds_run
from tutelage.feedback.projects import create_project, find_project
from tutelage.feedback.rounds import RoundSettings
from tutelage.feedback.schema import Audit, Round, Task
from tutelage.feedback.store import Store

# What stands for `tutelage`: says that it began, works until it is let, and leaves what the real step leaves.
STEP = r"""
import json, os, sys, time
from pathlib import Path
words = sys.argv[1:]
out = Path(words[words.index("--out") + 1])
desk = out.parent
with (desk / f"{words[0]}-pids").open("a") as file:
    file.write(f"{os.getpid()}\n")
while not (desk / f"{words[0]}-may-end").exists():
    time.sleep(0.01)
if words[0] == "sample":
    rows = [{"schema": "tutelage.prompt/1", "id": f"p{i}", "messages": [{"role": "user", "content": f"{i}?"}]} for i in range(2)]
    rows += [{"schema": "tutelage.completion/1", "id": f"p{i}-{k}", "prompt_id": f"p{i}", "text": f"{k}"}
             for i in range(2) for k in range(4)]
    out.write_text("\n".join(map(json.dumps, rows)))
else:
    out.mkdir(exist_ok=True)
    stages = [{"name": name, "checkpoint": f"{out}/{name}/c"} for name in ("reward", "ppo")]
    (out / "report.json").write_text(json.dumps({"stages": stages}))
"""


@pytest.fixture
def house(store, tmp_path, monkeypatch):
    """Runners are forked instead of started anew, and their steps are the script above."""
    script = tmp_path / "step.py"
    script.write_text(STEP)
    monkeypatch.setattr(rounds, "COMMAND", (sys.executable, "-S", str(script)))
    monkeypatch.setattr(rounds_run, "POLL", 0.02)
    monkeypatch.setattr(rounds_run, "HANDOVER", 0.2)
    address = store.engine.url.render_as_string(False)
    monkeypatch.setattr(rounds, "spawn", lambda *_, **__: house.fork())
    with store.write() as db:
        create_project(db, "Loop", overlap=1)
        people.add_person(db, "ana", "labeler", None, person_id="ana")
    house = House(store, address, tmp_path)
    yield house
    for pid in house.runners:
        house.kill(pid)


class House:
    def __init__(self, store, address, out):
        self.store, self.address, self.out = store, address, out
        self.runners: list[int] = []

    @property
    def desk(self):
        return self.out / "loop" / "1"

    def fork(self):
        pid = os.fork()
        if pid == 0:
            try:
                rounds_run.run_rounds(Store.open(self.address), "loop", RoundSettings(), self.out, wait=True)
            finally:
                os._exit(0)
        self.runners.append(pid)

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.runners.remove(pid)

    def steps(self, name):
        file = self.desk / f"{name}-pids"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def state(self):
        with self.store.read() as db:
            return db.query(Round).one().state

    def wait(self, condition):
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_round_survives_the_kill_of_its_process_at_every_step(store, house):
    assert rounds.take_up(store) == []
    house.fork()
    house.wait(lambda: house.steps("sample"))
    assert rounds.take_up(store) == []  # it lives
    house.kill(house.runners[0])
    house.wait(lambda: gone(house.steps("sample")[0]))  # the step ended with its parent
    assert house.state() == "sampling"
    assert rounds.take_up(store) == ["round 1 of loop"]
    (house.desk / "sample-may-end").touch()
    house.wait(lambda: house.state() == "labeling")
    assert len(house.steps("sample")) == 2

    house.wait(lambda: rounds.is_held(house.desk))
    house.kill(house.runners[0])
    assert rounds.take_up(store) == ["round 1 of loop"]
    with store.write() as db:
        project = find_project(db, "loop")
        while (task := queue.lease_next(db, project, "ana")) is not None:
            queue.submit(db, f"ana-{task.id:08}", task.id, "ana", "rank", {"ranks": [1, 2, 3, 4]})
    house.wait(lambda: house.steps("run"))

    house.kill(house.runners[0])
    house.wait(lambda: gone(house.steps("run")[0]))
    (house.desk / "run-may-end").touch()
    assert rounds.take_up(store) == ["round 1 of loop"]
    house.wait(lambda: house.state() == "done")
    assert rounds.take_up(store) == []
    with store.read() as db:
        row = db.query(Round).one()
        assert row.result["policy"] == f"{house.desk}/run/ppo/c" and row.result["items"] == 2
        assert db.query(Task).count() == 2 and db.query(Audit).filter_by(action="round: taken up").count() == 3


def test_servers_that_start_at_once_take_a_round_up_once(store, house):
    house.fork()
    house.wait(lambda: house.steps("sample"))
    house.kill(house.runners[0])
    house.wait(lambda: not rounds.is_held(house.desk))
    found = []
    ready = threading.Barrier(4)

    def start():
        mine = Store.open(house.address)
        ready.wait()
        found.extend(rounds.take_up(mine))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["round 1 of loop"] and len(house.runners) == 1


def test_a_second_process_leaves_the_round_to_the_one_that_lives(store, house):
    house.fork()
    house.wait(lambda: house.steps("sample"))
    house.fork()
    second = house.runners.pop()
    assert os.waitpid(second, 0)[1] == 0 and len(house.steps("sample")) == 1


def test_a_round_whose_caller_comes_back_by_himself_is_not_taken_up(store, house):
    (house.desk).mkdir(parents=True)
    (house.desk / "sample-may-end").touch()
    told = rounds_run.run_rounds(store, "loop", RoundSettings(), house.out)
    assert told[0]["state"] == "labeling" and "at" not in told[0]
    assert rounds.take_up(store) == []
    with store.read() as db:
        (standing,) = rounds.standings(db, find_project(db, "loop"), time.time() + 100)
        assert not standing.alive  # the page shows the button
