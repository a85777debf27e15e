"""A thread that ends a process which makes no progress: with its rank, its phase and its stack, instead of a hang.

Progress is a pass through a model, a decoded token, a step, a phase that begins or ends. Time that the whole process
was stopped (a frozen machine, a clock that jumps) does not count. Each process leaves what it does in a file of the
run's folder, so that the ones that wait can name the one that they wait for.
"""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tutelage.processes import launched, rank

FOLDER = ".heartbeats"
_beats = 0
_phase = "start"


def beat() -> None:
    """Say that something was done."""
    global _beats
    _beats += 1


@contextmanager
def phase(name: str) -> Iterator[None]:
    """What the process is doing, for the message of a stall."""
    global _phase
    before, _phase = _phase, name
    beat()
    try:
        yield
    finally:
        _phase = before
        beat()


WAITING = "waiting for the other processes"


class Watchdog:
    """`with Watchdog(run_folder, 1800):` ends the process after so many seconds without a beat."""

    def __init__(self, folder: Path, seconds: float):
        self.folder, self.seconds = folder / FOLDER, seconds
        self.tick = min(5.0, seconds / 10)
        self.step = 0
        self.stopped = threading.Event()
        self.main = threading.main_thread().ident
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        beat()
        self.thread.start()

    def stop(self) -> None:
        """End the watch; the main process takes the files away."""
        self.stopped.set()
        self.thread.join()
        with suppress(OSError):
            (self.folder / str(rank())).unlink(missing_ok=True)
            self.folder.rmdir()

    def _watch(self) -> None:
        seen, silent, before = _beats, 0.0, time.monotonic()
        while not self.stopped.wait(self.tick):
            now = time.monotonic()
            silent += min(now - before, 2 * self.tick)
            before = now
            if _beats != seen:
                seen, silent = _beats, 0.0
            self._report(silent)
            if _phase == WAITING:  # the one that all wait for speaks first, and may be long at work that it does alone
                if silent > 1.5 * self.seconds and not self._others_go_on():
                    self._end(silent)
            elif silent > self.seconds:
                self._end(silent)

    def _report(self, silent: float) -> None:
        if launched() == 1:
            return
        with suppress(OSError):  # a full disk is not for the watchdog to tell
            self.folder.mkdir(exist_ok=True)
            said = {"step": self.step, "phase": _phase, "silent": round(silent, 1), "time": time.time()}
            new = self.folder / f"{rank()}.new"
            new.write_text(json.dumps(said))
            new.replace(self.folder / str(rank()))  # nobody reads half of it

    def _others_go_on(self) -> bool:
        """Whether a process that says so itself, lately, has made progress."""
        for other in range(launched()):
            said = self._said(other) if other != rank() else None
            if said and time.time() - said["time"] + said["silent"] < self.seconds:
                return True
        return False

    def _said(self, other: int) -> dict[str, Any] | None:
        try:
            return json.loads((self.folder / str(other)).read_text())
        except (OSError, ValueError):
            return None

    def _end(self, silent: float) -> None:
        frame = sys._current_frames().get(self.main or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        lines = [f"stalled: rank {rank()}, step {self.step}, {_phase}: no progress for {silent:.0f} s", *self.others()]
        os.write(2, ("\n" + "\n".join(lines) + "\n" + stack).encode())
        os._exit(1)

    def others(self) -> list[str]:
        """What the other processes said last."""
        found = []
        for other in range(launched()):
            if other == rank():
                continue
            if (said := self._said(other)) is None:
                found.append(f"  rank {other} has left nothing")
                continue
            age = time.time() - said["time"] + said["silent"]
            found.append(f"  rank {other}: step {said['step']}, {said['phase']}, no progress for {age:.0f} s")
        return found
