"""Faults of what serves: a judge's endpoint, the database, the pages and their workers, the labelers' clock.

Rewards in training are local models, so that training asks no endpoint; judges behind a URL are asked by `tutelage eval`,
`label` and rounds. See faults.py.
"""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import load
from fault_training import NONE, ONE, Bench, Fault, Lost, Missed, Outcome, Skipped, ended

QUESTIONS = 12


class Judge:
    """An OpenAI endpoint that fails, hangs up, hangs or talks nonsense as it is told, and else prefers "good"."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.first_fail = 0  # tries of each question that fail
        self.sound: int | None = None  # answers after which all fail
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                judge.serve(self)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        asked = body["messages"][-1]["content"]
        self.asked[asked] += 1
        fault = ""
        down = self.sound is not None and len(self.told) >= self.sound
        if down or self.asked[asked] <= self.first_fail:
            fault = random.Random(f"{asked}{self.asked[asked]}").choice(["500", "hang", "close", "nonsense"])
        if fault == "hang":
            time.sleep(0.7)
        if fault in ("close", "hang"):
            request.close_connection = True
            return
        first = asked.split("[Answer A]\n")[-1].split("\n[End of answer A]")[0]
        said = f"to {asked}" if "[Answer A]" not in asked else "[[A]]" if "good" in first else "[[B]]"
        answer = {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}
        sent = b"<html>" if fault == "nonsense" else json.dumps(answer).encode()
        with contextlib.suppress(OSError):  # who asked may be gone
            request.send_response(500 if fault == "500" else 200)
            request.send_header("Content-Length", str(len(sent)))
            request.end_headers()
            request.wfile.write(sent)
            self.told[asked] += not fault

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def endpoint(_: Bench, out: Path, draw: random.Random) -> Outcome:
    """Each question fails twice, each time in a way of its own: the caller asks again."""
    from tutelage.judges import chats

    judge, started = Judge(), time.monotonic()
    judge.first_fail = 2
    chat = chats.Endpoint("openai", judge.url, "judge", timeout=0.5)
    words, longest = [f"{draw.random()}" for _ in range(8)], chats.LONGEST_PAUSE
    chats.LONGEST_PAUSE = 0.2
    found = chat.answers([[{"role": "user", "content": one}] for one in words])
    chats.LONGEST_PAUSE = longest
    judge.close()
    if [str(one) if isinstance(one, chats.Reply) else None for one in found] != [f"to {one}" for one in words]:
        raise Lost(f"{found}")
    return Outcome(NONE, time.monotonic() - started)


def judge_down(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """The judge of `tutelage eval` goes down amid the judging, and is up again: the same command ends the work, and
    asks for no verdict that it had."""
    from tutelage.configs import EvalConfig

    out.mkdir()
    questions = [f"Question {i}." for i in range(QUESTIONS)]
    files = {
        "prompts": [{"prompt": one} for one in questions],
        "plain": [{"prompt": one, "output": f"a plain answer to {one}"} for one in questions],
        "good": [{"prompt": one, "output": f"a good answer to {one}"} for one in questions],
    }
    for name, content in files.items():
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    judge = Judge()
    judge.sound = draw.randrange(2 * QUESTIONS)
    models = tuple(f"{name}={out}/{name}.jsonl" for name in ("plain", "good"))
    config = EvalConfig(
        models=models, data=str(out / "prompts.jsonl"), judge=(f"openai:{judge.url}#judge",), out=str(out / "eval")
    )
    try:
        _evaluate(bench, config, out)
        if _judged(out) == QUESTIONS:
            raise Missed
        told, judge.sound, started = Counter(judge.told), None, time.monotonic()
        if status := _evaluate(bench, config, out):
            raise Lost(f"the command ended with {status}: {(out / 'log').read_text()[-300:]}")
    finally:
        judge.close()
    again = [one for one in told if judge.told[one] > 1]
    if _judged(out) != QUESTIONS or again or len(judge.told) != 2 * QUESTIONS:
        raise Lost(f"{_judged(out)} of {QUESTIONS} judged, {len(again)} verdicts asked for again")
    return Outcome(ONE, time.monotonic() - started)


def _evaluate(bench: Bench, config: object, out: Path) -> int:
    """`tutelage eval` in a forked process, with a short patience."""
    from tutelage.judges import chats
    from tutelage.stages import evaluate, judged  # noqa: F401 (`judged` is loaded before the fork)

    child = os.fork()
    if child:
        bench.children.add(child)
        return ended(child)
    status = 1
    try:
        os.dup2(os.open(out / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        chats.LONGEST_PAUSE, chats.ATTEMPTS = 0.02, 3
        kept = chats.Endpoint
        chats.Endpoint = lambda *words, **options: kept(*words, **{**options, "timeout": 1.0})  # type: ignore
        evaluate.run(config)  # type: ignore[arg-type]
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(status)


def _judged(out: Path) -> int:
    file = out / "eval" / "eval.json"
    return json.loads(file.read_text())["win_rates"][0]["judged"] if file.exists() else 0


ITEMS = 5_000  # that labelers are given at a time


class Labelers:
    """Three people who answer item after item; one that was not saved is sent again with its number."""

    def __init__(self, url: str):
        from tutelage.feedback.people import add_person
        from tutelage.feedback.projects import create_project
        from tutelage.feedback.store import Store

        self.store, self.over, self.items = Store.open(url), threading.Event(), 0
        self.acknowledged: list[str] = []
        self.failed: list[str] = []
        with self.store.write() as db:
            self.project = create_project(db, "Round", overlap=1)
        self._add()
        with self.store.write() as db:
            people = [add_person(db, name, "labeler", None, person_id=name).id for name in ("ana", "ben", "eve")]
        self.threads = [threading.Thread(target=self._label, args=(person,), daemon=True) for person in people]
        for thread in self.threads:
            thread.start()

    def _add(self) -> None:
        from tutelage.feedback.imports import import_records
        from tutelage.records import Completion, Prompt

        numbers = range(self.items, self.items + ITEMS)
        asked = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": "?"}]) for i in numbers]
        drawn = [Completion(id=f"{p.id}-{k}", prompt_id=p.id, text=f"{k}", model="m") for p in asked for k in range(2)]
        with self.store.write() as db:
            import_records(db, self.project, asked, drawn)
        self.items += ITEMS

    def _label(self, person: str) -> None:
        from tutelage.feedback.queue import lease_next, submit
        from tutelage.feedback.store import StoreUnavailable

        number, task = 0, None
        while not self.over.is_set():
            time.sleep(0.01)
            try:
                if task is None:
                    with self.store.write() as db:
                        given = lease_next(db, self.project, person).id  # type: ignore[union-attr]
                    task = given  # once it is on the disk
                name = f"{person}-answer-{number:05}"
                with self.store.write() as db:
                    submit(db, name, task, person, "rank", {"ranks": [1, 2]}, seconds=1)
                self.acknowledged.append(name)
                number, task = number + 1, None
            except StoreUnavailable:
                time.sleep(0.05)
            except Exception as error:
                self.failed.append(f"{person}: {type(error).__name__}: {error}")
                return

    def more(self, count: int) -> None:
        """Until so many more answers are acknowledged."""
        if len(self.acknowledged) > self.items - ITEMS / 2:
            self._add()
        before, last = len(self.acknowledged), time.monotonic() + 60
        while len(self.acknowledged) < before + count:
            if time.monotonic() > last:
                raise Lost("no answer is acknowledged any more")
            time.sleep(0.01)

    def check(self) -> None:
        """What was acknowledged is stored, once, and counted."""
        from sqlalchemy import func, select

        from tutelage.feedback.schema import Answer, Task

        known = set(self.acknowledged)
        with self.store.write() as db:  # one moment of the store, not two
            stored, filled = list(db.scalars(select(Answer.id))), db.scalar(select(func.sum(Task.filled)))
            extra = db.scalar(select(func.count()).where(Answer.extra))  # a clock that jumped ended their leases
        if self.failed:
            raise Lost("; ".join(self.failed))
        if not known <= set(stored) or len(stored) != len(set(stored)) or abs(filled + extra - len(stored)) > 3:
            raise Lost(f"{len(known)} acknowledged, {len(stored)} stored, {filled} counted, {extra} extra")

    def close(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(60)
        self.store.close()


def postgresql() -> list[Path]:
    """pg_ctl of each version that can be run here."""
    able = os.geteuid() or shutil.which("runuser")
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")) if able else []


class Database:
    """A PostgreSQL of our own with labelers at work, for all the times that it is stopped."""

    def __init__(self) -> None:
        programs = postgresql()
        if not programs:
            raise Skipped("needs PostgreSQL's programs")
        self.folder = Path(tempfile.mkdtemp())
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if user:
            shutil.chown(self.folder, "postgres")
        data, bin_ = self.folder / "data", programs[-1].parent
        self.run(*user, bin_ / "initdb", "-D", data, "-U", "tutelage", "-A", "trust")
        self.control = [*user, bin_ / "pg_ctl", "-D", data, "-w", "-l", self.folder / "log"]
        self.start()
        self.labelers = Labelers(f"postgresql://tutelage@/postgres?host={self.folder}")

    def run(self, *words: object) -> None:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # type: ignore[call-overload]

    def start(self) -> None:
        self.run(*self.control, "-o", f"-k {self.folder} -c listen_addresses=''", "start")

    def stop(self) -> None:
        self.run(*self.control, "-m", "immediate", "stop")

    def close(self) -> None:
        self.labelers.close()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def database(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """PostgreSQL is stopped at once, as by a loss of power, and started again while three labelers answer."""
    house: Database = kept(bench, "database", Database)
    house.labelers.more(draw.randint(5, 30))
    house.stop()
    time.sleep(draw.uniform(0, 1))
    house.start()
    started = time.monotonic()
    house.labelers.more(10)
    seconds = time.monotonic() - started
    house.labelers.check()
    return Outcome(NONE, seconds)


def labelers_clock(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """The server's clock jumps a day or an hour, to and fro, while labelers answer: leases end early or late."""
    labelers: Labelers = kept(bench, "labelers", lambda: Labelers(_fresh(bench)))
    labelers.more(draw.randint(5, 30))
    wall, by = time.time, draw.choice((-86_400, -3600, 3600, 86_400))
    time.time = lambda: wall() + by
    started = time.monotonic()
    try:
        labelers.more(20)
    finally:
        time.time = wall
    labelers.more(10)
    seconds = time.monotonic() - started
    labelers.check()
    return Outcome(NONE, seconds)


