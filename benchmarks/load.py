"""Labelers at work against a full store: latency of each page and submit, and kills of the server at random moments.

    python benchmarks/load.py --labelers 50 --minutes 5 --completions 100000 --kills 20
    python benchmarks/load.py --store postgresql://user@host/empty …

Each labeler signs in by a cookie of its own, loads an item's page, saves a draft, sends its answer twice, and takes the
next. Prints one JSON object: p50 and p95 of each request in ms, answers acknowledged, lost, doubled, and the server's
memory. Latency is of whole requests as the client sees them, on the machine that the server runs on; the pauses of
labelers (--think seconds, exponential) set the load.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import httpx
import numpy as np
from sqlalchemy import func, select, text

from tutelage.feedback import Store, people
from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import create_project, find_project
from tutelage.feedback.schema import Answer, Task
from tutelage.records import Completion, Prompt

K = 4
PART = 10_000  # prompts that are stored in one transaction
WORDS = ["because", "the", "river", "runs", "down", "to", "the", "sea", "and", "nobody", "asks", "it", "why"]
JSON = {"accept": "application/json"}


def fill(store: Store, completions: int, labelers: int) -> list[tuple[str, str]]:
    """A project with so many completions, each item for three people; (cookie, form token) of each labeler.

    Records are made and stored a part at a time: two million need no more memory than one part.
    """
    with store.write() as db:
        project = create_project(db, "Load", overlap=3)
        people.add_person(db, "Lead", "lead", None, person_id="lead")
    count, rng = completions // K, random.Random(0)
    for first in range(0, count, PART):
        numbers = range(first, min(first + PART, count))
        with store.write() as db:
            import_records(db, project, *_records(numbers, rng))
        if count > PART:
            print(f"{K * numbers.stop} of {K * count} completions", file=sys.stderr, flush=True)
    if store.engine.dialect.name == "postgresql":  # as its autovacuum does within minutes of an import
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
    sessions = []
    with store.write() as db:
        for number in range(labelers):
            person = people.add_person(db, f"Labeler {number}", "labeler", None)
            token, session = people.sign_in(db, person)
            sessions.append((token, session.csrf))
        token, session = people.sign_in(db, db.get_one(people.Person, "lead"))
        sessions.append((token, session.csrf))
    return sessions


def _records(numbers: range, rng: random.Random) -> tuple[list[Prompt], list[Completion]]:
    asked = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"Question {i}: why?"}]) for i in numbers]
    drawn = [
        Completion(id=f"p{i}-{k}", prompt_id=f"p{i}", text=f"{k}: {' '.join(rng.choices(WORDS, k=60))}")
        for i in numbers
        for k in range(K)
    ]
    return asked, drawn


class Server:
    def __init__(self, where: str, workers: int = 1):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.where, self.count, self.process = where, workers, None
        self.peak = self.together = 0.0

    async def start(self) -> None:
        for _ in range(3):  # a client that connects to a free port may hold it for a moment
            if await self._started():
                return
        raise RuntimeError("the server did not start")

    async def _started(self) -> bool:
        words = [sys.executable, "-m", "tutelage", "feedback", "serve", "--accounts", "--port", str(self.port)]
        words += ["--workers", str(self.count)]
        environment = {**os.environ, "TUTELAGE_STORE": self.where}
        self.process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
        async with httpx.AsyncClient() as http:
            while True:
                try:
                    await http.get(f"http://127.0.0.1:{self.port}/login", timeout=5)
                    return True
                except httpx.HTTPError:
                    if self.process.poll() is not None:
                        await asyncio.sleep(1)
                        return False
                    await asyncio.sleep(0.1)

    def workers(self) -> list[int]:
        """The processes that answer, where there are several."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def measure(self) -> None:
        """The peak of resident memory in MiB, of all processes (pages that forked ones share count in each)."""
        total = 0.0
        for pid in (self.process.pid, *self.workers()):
            with contextlib.suppress(OSError):  # a worker that just ended
                status = Path(f"/proc/{pid}/status").read_text()
                total += sum(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        self.peak = max(self.peak, total)
        self.together = max(self.together, sum(map(_share, (self.process.pid, *self.workers()))))

    def kill(self) -> None:
        self.measure()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _share(pid: int) -> float:
    """A process' memory now in MiB, of pages that several share its part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


class Load:
    def __init__(self, server: Server, end: float, think: float):
        self.server, self.end, self.think = server, end, think
        self.times: dict[str, list[float]] = defaultdict(list)
        self.statuses: Counter[str] = Counter()
        self.acknowledged: set[str] = set()
        self.broken = 0

    async def ask(self, http: httpx.AsyncClient, name: str, method: str, path: str, **options) -> httpx.Response | None:
        started = time.perf_counter()
        try:
            reply = await http.request(method, path, **options)
        except httpx.HTTPError:
            self.broken += 1
            await asyncio.sleep(0.3)
            return None
        self.times[name].append(1000 * (time.perf_counter() - started))
        if reply.status_code >= 400:
            self.statuses[f"{name} {reply.status_code}"] += 1
        return reply

    def client(self, cookie: str) -> httpx.AsyncClient:
        url = f"http://127.0.0.1:{self.server.port}"
        return httpx.AsyncClient(base_url=url, cookies={"tutelage_session": cookie}, timeout=30, follow_redirects=False)

    async def label(self, number: int, cookie: str, csrf: str) -> None:
        """Until the end: page, draft, answer (twice, as a browser does that lost the first reply), next."""
        rng, count = random.Random(number), 0
        headers = {**JSON, "x-csrf-token": csrf}
        async with self.client(cookie) as http:
            while time.monotonic() < self.end:
                await asyncio.sleep(rng.expovariate(1 / self.think))
                found = await self.ask(http, "next", "GET", "/p/load/next", headers=JSON)
                task = found.json().get("task") if found is not None and found.status_code == 200 else None
                if task is None or await self.ask(http, "item page", "GET", f"/t/{task}") is None:
                    continue
                draft = {"revision": 0, "payload": {"ranking": "A > B"}}
                await self.ask(http, "draft", "POST", f"/t/{task}/draft", json=draft, headers=headers)
                count += 1
                line = " > ".join(rng.sample("ABCD", 4))
                body = {"id": f"load-{number:03}-{count:06}", "kind": "rank", "ranking": line, "seconds": 1.0}
                for _ in range(2):
                    reply = await self.ask(http, "submit", "POST", f"/t/{task}/answer", json=body, headers=headers)
                    if reply is not None and reply.status_code == 200:
                        self.acknowledged.add(body["id"])

    async def lead(self, cookie: str) -> None:
        """Looks at the project now and then."""
        async with self.client(cookie) as http:
            while time.monotonic() < self.end:
                for name, path in (("start page", "/"), ("lead page", "/projects/load")):
                    await self.ask(http, name, "GET", path)
                    await asyncio.sleep(2.0)


async def run(options: argparse.Namespace, where: str, sessions: list[tuple[str, str]]) -> dict:
    server = Server(where, options.workers)
    await server.start()
    end = time.monotonic() + 60 * options.minutes
    load = Load(server, end, options.think)
    workers = [asyncio.create_task(load.label(i, *one)) for i, one in enumerate(sessions[:-1])]
    workers.append(asyncio.create_task(load.lead(sessions[-1][0])))
    rng, kills = random.Random(1), 0
    moments = sorted(rng.uniform(0, 60 * options.minutes) for _ in range(options.kills))
    begin = end - 60 * options.minutes
    for moment in moments:
        await asyncio.sleep(max(0.0, begin + moment - time.monotonic()))
        server.kill()
        kills += 1
        await server.start()
    await asyncio.gather(*workers)
    server.measure()
    server.end()
    requests = {
        name: {
            "requests": len(times),
            "p50_ms": round(float(np.percentile(times, 50)), 1),
            "p95_ms": round(float(np.percentile(times, 95)), 1),
        }
        for name, times in load.times.items()
    }
    return {
        "requests": requests,
        "refused": dict(load.statuses),
        "cut_off_by_kills": load.broken,
        "kills": kills,
        "server_peak_mib": round(server.peak),
        "server_mib_shared_once": round(server.together),
        "acknowledged": load.acknowledged,
    }


def audit(store: Store, acknowledged: set[str]) -> dict:
    """Every acknowledged answer is there once, and the counts of items are those of their answers."""
    with store.read() as db:
        project = find_project(db, "load")
        stored = list(db.scalars(select(Answer.id)))
        filled = db.scalar(select(func.sum(Task.filled)).where(Task.project_id == project.id)) or 0
        counted = db.scalar(select(func.count()).where(~Answer.extra, Answer.supersedes.is_(None))) or 0
        intact = "not SQLite"
        if store.engine.dialect.name == "sqlite":
            intact = db.scalar(text("PRAGMA integrity_check"))
    return {
        "acknowledged": len(acknowledged),
        "stored": len(stored),
        "lost": len(acknowledged - set(stored)),
        "doubled": len(stored) - len(set(stored)),
        "counts_fit": int(filled) == int(counted),
        "integrity": intact,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelers", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--completions", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--think", type=float, default=5.0, help="mean seconds between a labeler's items")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--store", default="", help="an empty PostgreSQL database; a SQLite file when not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = options.store or f"{folder}/feedback.db"
        store = Store.open(where)
        started = time.monotonic()
        sessions = fill(store, options.completions, options.labelers)
        filled = round(time.monotonic() - started, 1)
        result = asyncio.run(run(options, where, sessions))
        result |= audit(store, result.pop("acknowledged"))
        store.close()
    about = {"labelers": options.labelers, "minutes": options.minutes, "completions": options.completions}
    about |= {"workers": options.workers, "seconds_to_fill": filled}
    print(json.dumps({**about, "think_seconds": options.think, **result}, indent=2))


if __name__ == "__main__":
    main()
