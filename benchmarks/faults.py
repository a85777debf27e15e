"""Inject faults into training, an endpoint and the store, and say what each cost.

    python benchmarks/faults.py --rounds 3 --out faults.md
    python benchmarks/faults.py --only kill,damaged

A training fault hits a small SFT run at a random moment; the run is then resumed once, by the command that it
prints, and must have every step once with the losses of a run that nothing hit. Needs Linux; the full disk needs root
(a small tmpfs), the database PostgreSQL's programs.
"""

import argparse
import contextlib
import json
import math
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ |= {"TUTELAGE_QUIET": "1", "OMP_NUM_THREADS": "1"}

from tutelage.configs import SFTConfig

STEPS, SAVE_EVERY = 12, 3
Fault = Callable[[Path, random.Random], str]


class Skipped(Exception):
    """The fault cannot be injected on this machine."""


class Lost(Exception):
    """Something that was acknowledged is gone, doubled or wrong."""


class Bench:
    """A base model, an undisturbed run, and processes that train."""

    def __init__(self, work: Path):
        from tutelage.models import Policy, save_model
        from tutelage.world.build import SIZES, make_model, make_tokenizer

        self.work, tokenizer = work, make_tokenizer()
        model = make_model(SIZES["nano"], tokenizer, 0, "float32")
        save_model(work / "base", Policy(model, tokenizer), {"role": "policy"}, verify=False)
        self.config = SFTConfig(
            model=str(work / "base"), max_steps=STEPS, save_every=SAVE_EVERY, batch_size=8, demonstrations=80,
            max_length=96, dtype="float32", seed=1, learning_rate=1e-3,
        )  # fmt: skip
        started = time.monotonic()
        self.finish(work / "undisturbed")
        self.seconds = time.monotonic() - started
        self.wanted = self.rows(work / "undisturbed")

    def start(self, out: Path, processes: int = 1, before: Callable[[], None] | None = None) -> list[int]:
        """Begin or resume the run in forked processes, which a launcher would start; returns their ids."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = []
        for rank in range(processes):
            child = os.fork()
            if child:
                children.append(child)
                continue
            if processes > 1:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
                os.environ["MASTER_PORT"] = str(port)
            self._train(out, before)
        return children

    def _train(self, out: Path, before: Callable[[], None] | None) -> None:
        """In a child: train, and leave with a status."""
        from tutelage.runs import Interrupted, is_disk_full
        from tutelage.stages import sft

        os.dup2(os.open(out.parent / f"{out.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        status = 0
        try:
            if before:
                before()
            sft.run(replace(self.config, out=str(out), resume=True))
        except Interrupted:
            status = 130
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            status = 28 if is_disk_full(error) else 1
        os._exit(status)

    def finish(self, out: Path, processes: int = 1) -> None:
        """Run to the end, resuming what is there."""
        children = self.start(out, processes)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(statuses):
            raise Lost(f"resuming ended with {statuses}: {(out.parent / f'{out.name}.log').read_text()[-300:]}")

    @staticmethod
    def rows(out: Path) -> list[tuple[int, float]]:
        lines = (out / "metrics.jsonl").read_text().splitlines()
        return [(row["step"], row["loss"]) for row in map(json.loads, lines)]

    def check(self, out: Path) -> None:
        """Every step once, with the loss of the undisturbed run; the last checkpoint loads."""
        found = self.rows(out)
        if [step for step, _ in found] != [step for step, _ in self.wanted]:
            raise Lost(f"steps {[step for step, _ in found]}")
        worst = max(abs(a / b - 1) for (_, a), (_, b) in zip(found, self.wanted, strict=True))
        if not worst < 1e-5:
            raise Lost(f"losses differ by {worst:.1e}")
        if not (out / "checkpoints/latest/model.safetensors").exists():
            raise Lost("no checkpoint")

    def moment(self, draw: random.Random) -> None:
        time.sleep(draw.uniform(0, self.seconds))


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(bench: Bench) -> Fault:
    def inject(out: Path, draw: random.Random) -> str:
        (child,) = bench.start(out)
        bench.moment(draw)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        ended(child)
        bench.finish(out)
        return "--resume"

    return inject


def kill_rank(bench: Bench, rank: int) -> Fault:
    def inject(out: Path, draw: random.Random) -> str:
        children = bench.start(out, 2)
        bench.moment(draw)
        for child in (children[rank], children[1 - rank]):  # a launcher ends the others
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            ended(child)
        bench.finish(out, draw.choice((1, 2)))
        return "--resume, on 1 or 2 processes"

    return inject


def terminate(bench: Bench) -> Fault:
    def inject(out: Path, draw: random.Random) -> str:
        (child,) = bench.start(out)
        while not (out / "metrics.jsonl").exists():  # before that SIGTERM just ends it
            time.sleep(0.01)
        time.sleep(draw.uniform(0, bench.seconds / 2))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        status, steps = ended(child), len(bench.rows(out))
        newest = (out / "checkpoints/latest").resolve().parent.name
        if status == 130 and newest != f"step-{steps}":
            raise Lost(f"stopped after step {steps} with {newest}")
        bench.finish(out)
        return "--resume; the step at hand was saved"

    return inject


def out_of_memory(bench: Bench) -> Fault:
    def inject(out: Path, draw: random.Random) -> str:
        def limit() -> None:
            def later() -> None:
                bench.moment(draw)
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))

            threading.Thread(target=later, daemon=True).start()

        (child,) = bench.start(out, before=limit)
        ended(child)
        bench.finish(out)
        return "--resume"

    return inject


def full_disk(bench: Bench) -> Fault:
    def inject(out: Path, draw: random.Random) -> str:
        place = out.parent / f"{out.name}-disk"
        place.mkdir()
        if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", place]).returncode:
            raise Skipped("needs root to mount a tmpfs")
        run = place / "run"
        try:
            size = 64 * 2**20 - draw.randint(100_000, 6_000_000)
            (place / "filler").write_bytes(bytes(size))
            (child,) = bench.start(run)
            status = ended(child)
            if status not in (0, 28, 1):
                raise Lost(f"a full disk ended it with {status}")
            (place / "filler").unlink()
            bench.finish(run)
            bench.check(run)
            shutil.copytree(run, out, symlinks=True)
        finally:
            subprocess.run(["umount", place], check=True)
        return "--resume, once there is room"

    return inject


def damaged(bench: Bench) -> Fault:
    def inject(out: Path, draw: random.Random) -> str:
        bench.finish(out)
        newest = (out / "checkpoints/latest").resolve().parent
        victim = draw.choice([path for path in newest.rglob("*") if path.is_file() and path.stat().st_size])
        content = bytearray(victim.read_bytes())
        if draw.random() < 0.5:
            del content[draw.randrange(len(content)) :]
        else:
            content[draw.randrange(len(content))] ^= 0xFF
        victim.write_bytes(content)
        bench.finish(out)
        return "--resume takes the checkpoint before it"

    return inject


def endpoint(_: Bench) -> Fault:
    """A judge's endpoint that fails, hangs up, hangs or talks nonsense at first."""

    def inject(out: Path, draw: random.Random) -> str:
        from tutelage.judges.chats import Endpoint, Reply

        seen: dict[str, int] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked = body["messages"][-1]["content"]
                seen[asked] = seen.get(asked, 0) + 1
                fault = random.Random(f"{asked}{seen[asked]}").choice(["500", "hang", "close", "nonsense"])
                if seen[asked] > 2:
                    fault = ""
                if fault == "hang":
                    time.sleep(1.5)
                if fault in ("close", "hang"):
                    self.close_connection = True
                    return
                answer = {"choices": [{"message": {"content": f"to {asked}"}, "finish_reason": "stop"}]}
                sent = b"<html>" if fault == "nonsense" else json.dumps(answer).encode()
                self.send_response(500 if fault == "500" else 200)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chat = Endpoint("openai", f"http://127.0.0.1:{server.server_port}", "judge", timeout=1.0)
        found = chat.answers([[{"role": "user", "content": f"{draw.random()}"}] for _ in range(8)])
        server.shutdown()
        asked = list(seen)
        if not all(isinstance(one, Reply) for one in found) or {one.text for one in found} != {
            f"to {a}" for a in asked
        }:  # type: ignore[union-attr]
            raise Lost(f"{found}")
        return "none: it asks again"

    return inject


