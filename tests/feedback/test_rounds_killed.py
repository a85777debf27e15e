"""The worker of a round is killed at each of its steps: another takes the round's job, once, and nothing is done twice."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tutelage.feedback import jobs, jobs_run, lease, people, queue, rounds, rounds_run, steps
from tutelage.feedback.jobs_run import Worker
from tutelage.feedback.projects import create_project, find_project
from tutelage.feedback.rounds import RoundSettings
from tutelage.feedback.schema import Job, Round, Task
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
    """Workers are forked, their leases are short, and their steps are the script above."""
    script = tmp_path / "step.py"
    script.write_text(STEP)
    monkeypatch.setattr(steps, "COMMAND", (sys.executable, "-S", str(script)))
    for module, name, value in (
        (jobs, "LEASE_SECONDS", 1.5),
        (lease, "RENEWED", 0.2),
        (rounds_run, "POLL", 0.02),
        (steps, "POLL", 0.02),
        (jobs_run, "IDLE", 0.02),
        (jobs_run, "WAKE", 0.05),
    ):
        monkeypatch.setattr(module, name, value)
    with store.write() as db:
        create_project(db, "Loop", overlap=1)
        people.add_person(db, "ana", "labeler", None, person_id="ana")
    house = House(store, store.engine.url.render_as_string(False), tmp_path)
    yield house
    for pid in list(house.workers):
        house.kill(pid)


class House:
    def __init__(self, store, address, out):
        self.store, self.address, self.out = store, address, out
        self.workers: list[int] = []

    @property
    def desk(self):
        return self.out / "loop" / "1"

    def begin(self):
        """As the page does."""
        with self.store.write() as db:
            row = rounds.start_round(db, find_project(db, "loop"), RoundSettings(), self.out, waits=True)
            rounds.enqueue(db, row)

    def fork(self, work=None):
        pid = os.fork()
        if pid == 0:
            try:
                store = Store.open(self.address)
                work(store) if work else self._serve(store)
            finally:
                os._exit(0)
        self.workers.append(pid)
        return pid

    def _serve(self, store):
        worker = Worker(store, [["round"]])
        signal.signal(signal.SIGTERM, lambda *_: worker.ending.set())
        worker.start()
        worker.ending.wait()
        worker.stop()

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)
        self.ended(pid)

    def ended(self, pid):
        self.workers.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def holder(self):
        """The worker of the round's job."""
        with self.store.read() as db:
            job = jobs.open_job(db, "round loop")
            return int(job.worker.split(":")[1]) if job is not None and job.state == "running" else None

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

    def label(self):
        with self.store.write() as db:
            project = find_project(db, "loop")
            while (task := queue.lease_next(db, project, "ana")) is not None:
                queue.submit(db, f"ana-{task.id:08}", task.id, "ana", "rank", {"ranks": [1, 2, 3, 4]})


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_round_survives_the_kill_of_its_worker_at_every_step(store, house):
    house.begin()
    house.fork(), house.fork()
    house.wait(lambda: house.steps("sample"))
    house.kill(house.holder())
    house.wait(lambda: gone(house.steps("sample")[0]))  # the step ended with its parent
    house.wait(lambda: len(house.steps("sample")) == 2)  # the other worker took the job when its lease had ended
    assert house.state() == "sampling" and house.holder() == house.workers[0]
    (house.desk / "sample-may-end").touch()
    house.wait(lambda: house.state() == "labeling")
    house.wait(lambda: house.holder() is None)  # nobody need be there while people label

    house.fork()
    house.label()
    house.wait(lambda: house.steps("run"))
    house.kill(house.holder())
    house.wait(lambda: gone(house.steps("run")[0]))
    (house.desk / "run-may-end").touch()
    house.wait(lambda: house.state() == "done" and house.holder() is None)
    with store.read() as db:
        row = db.query(Round).one()
        assert row.result["policy"] == f"{house.desk}/run/ppo/c" and row.result["items"] == 2
        assert db.query(Task).count() == 2
        assert [(job.state, job.attempts) for job in db.query(Job).order_by(Job.id)] == [("done", 2), ("done", 2)]


