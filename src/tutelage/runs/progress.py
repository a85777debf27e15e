"""Progress on standard error: a bar with rate and time left on a terminal, else a line now and then."""

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

PLAIN_INTERVAL = 10.0  # seconds between lines where there is no terminal


class Progress:
    """`with Progress(100, "sft") as bar: bar.update(7, loss=1.3)`; the numbers are the two or three that matter."""

    def __init__(self, total: int, label: str, *, done: int = 0, unit: str = "step"):
        self.total, self.label, self.unit = total, label, unit
        self.first = self.done = done
        self.started = self.printed = time.perf_counter()
        self.quiet = bool(os.environ.get("TUTELAGE_QUIET"))
        self.bar: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self.quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            columns = (
                TextColumn("{task.description:>14}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
            )
            self.bar = RichProgress(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task(self.label, total=self.total, completed=self.done, rate="", numbers="")
            self.bar.start()
        return self

    def update(self, done: int, **numbers: float) -> None:
        self.done = done
        now = time.perf_counter()
        rate = (done - self.first) / max(now - self.started, 1e-9)
        shown = "  ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in numbers.items())
        if self.bar is not None:
            self.bar.update(self.task, completed=done, rate=f"{rate:.2f} {self.unit}/s", numbers=shown)
        elif not self.quiet and (now - self.printed > PLAIN_INTERVAL or done == self.total):
            self.printed = now
            left = (self.total - done) / rate if rate else 0.0
            print(
                f"{self.label}: {done} of {self.total}, {rate:.2f} {self.unit}/s, {left:.0f} s left  {shown}",
                file=sys.stderr,
            )

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()