class Pages:
    """A server of the feedback pages with clients of benchmarks/load.py at work, for all the times it is killed."""

    def __init__(self, where: str, workers: int):
        from tutelage.feedback import Store

        self.store = Store.open(where)
        self.sessions = load.fill(self.store, 4 * 6_000, 6)
        self.server = load.Server(where, workers)
        self.clients = load.Load(self.server, float("inf"), 0.1)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.start()
        for number, session in enumerate(self.sessions[:-1]):
            asyncio.run_coroutine_threadsafe(self.clients.label(number, *session), self.loop)

    def start(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.start(), self.loop).result(120)

    def more(self, count: int) -> None:
        before, last = len(self.clients.acknowledged), time.monotonic() + 90
        while len(self.clients.acknowledged) < before + count:
            if time.monotonic() > last:
                raise Lost("no answer is acknowledged any more")
            time.sleep(0.02)

    def check(self) -> None:
        known = set(self.clients.acknowledged)
        found = load.audit(self.store, known)
        if found["lost"] or found["doubled"] or found["integrity"] != "ok":
            raise Lost(str(found))

    def close(self) -> None:
        self.clients.end = 0.0
        time.sleep(1)
        self.server.end()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.check()
        if not load.audit(self.store, self.clients.acknowledged)["counts_fit"]:
            raise Lost("the counts of items are not those of their answers")
        self.store.close()