def test_a_worker_that_ends_in_good_order_gives_the_round_back_at_once(store, house):
    house.begin()
    first = house.fork()
    house.wait(lambda: house.steps("sample"))
    os.kill(first, signal.SIGTERM)
    assert house.ended(first) == 0 and gone(house.steps("sample")[0])
    with store.read() as db:
        job = db.query(Job).one()
        assert (job.state, job.attempts) == ("waiting", 0) and job.until <= time.time() + 1
    (house.desk / "sample-may-end").touch()
    house.fork()
    house.wait(lambda: house.state() == "labeling")


def test_a_round_is_given_up_when_it_kills_its_workers(store, house):
    house.begin()
    for number in range(1, jobs.ATTEMPTS + 1):
        pid = house.fork()
        house.wait(lambda number=number: len(house.steps("sample")) == number)
        house.kill(pid)
    house.fork()
    house.wait(lambda: house.holder() is None)
    with store.read() as db:
        job = db.query(Job).one()
        assert job.state == "failed" and "3 workers died of it" in job.said
        (standing,) = rounds.standings(db, find_project(db, "loop"), time.time())
        assert not standing.alive  # the page shows the button
    with store.write() as db:
        rounds.change_state(db, find_project(db, "loop"), "continue")
    (house.desk / "sample-may-end").touch()
    house.wait(lambda: house.state() == "labeling")


def test_a_command_that_was_killed_is_gone_on_with_by_a_server(store, house):
    def command(store):
        rounds_run.run_rounds(store, "loop", RoundSettings(), house.out, wait=True)

    first = house.fork(command)
    house.wait(lambda: house.steps("sample"))
    second = house.fork(command)  # leaves the round to the one that lives
    assert house.ended(second) == 0 and len(house.steps("sample")) == 1
    house.kill(first)
    house.fork()
    house.wait(lambda: len(house.steps("sample")) == 2)
    (house.desk / "sample-may-end").touch()
    (house.desk / "run-may-end").touch()
    house.wait(lambda: house.state() == "labeling")
    house.label()
    house.wait(lambda: house.state() == "done")


def test_the_same_command_goes_on_once_the_lease_has_ended(store, house):
    def command(store):
        rounds_run.run_rounds(store, "loop", RoundSettings(), house.out)

    first = house.fork(command)
    house.wait(lambda: house.steps("sample"))
    house.kill(first)
    (house.desk / "sample-may-end").touch()
    command(store)
    assert house.state() == "labeling" and len(house.steps("sample")) == 2


def test_a_round_whose_caller_comes_back_by_himself_waits_for_him(store, house):
    (house.desk).mkdir(parents=True)
    (house.desk / "sample-may-end").touch()
    told = rounds_run.run_rounds(store, "loop", RoundSettings(), house.out)
    assert told[0]["state"] == "labeling" and "at" not in told[0]
    house.label()
    assert rounds.wake(store) == []
    with store.read() as db:
        (standing,) = rounds.standings(db, find_project(db, "loop"), time.time())
        assert not standing.alive


def test_a_step_that_fails_is_tried_again_and_a_stop_ends_it(store, house, monkeypatch):
    monkeypatch.setattr(jobs, "PAUSE", 0.05)
    bad = house.out / "bad.py"
    bad.write_text("import sys; print('the endpoint is down'); sys.exit(1)")
    good = steps.COMMAND
    monkeypatch.setattr(steps, "COMMAND", (sys.executable, "-S", str(bad)))
    house.begin()
    first = house.fork()
    house.wait(lambda: house.state() == "failed")
    house.wait(lambda: house.holder() is None)
    house.kill(first)
    with store.read() as db:
        job = db.query(Job).one()
        assert (job.state, job.attempts) == ("failed", 3) and "the endpoint is down" in job.said
    monkeypatch.setattr(steps, "COMMAND", good)
    with store.write() as db:
        rounds.change_state(db, find_project(db, "loop"), "continue")
    house.fork()
    house.wait(lambda: house.steps("sample"))
    with store.write() as db:
        rounds.change_state(db, find_project(db, "loop"), "stopped")
    house.wait(lambda: gone(house.steps("sample")[0]))
    assert house.state() == "stopped" and house.holder() is None
