"""Faults of a cluster: PPO on Ray with a trainer, two samplers and two scorers, of which one is killed. See faults.py.

Needs Ray (`pip install 'tutelage[ray]'`). One Ray serves all injections.
"""

import contextlib
import logging
import os
import random
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fault_services import kept
from fault_training import NONE, Bench, Fault, Lost, Missed, Outcome, Skipped

from tutelage.configs.cluster import ClusterConfig

STEPS = 6  # of the PPO run that is hit
PATIENCE = 180.0  # seconds in which the next step must be done


class House:
    """A Ray on this machine, for all the runs."""

    def __init__(self) -> None:
        try:
            import ray
        except ImportError:
            raise Skipped("Ray is not installed") from None
        ray.init(num_cpus=5, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        self.ray = ray

    def close(self) -> None:
        self.ray.shutdown()


def actors(kind: str) -> list[int]:
    """Processes below this one that run actors of a class; Ray names them after it."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if (process / "cmdline").read_bytes().startswith(f"ray::{kind}".encode()) and _is_ours(int(process.name)):
                found.append(int(process.name))
    return found


def _is_ours(pid: int) -> bool:
    while pid > 1 and pid != os.getpid():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid == os.getpid()


class Killer(threading.Thread):
    """Kills an actor at a random moment after a random step, and takes the time until the next step is done."""

    def __init__(self, kind: str, out: Path, draw: random.Random):
        super().__init__(daemon=True)
        self.kind, self.out, self.draw = kind, out, draw
        self.seconds: float | None = None
        self.over = threading.Event()
        self.start()

    def steps(self) -> int:
        file = self.out / "metrics.jsonl"
        return file.read_text().count("\n") if file.exists() else 0

    def run(self) -> None:
        after = self.draw.randrange(STEPS - 1)
        if not self._until(lambda: self.steps() >= after and bool(actors(self.kind))):
            return
        time.sleep(self.draw.uniform(0, 0.2))
        victims = actors(self.kind)
        if not victims or (before := self.steps()) == STEPS:
            return
        os.kill(self.draw.choice(victims), signal.SIGKILL)
        hit = time.monotonic()
        # What was written of a step after the last checkpoint is taken back and done again by the next trainer.
        if self._until(lambda: self.steps() > before):
            self.seconds = time.monotonic() - hit

    def _until(self, condition: Any) -> bool:
        last = time.monotonic() + PATIENCE
        while not condition():
            if self.over.wait(0.01) or time.monotonic() > last:
                return bool(condition())
        return True


def lose(kind: str, bench: Bench, out: Path, draw: random.Random) -> Outcome:
    """The run comes to its end by itself, with every step once and the numbers of a run that nothing hit."""
    bench.prepare("ppo")  # before Ray is there: it forks
    kept(bench, "ray", House)
    from tutelage.cluster.trainer import run_placed

    config = replace(bench.config("ppo", out), resume=False)
    killer = Killer(kind, out, draw)
    try:
        run_placed("ppo", config, ClusterConfig(samplers=2, scorers=2 if kind == "Scorer" else 0))
    except Exception as error:
        raise Lost(f"{type(error).__name__}: {str(error)[:300]}") from error
    finally:
        killer.over.set()
        killer.join()
    if killer.seconds is None:
        raise Missed
    bench.check("ppo", out)
    return Outcome(NONE, killer.seconds)


def sampler(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    return lose("Sampler", bench, out, draw)


def scorer(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    return lose("Scorer", bench, out, draw)


def trainer(bench: Bench, out: Path, draw: random.Random) -> Outcome:
    return lose("Trainer", bench, out, draw)


CLUSTER: dict[str, tuple[str, Fault]] = {
    "ray-sampler": ("kill -9 of one of two samplers on Ray", sampler),
    "ray-scorer": ("kill -9 of one of two scorers on Ray", scorer),
    "ray-trainer": ("kill -9 of the trainer on Ray", trainer),
}
