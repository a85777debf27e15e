"""Faults of training: the process, its memory, its clock, its disk and its checkpoints. See faults.py."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tutelage.configs import PPOConfig, RewardConfig, SFTConfig
from tutelage.runs import finished
from tutelage.verbs import stage_function

COMPARED = {"sft": ["loss"], "reward": ["loss"], "ppo": ["objective/scores", "loss/value_avg"]}
NONE, ONE = "none", "one command"
LONGEST = 600  # seconds of one injection: what takes longer hangs


class Skipped(Exception):
    """The fault cannot be injected on this machine."""


class Missed(Exception):
    """All was over before the fault: drawn again, and not counted."""


class Lost(Exception):
    """Something that was acknowledged is gone, doubled or wrong, or one command did not mend it."""


@dataclass(frozen=True)
class Outcome:
    """What recovery took: nothing or one command, and the seconds until all was well again."""

    recovery: str
    seconds: float


Fault = Callable[["Bench", Path, random.Random], Outcome]


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Lost, wherever the main thread then is, when the block is not over by then."""

    def over(*_: object) -> None:
        raise Lost(f"not over after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, 30.0)  # again, where something swallowed it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Bench:
    """Small models and runs that nothing hit, each made when it is first needed; and processes that train.

    Processes are forked: the seconds in which Python loads everything are not in the figures.
    """

    def __init__(self, work: Path):
        self.work = work
        self.wanted: dict[str, list[list[float]]] = {}
        self.seconds: dict[str, float] = {}
        self.services: dict[str, Any] = {}
        self.children: set[int] = set()
        self.pace = 1.0  # moments come earlier after some that were missed

    @cached_property
    def base(self) -> Path:
        from tutelage.models import Policy, save_model
        from tutelage.world.build import SIZES, make_model, make_tokenizer

        tokenizer = make_tokenizer()
        policy = Policy(make_model(SIZES["nano"], tokenizer, 0, "float32"), tokenizer)
        save_model(self.work / "base", policy, {"role": "policy"}, verify=False)
        return self.work / "base"

    @cached_property
    def pairs(self) -> Path:
        path = self.work / "pairs.jsonl"
        rows = [{"prompt": f"Say {i}", "chosen": f"It is {i}.", "rejected": "No" * (i % 3 + 1)} for i in range(60)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    @cached_property
    def rewarded(self) -> Path:
        """A reward model for PPO."""
        out = self.work / "rewarded"
        self._finish("reward", out)
        return out

    def config(self, verb: str, out: Path) -> SFTConfig | RewardConfig | PPOConfig:
        common = {"model": str(self.base), "out": str(out), "resume": True, "seed": 1, "dtype": "float32"}
        common |= {"learning_rate": 1e-3, "max_length": 96, "save_every": 3}
        if verb == "sft":
            return SFTConfig(max_steps=12, batch_size=8, demonstrations=80, **common)  # type: ignore[arg-type]
        common["data"] = str(self.pairs)
        if verb == "reward":
            return RewardConfig(max_steps=9, batch_size=4, eval_every=3, **common)  # type: ignore[arg-type]
        return PPOConfig(
            max_steps=6, batch_size=8, minibatch_size=4, max_new_tokens=6, eval_every=3, eval_prompts=4, ema=0.5,
            reward_model=str(self.rewarded), force=True, **common,  # type: ignore[arg-type]
        )  # fmt: skip

    def prepare(self, verb: str) -> None:
        """The run that nothing hits, for its numbers and its time."""
        if verb not in self.wanted:
            whole = self.work / f"whole-{verb}"
            self.config(verb, whole)  # makes what it needs
            started = time.monotonic()
            self._finish(verb, whole)
            self.seconds[verb], self.wanted[verb] = time.monotonic() - started, rows(verb, whole)

    def start(self, verb: str, out: Path, processes: int = 1, before: Callable[[], None] | None = None) -> list[int]:
        """Begin or resume the run in forked processes, as a launcher would start them; returns their ids."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = self.config(verb, out)
        children = []
        for rank in range(processes):
            child = os.fork()
            if child:
                children.append(child)
                self.children.add(child)
                continue
            if processes > 1:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
                os.environ["MASTER_PORT"] = str(port)
            _train(verb, replace(config, out=str(out)), before)
        return children

    def _finish(self, verb: str, out: Path, processes: int = 1) -> None:
        statuses = [ended(child) for child in self.start(verb, out, processes)]
        if any(statuses):
            raise Lost(f"the command ended with {statuses}: {log_of(out).read_text()[-300:]}")

    def mend(self, verb: str, out: Path, processes: int = 1) -> Outcome:
        """The one command: resume to the end. Nothing may be lost."""
        started = time.monotonic()
        self._finish(verb, out, processes)
        self.check(verb, out)
        return Outcome(ONE, time.monotonic() - started)

    def check(self, verb: str, out: Path) -> None:
        """Every step once, with the numbers of the run that nothing hit; the last checkpoint is there."""
        found, wanted = rows(verb, out), self.wanted[verb]
        if [row[0] for row in found] != [row[0] for row in wanted]:
            raise Lost(f"steps {[row[0] for row in found]}")
        pairs = [(a, b) for mine, theirs in zip(found, wanted, strict=True) for a, b in zip(mine, theirs, strict=True)]
        worst = max(abs(a - b) / max(abs(b), 1e-3) for a, b in pairs)
        if not worst < 1e-5:
            raise Lost(f"numbers differ by {worst:.1e}")
        if not (out / "checkpoints/latest/model.safetensors").exists():
            raise Lost("no checkpoint")

    def moment(self, verb: str, draw: random.Random) -> float:
        return draw.uniform(0.05, 0.9) * self.seconds[verb] * self.pace

    def end_children(self) -> None:
        """Nothing that a fault began goes on after it."""
        for child in self.children:
            with contextlib.suppress(ChildProcessError):  # its end was taken already
                if os.waitpid(child, os.WNOHANG) == (0, 0):
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
        self.children.clear()

    def let_go(self) -> list[str]:
        """Close the services that injections of a kind share; returns what was wrong with them."""
        wrong = []
        while self.services:
            name, service = self.services.popitem()
            try:
                with at_most(LONGEST):
                    service.close()
            except Exception as error:
                wrong.append(f"{name}, at its end: {type(error).__name__}: {error}")
        return wrong


def _train(verb: str, config: object, before: Callable[[], None] | None) -> None:
    """In a child: train, and leave with a status."""
    from tutelage.runs import Interrupted, is_disk_full

    out = Path(config.out)  # type: ignore[attr-defined]
    status = 1
    try:
        os.dup2(os.open(log_of(out), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        if before:
            before()
        stage_function(verb)(config)
        status = 0
    except Interrupted:
        status = 130
    except BaseException as error:
        status = 28 if is_disk_full(error) else 1
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:  # also where there is no room to say so: a child never goes on in its parent's place
        os._exit(status)


def log_of(out: Path) -> Path:
    return out.parent / f"{out.name}.log"


def rows(verb: str, out: Path) -> list[list[float]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [[row["step"], *(row[name] for name in COMPARED[verb])] for row in map(json.loads, lines)]


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def end(child: int, number: signal.Signals = signal.SIGKILL) -> int:
    """Signal a child; Missed where it had ended well before."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)
    status = ended(child)
    if status == 0:
        raise Missed
    return status


def kill(verb: str, bench: Bench, out: Path, draw: random.Random) -> Outcome:
    bench.prepare(verb)
    (child,) = bench.start(verb, out)
    time.sleep(bench.moment(verb, draw))
    end(child)
    return bench.mend(verb, out)


def kill_rank(rank: int, bench: Bench, out: Path, draw: random.Random) -> Outcome:
    bench.prepare("sft")
    children = bench.start("sft", out, 2)
    time.sleep(bench.moment("sft", draw))
    try:
        end(children[rank])
    finally:
        with contextlib.suppress(Missed):
            end(children[1 - rank])  # as a launcher does
    return bench.mend("sft", out, draw.choice((1, 2)))


def terminate(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """SIGTERM saves the step at hand."""
    bench.prepare("sft")
    (child,) = bench.start("sft", out)
    last = time.monotonic() + 60
    while not (out / "metrics.jsonl").exists() and time.monotonic() < last:  # before that SIGTERM just ends it
        time.sleep(0.01)
    time.sleep(bench.moment("sft", draw) / 3)
    status = end(child, signal.SIGTERM)
    if status == -signal.SIGTERM and finished(out):  # all was written, and it was about to leave
        raise Missed
    steps, newest = len(rows("sft", out)), (out / "checkpoints/latest").resolve().parent.name
    if status != 130 or newest != f"step-{steps}":
        raise Lost(f"ended with {status} after step {steps} with {newest}")
    return bench.mend("sft", out)


def out_of_memory(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """From a random moment on the process gets no more memory than it has (RLIMIT_AS)."""
    bench.prepare("sft")
    delay = bench.moment("sft", draw)

    def limit() -> None:
        def later() -> None:
            time.sleep(delay)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))

        threading.Thread(target=later, daemon=True).start()

    (child,) = bench.start("sft", out, before=limit)
    if ended(child) == 0:
        raise Missed
    return bench.mend("sft", out)


def full_disk(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """A tmpfs of 64 MiB that another file nearly fills; then that file goes."""
    bench.prepare("sft")
    place = out.parent / f"{out.name}-disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", place]).returncode:
        raise Skipped("needs root to mount a tmpfs")
    run = place / "run"
    try:
        (place / "filler").write_bytes(bytes(64 * 2**20 - draw.randint(100_000, 5_000_000)))
        (child,) = bench.start("sft", run)
        status = ended(child)
        if status == 0:
            raise Missed
        if status not in (28, 1):
            raise Lost(f"a full disk ended it with {status}")
        (place / "filler").unlink()
        return bench.mend("sft", run)
    finally:
        if subprocess.run(["umount", place]).returncode:
            subprocess.run(["umount", "--lazy", place], check=True)


def damaged(how: str, bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """A file of the newest checkpoint is cut off, or a byte in it changed; the run then goes back one checkpoint."""
    bench.prepare("sft")
    shutil.copytree(bench.work / "whole-sft", out, symlinks=True)
    newest = (out / "checkpoints/latest").resolve().parent
    if newest.parent.parent != out.resolve():
        raise Lost(f"the copy's newest checkpoint is {newest}")
    victim = draw.choice([path for path in newest.rglob("*") if path.is_file() and path.stat().st_size])
    content = bytearray(victim.read_bytes())
    if how == "cut":
        del content[draw.randrange(len(content)) :]
    else:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    victim.write_bytes(content)
    return bench.mend("sft", out)


def clock(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """The clock of one process or two jumps by an hour or a day, to and fro; where it goes forwards the monotonic ones
    go along, as after a machine was suspended. The functions of `time` are wrapped in the children."""
    bench.prepare("sft")
    delay, by, seen = bench.moment("sft", draw), draw.choice((-86_400, -3600, 3600, 86_400)), out.with_suffix(".seen")

    def wrap() -> None:
        wall, steady, counter = time.time, time.monotonic, time.perf_counter
        since = steady() + delay

        def offset() -> float:
            if steady() < since:
                return 0.0
            seen.touch()
            return by

        time.time = lambda: wall() + offset()
        time.monotonic = lambda: steady() + max(offset(), 0.0)
        time.perf_counter = lambda: counter() + max(offset(), 0.0)

    return _weathered(bench, "sft", out, wrap, seen, draw.choice((1, 2)))


def slow_disk(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """`os.fsync` and `os.write` take a while (wrapped in the child), as on a disk that others keep busy."""
    verb = draw.choice(("sft", "reward"))
    bench.prepare(verb)
    seen = out.with_suffix(".seen")
    return _weathered(bench, verb, out, partial(_slow_down, draw.uniform(0.05, 0.15), seen), seen)


def slow_disk_kill(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """kill -9 while a slow disk is being written to: within a checkpoint."""
    bench.prepare("sft")
    seen = out.with_suffix(".seen")
    (child,) = bench.start("sft", out, before=partial(_slow_down, 0.1, seen))
    last = time.monotonic() + 60
    while not seen.exists() and time.monotonic() < last:
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 3))  # the first checkpoint, the second, or between
    end(child)
    return bench.mend("sft", out)


def _slow_down(seconds: float, seen: Path) -> None:
    fsync, write = os.fsync, os.write

    def slow_fsync(descriptor: int) -> None:
        seen.touch()
        time.sleep(seconds)
        fsync(descriptor)

    def slow_write(descriptor: int, content: bytes) -> int:
        time.sleep(seconds / 10)
        return write(descriptor, content)

    os.fsync, os.write = slow_fsync, slow_write  # type: ignore[assignment]


def _weathered(
    bench: Bench, verb: str, out: Path, before: Callable[[], None], seen: Path, processes: int = 1
) -> Outcome:
    """The run must come to its end by itself; its cost is the time that it took longer."""
    started = time.monotonic()
    statuses = [ended(child) for child in bench.start(verb, out, processes, before)]
    if not seen.exists():
        raise Missed
    if any(statuses):
        return bench.mend(verb, out)
    bench.check(verb, out)
    return Outcome(NONE, max(0.0, time.monotonic() - started - bench.seconds[verb]))


TRAINING: dict[str, tuple[str, Fault]] = {
    "kill": ("kill -9 of an SFT run", partial(kill, "sft")),
    "kill-reward": ("kill -9 of a reward model's run", partial(kill, "reward")),
    "kill-ppo": ("kill -9 of PPO's trainer", partial(kill, "ppo")),
    "rank0": ("kill -9 of rank 0 of 2; goes on with 1 or 2", partial(kill_rank, 0)),
    "rank1": ("kill -9 of rank 1 of 2; goes on with 1 or 2", partial(kill_rank, 1)),
    "term": ("SIGTERM", terminate),
    "memory": ("out of memory (RLIMIT_AS)", out_of_memory),
    "disk": ("disk full (tmpfs)", full_disk),
    "cut": ("newest checkpoint cut off", partial(damaged, "cut")),
    "changed": ("a bit of the newest checkpoint changed", partial(damaged, "changed")),
    "clock": ("clock jumps an hour or a day", clock),
    "slow": ("slow disk (fsync and write)", slow_disk),
    "slow-kill": ("kill -9 while a slow disk writes", slow_disk_kill),
}
