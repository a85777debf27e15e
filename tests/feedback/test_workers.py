"""Several processes serve one store: no place is given twice, a killed one is replaced, and all of them end together."""

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from tutelage.errors import UserError
from tutelage.feedback import people
from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import create_project
from tutelage.feedback.schema import Answer, Assignment, Task
from tutelage.feedback.steps import environment
from tutelage.web.workers import Workers

LABELERS, OVERLAP, KILLS = 6, 2, 2
JSON = {"accept": "application/json"}
PASSWORD = "a long password"


class Server:
    """`tutelage feedback serve` with two workers, on a port of its own."""

    def __init__(self, store):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        source = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
        words = ["feedback", "serve", "--accounts", "--workers", "2", "--port", str(self.port)]
        command = [sys.executable, "-m", "tutelage", *words]
        self.process = subprocess.Popen(command, env=environment(store) | source, stderr=subprocess.DEVNULL)
        wait_for(lambda: len(self.workers()) == 2)
        wait_for(self.answers)

    def workers(self):
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]

    def answers(self):
        assert self.process.poll() is None
        try:
            return httpx.get(f"{self.url}/login", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture
def server(store):
    with store.write() as db:
        people.add_person(db, "Ana", "admin", PASSWORD)
    server = Server(store)
    yield server
    workers = server.workers()
    server.process.terminate()
    assert server.process.wait(30) == 0 and all(map(gone, workers))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def label(server, cookie, csrf, name, acknowledged, over):
    """Takes and answers, each answer sent until it is acknowledged; every request is a connection of its own."""
    rng = random.Random(name)
    numbers = itertools.count()
    task = body = None
    while not over.is_set():
        try:
            with httpx.Client(base_url=server.url, cookies={"tutelage_session": cookie}, timeout=10) as http:
                if body is None:
                    task = http.get("/p/load/next", headers=JSON).json()["task"]
                    if task is None:
                        return
                    line = " > ".join(rng.sample("ABCD", 4))
                    body = {"id": f"{name}-{next(numbers):06}", "kind": "rank", "ranking": line}
                if http.post(f"/t/{task}/answer", json=body, headers=JSON | {"x-csrf-token": csrf}).status_code == 200:
                    acknowledged.append(body["id"])
                    body = None
        except httpx.HTTPError:  # its worker was killed
            time.sleep(0.01)


def most_places(store):
    """Of all items: the most answers and running leases that one has."""
    leased = select(func.count()).where(Assignment.task_id == Task.id, Assignment.state == "leased")
    with store.read() as db:
        return db.scalar(select(func.max(Task.filled + leased.scalar_subquery())))


def test_two_workers_give_no_place_twice_and_lose_nothing_when_killed(store, server, sampled):
    with store.write() as db:
        import_records(db, create_project(db, "Load", overlap=OVERLAP), *sampled(prompts=400))
        found = [people.sign_in(db, people.add_person(db, f"L{i}", "labeler", None)) for i in range(LABELERS)]
    acknowledged, over, rng = [], threading.Event(), random.Random(3)
    threads = [
        threading.Thread(target=label, args=(server, token, session.csrf, f"labeler{i}", acknowledged, over))
        for i, (token, session) in enumerate(found)
    ]
    for thread in threads:
        thread.start()
    for _ in range(KILLS):
        before = len(acknowledged)
        wait_for(lambda before=before: len(acknowledged) >= before + 12)
        victim = rng.choice(server.workers())
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda victim=victim: victim not in server.workers() and len(server.workers()) == 2)
        assert most_places(store) <= OVERLAP
    before = len(acknowledged)
    wait_for(lambda: len(acknowledged) >= before + 12)
    over.set()
    for thread in threads:
        thread.join()
    assert most_places(store) <= OVERLAP
    with store.read() as db:
        stored = list(db.scalars(select(Answer.id)))
        filled, extra = db.scalar(select(func.sum(Task.filled))), db.scalar(select(func.count()).where(Answer.extra))
    assert set(acknowledged) <= set(stored) and len(stored) == len(set(stored)) == filled and extra == 0
    # whichever worker takes a try to sign in, it counts for both
    tries = [f"guess {i}" for i in range(7)] + [PASSWORD]
    told = [httpx.post(f"{server.url}/login", data={"name": "Ana", "password": one}).status_code for one in tries]
    assert told == [403] * 5 + [429] * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_workers_end_with_their_parent(tmp_path, number):
    parent = os.fork()
    if parent == 0:
        Workers(2, lambda: (tmp_path / str(os.getpid())).touch() or time.sleep(60)).run()
        os._exit(0)
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    os.kill(parent, number)
    code = os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1])
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    wait_for(lambda: all(gone(one.name) for one in tmp_path.iterdir()))


def test_workers_that_cannot_start_are_not_started_for_ever(monkeypatch, capfd):
    monkeypatch.setattr("tutelage.web.workers.POLL", 0.01)
    with pytest.raises(UserError, match="as soon as they had started"):
        Workers(2, lambda: 1 / 0).run()
    assert "ZeroDivisionError" in capfd.readouterr().err
