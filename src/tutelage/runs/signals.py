"""Ctrl-C ends a run after the step at hand, with a checkpoint; a second one ends it at once."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

NOTICE = "stopping after this step; press Ctrl-C again to stop at once"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The run in `path` was stopped by the user after `step` steps, is saved, and can be resumed."""

    def __init__(self, path: str | Path, step: int):
        self.path, self.step = path, step
        super().__init__(f"stopped at step {step}; what is done is saved in {path}")


class Interrupt:
    """`with Interrupt() as stop:` and look at `stop.requested` between steps. SIGTERM counts like Ctrl-C."""

    def __init__(self) -> None:
        self.requested = False
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # A background process (nohup, `&`) was told to ignore the signal, and goes on doing so.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self.previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # print() may be the very call that the signal broke into, and does not allow itself a second time.
        os.write(2, f"\n{NOTICE}\n".encode())

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous.clear()


def end_on_termination() -> None:
    """SIGTERM outside of training ends the program as Ctrl-C does, where it is not ignored."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