def database(_: Bench) -> Fault:
    """PostgreSQL is stopped at once and started again while three labelers answer."""

    def inject(out: Path, draw: random.Random) -> str:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
        if not programs or (os.geteuid() == 0 and not shutil.which("runuser")):
            raise Skipped("needs PostgreSQL's programs")
        folder = Path(tempfile.mkdtemp())
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if user:
            shutil.chown(folder, "postgres")
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        data, bin_ = folder / "data", programs[-1].parent
        subprocess.run([*user, bin_ / "initdb", "-D", data, "-U", "tutelage", "-A", "trust"], **quiet)  # type: ignore[call-overload]
        control = [*user, bin_ / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
        start = [*control, "-o", f"-k {folder} -c listen_addresses=''", "start"]
        subprocess.run(start, **quiet)  # type: ignore[call-overload]
        try:
            labelers = Labelers(f"postgresql://tutelage@/postgres?host={folder}")
            labelers.work(seconds=draw.uniform(0.5, 1.5))
            subprocess.run([*control, "-m", "immediate", "stop"], **quiet)  # type: ignore[call-overload]
            time.sleep(draw.uniform(0, 1))
            subprocess.run(start, **quiet)  # type: ignore[call-overload]
            return labelers.finish()
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **quiet)  # type: ignore[call-overload]
            shutil.rmtree(folder, ignore_errors=True)

    return inject