def pages(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """kill -9 of the server while labelers send; started again by its command (a service manager does that by itself)."""
    house: Pages = kept(bench, "pages", lambda: Pages(_fresh(bench), 1))
    house.more(draw.randint(5, 20))
    house.server.kill()
    started = time.monotonic()
    house.start()
    house.more(5)
    seconds = time.monotonic() - started
    house.check()
    return Outcome(ONE, seconds)


def worker(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """kill -9 of one of two workers while labelers send."""
    house: Pages = kept(bench, "workers", lambda: Pages(_fresh(bench), 2))
    house.more(draw.randint(5, 20))
    before = house.server.workers()
    os.kill(draw.choice(before), signal.SIGKILL)
    started = time.monotonic()
    house.more(5)
    while len(now := house.server.workers()) < 2 or now == before:
        if time.monotonic() > started + 60:
            raise Lost("no other worker was started")
        time.sleep(0.02)
    seconds = time.monotonic() - started
    house.check()
    return Outcome(NONE, seconds)


class Jobs:
    """Two processes that do the jobs of a store with short leases; one that is killed is started again."""

    def __init__(self, where: str):
        from tutelage.feedback.projects import create_project
        from tutelage.feedback.store import Store

        self.where, self.store, self.workers, self.put = where, Store.open(where), [], 0
        with self.store.write() as db:
            create_project(db, "Jobs")
        self.start(), self.start()

    def start(self) -> None:
        child = os.fork()
        if child:
            self.workers.append(child)
            return
        try:
            self._work()
        finally:  # a child never goes on in its parent's place
            os._exit(1)

    def _work(self) -> None:
        """In a child, until it is killed."""
        from tutelage.feedback import jobs, jobs_run, lease
        from tutelage.feedback.store import Store, audit

        def work(mine: Any) -> dict[str, Any]:
            for _ in range(10):
                time.sleep(0.02)
                mine.check()
            with mine.write() as db:  # what a job writes
                audit(db, None, "did", str(mine.claim.settings["number"]))
                jobs.end(db, mine.claim, "done")
            raise jobs.Lost  # it is over

        jobs.LEASE_SECONDS, jobs.ATTEMPTS, lease.RENEWED, jobs_run.IDLE = 1.0, 1_000, 0.1, 0.02
        jobs_run.DO["label"] = work
        worker = jobs_run.Worker(Store.open(self.where), [["label"]])
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        worker.start()
        worker.ending.wait()

    def more(self, count: int) -> None:
        from tutelage.feedback import jobs

        with self.store.write() as db:
            for _ in range(count):
                jobs.put(db, "label", "jobs", {"number": self.put})
                self.put += 1

    def written(self) -> list[int]:
        from sqlalchemy import select

        from tutelage.feedback.schema import Audit

        with self.store.read() as db:
            return [int(detail) for detail in db.scalars(select(Audit.detail))]

    def close(self) -> None:
        for child in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            ended(child)
        self.store.close()


def job(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """kill -9 of one of two workers amid jobs: the other takes its job when the lease (1 s here) has ended."""
    house: Jobs = kept(bench, "jobs", lambda: Jobs(_fresh(bench)))
    house.more(4)
    time.sleep(draw.uniform(0.02, 0.4))
    victim = draw.choice(house.workers)
    os.kill(victim, signal.SIGKILL)
    ended(victim)
    started = time.monotonic()
    house.workers.remove(victim)
    while len(house.written()) < house.put:
        if time.monotonic() > started + 60:
            raise Lost(f"{house.put - len(house.written())} jobs are not done")
        time.sleep(0.02)
    seconds = time.monotonic() - started
    house.start()
    if sorted(house.written()) != list(range(house.put)):
        raise Lost("a job was done twice")
    return Outcome(NONE, seconds)


def _fresh(bench: Bench) -> str:
    """A store that nobody has used."""
    return str(Path(tempfile.mkdtemp(dir=bench.work)) / "feedback.db")


def kept(bench: Bench, name: str, make: Callable[[], Any]) -> Any:
    """A server that all injections of a kind share; closed after them, and after one that it did not bear."""
    if name not in bench.services:
        bench.services[name] = make()
    return bench.services[name]


SERVICES: dict[str, tuple[str, Fault]] = {
    "endpoint": ("a judge's endpoint fails, hangs, talks nonsense", endpoint),
    "judge": ("the judge of `eval` is down for a while", judge_down),
    "database": ("PostgreSQL stopped and started under load", database),
    "labelers": ("clock jumps under labelers", labelers_clock),
    "pages": ("kill -9 of the web server under load", pages),
    "job": ("kill -9 of one of two workers amid a job", job),
    "worker": ("kill -9 of one of two web workers under load", worker),
}
