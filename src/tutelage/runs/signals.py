"""Ctrl-C ends a run after the step at hand, with a checkpoint; a second one ends it at once."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

NOTICE = "stopping after this step; press Ctrl-C again to stop at once"


class Interrupted(Exception):
    """The run was stopped by the user after `step` steps, is saved in `path`, and can be resumed."""

    def __init__(self, path: str | Path, step: int):
        self.path, self.step = Path(path), step
        self.message = f"stopped at step {step}; what is done is saved in {path}"
        super().__init__(self.message)


class Interrupt:
    """`with Interrupt() as stop:` and look at `stop.requested` between steps.

    SIGTERM counts like Ctrl-C. Outside the main thread nothing is installed. A recipe may hold one around its
    stages' own: a request that a stage did not get to see is passed on to it.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                previous = signal.getsignal(number)
                # A background process (nohup, `&`) was told to ignore the signal, and goes on doing so; None is a
                # handler that Python did not set and could not put back.
                if previous not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # print() may be the very call that the signal broke into, and does not allow itself a second time.
        os.write(2, f"\n{NOTICE}\n".encode())

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, Interrupt) and self.requested:
                outer.requested = True
        self._previous.clear()
