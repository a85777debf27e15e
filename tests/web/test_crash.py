"""The server is killed (SIGKILL) while labelers send: every acknowledged answer is there, once."""

import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
from sqlalchemy import func, select

from tutelage.feedback.schema import Answer, Task
from tutelage.feedback.steps import environment

from .site import fill, on_both

KILLS, LABELERS = {"sqlite": 2, "postgresql": 1}, 4


def start(store, port):
    source = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tutelage", "feedback", "serve", "--port", str(port)]
    server = subprocess.Popen(command, env=environment(store) | source, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            httpx.get(f"http://127.0.0.1:{port}/login", timeout=1)
            return server
        except httpx.HTTPError:
            assert server.poll() is None
            time.sleep(0.1)
    raise AssertionError("the server did not start")


@on_both
def test_no_acknowledged_answer_is_lost_or_doubled(store):
    fill(store, prompts=400)
    kills = KILLS[store.engine.dialect.name]
    store.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    acknowledged, rng = [], random.Random(5)
    for round_number in range(kills):
        server = start(store, port)
        over = threading.Event()
        threads = [
            threading.Thread(target=send, args=(port, over, acknowledged, f"{round_number}-{i}"))
            for i in range(LABELERS)
        ]
        for thread in threads:
            thread.start()
        enough = len(acknowledged) + rng.randint(3, 12)
        end = time.monotonic() + 60
        while len(acknowledged) < enough and time.monotonic() < end:
            time.sleep(0.005)
        server.send_signal(signal.SIGKILL)
        over.set()
        server.wait()
        for thread in threads:
            thread.join()
    assert len(acknowledged) >= 3 * kills
    if store.engine.dialect.name == "sqlite":
        with sqlite3.connect(store.engine.url.database) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with store.read() as db:
        stored = list(db.scalars(select(Answer.id)))
        filled = db.scalar(select(func.sum(Task.filled)))
        superseded = select(Answer.supersedes).where(Answer.supersedes.is_not(None))
        current = list(db.execute(select(Answer.task_id, Answer.person_id).where(Answer.id.not_in(superseded))))
    assert len(stored) == len(set(stored)) and set(acknowledged) <= set(stored)
    assert filled == len(current) == len(set(current))  # one that counts, of each person and item


def send(port, over, acknowledged, name):
    """One labeler: takes, answers, sends each answer twice. The local person is shared, so items may be corrected."""
    headers = {"accept": "application/json"}
    count = 0
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            token = re.search(r'data-csrf="([^"]+)"', http.get("/").text).group(1)
            while not over.is_set():
                task = http.get("/p/round-1/next", headers=headers).json()["task"]
                count += 1
                body = {"id": f"crash-{name}-{count:04}", "kind": "rank", "ranking": "A > B"}
                for _ in range(2):
                    reply = http.post(f"/t/{task}/answer", json=body, headers={**headers, "x-csrf-token": token})
                    if reply.status_code == 200 and body["id"] not in acknowledged:
                        acknowledged.append(body["id"])
    except httpx.HTTPError:
        return
