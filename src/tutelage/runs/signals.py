"""Ctrl-C ends a run after the step at hand, with a checkpoint; a second one ends it at once."""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(Exception):
    """The run was stopped by the user and can be resumed."""

    def __init__(self, path: Path, step: int):
        self.path, self.step = path, step
        super().__init__(f"stopped at step {step}; what is done is saved in {path}")


class Interrupt:
    """`with Interrupt() as stop:` and look at `stop.requested` between steps."""

    def __init__(self) -> None:
        self.requested = False
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("\nstopping after this step; press Ctrl-C again to stop at once", file=sys.stderr)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