class Labelers:
    """Three people who answer item after item; one that was not saved is sent again with its number."""

    def __init__(self, url: str):
        from tutelage.feedback.people import add_person
        from tutelage.feedback.projects import create_project, import_records
        from tutelage.feedback.store import Store
        from tutelage.records import Completion, Prompt

        self.store, self.acknowledged, self.over = Store.open(url), [], threading.Event()  # type: ignore[var-annotated]
        asked = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": "?"}]) for i in range(3000)]
        drawn = [Completion(id=f"{p.id}-{k}", prompt_id=p.id, text=f"{k}", model="m") for p in asked for k in range(2)]
        with self.store.write() as db:
            self.project = create_project(db, "Round", overlap=1)
            import_records(db, self.project, asked, drawn)
            self.people = [add_person(db, name, "labeler", None, person_id=name).id for name in ("ana", "ben", "eve")]
        self.threads = [threading.Thread(target=self._label, args=(person,)) for person in self.people]

    def work(self, seconds: float) -> None:
        for thread in self.threads:
            thread.start()
        time.sleep(seconds)

    def _label(self, person: str) -> None:
        from tutelage.feedback.queue import lease_next, submit
        from tutelage.feedback.store import StoreUnavailable

        number, task = 0, None
        while not self.over.is_set():
            try:
                if task is None:
                    with self.store.write() as db:
                        task = lease_next(db, self.project, person).id  # type: ignore[union-attr]
                name = f"{person}-answer-{number:05}"
                with self.store.write() as db:
                    submit(db, name, task, person, "rank", {"ranks": [1, 2]}, seconds=1)
                self.acknowledged.append(name)
                number, task = number + 1, None
            except StoreUnavailable:
                time.sleep(0.05)

    def finish(self) -> str:
        from sqlalchemy import func, select

        from tutelage.feedback.schema import Answer, Task

        before, end = len(self.acknowledged), time.monotonic() + 60
        while len(self.acknowledged) < before + 30 and time.monotonic() < end:
            time.sleep(0.02)
        self.over.set()
        for thread in self.threads:
            thread.join()
        with self.store.read() as db:
            stored, filled = list(db.scalars(select(Answer.id))), db.scalar(select(func.sum(Task.filled)))
        self.store.close()
        if not set(self.acknowledged) <= set(stored) or filled != len(stored) or len(self.acknowledged) < before + 30:
            raise Lost(f"{len(self.acknowledged)} acknowledged, {len(stored)} stored, {filled} counted")
        return "none: the pages connect again"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="faults-"))
    bench = Bench(work)
    faults: dict[str, tuple[str, Fault, bool]] = {
        "kill": ("kill -9 of the one process", kill(bench), True),
        "rank0": ("kill -9 of rank 0 of 2", kill_rank(bench, 0), True),
        "rank1": ("kill -9 of rank 1 of 2", kill_rank(bench, 1), True),
        "term": ("SIGTERM", terminate(bench), True),
        "memory": ("out of memory (RLIMIT_AS)", out_of_memory(bench), True),
        "disk": ("disk full (tmpfs)", full_disk(bench), True),
        "damaged": ("newest checkpoint cut off or changed", damaged(bench), True),
        "endpoint": ("a judge's endpoint fails, hangs, talks nonsense", endpoint(bench), False),
        "database": ("PostgreSQL stopped and started under load", database(bench), False),
    }
    table = [
        "| fault | injected | recovered | lost or doubled | recovery | seconds, median |",
        "|---|---|---|---|---|---|",
    ]
    failed = False
    for name, (about, inject, trains) in faults.items():
        if options.only and name not in options.only.split(","):
            continue
        good, lost, how, seconds = 0, [], "", []
        for number in range(options.rounds):
            draw, out, started = (
                random.Random(f"{options.seed} {name} {number}"),
                work / f"{name}-{number}",
                time.monotonic(),
            )
            try:
                how = inject(out, draw)
                if trains:
                    bench.check(out)
                good += 1
            except Skipped as reason:
                how = f"skipped: {reason}"
                break
            except Lost as error:
                lost.append(str(error))
                print(f"{name} {number}: {error}", file=sys.stderr)
            seconds.append(time.monotonic() - started)
        middle = sorted(seconds)[len(seconds) // 2] if seconds else math.nan
        table.append(f"| {about} | {len(seconds)} | {good} | {len(lost)} | {how} | {middle:.1f} |")
        print(table[-1], file=sys.stderr, flush=True)
        failed |= bool(lost)
    text = "\n".join(table) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)
    shutil.rmtree(work, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
