"""Progress on standard error: a bar with rate and time left on a terminal, else a line now and then.

Where TUTELAGE_PROGRESS names a file, the numbers are kept there too, for another process to read.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PLAIN_INTERVAL = 10.0  # seconds between lines where there is no terminal
FILE_INTERVAL = 1.0  # seconds between writes of the file


class Progress:
    """`with Progress(100, "sft") as bar: bar.update(7, loss=1.3)`; the numbers are the two or three that matter.

    done: units that were done before (a resumed run); rate and time left count from there.
    """

    def __init__(self, total: int, label: str, *, done: int = 0, unit: str = "step"):
        self.total, self.label, self.unit = total, label, unit
        self.first = self.done = done
        self.numbers = ""
        self.quiet = bool(os.environ.get("TUTELAGE_QUIET"))
        self.started = self.printed = time.perf_counter()
        self.printed_done = done
        self.bar: Any = None
        self.file = os.environ.get("TUTELAGE_PROGRESS", "")
        self.kept = 0.0

    def __enter__(self) -> Self:
        self.started = self.printed = time.perf_counter()
        if sys.stderr.isatty() and not self.quiet:
            # Imported late: rich takes longer to load than `tutelage --help` may.
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as RichProgress

            columns = (
                TextColumn("{task.description:>14}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[pace]}"),
                TextColumn("[bold]{task.fields[numbers]}"),
            )
            # Standard output that goes to a file must not turn up on standard error.
            self.bar = RichProgress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty())
            self.task = self.bar.add_task(self.label, total=self.total, completed=self.done, pace="", numbers="")
            self.bar.start()
        self.keep()
        return self

    def update(self, done: int, **numbers: float) -> None:
        """done: units finished so far, of `total`. numbers: shown with three digits, in this order."""
        self.done = done
        self.numbers = "  ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in numbers.items())
        if self.bar is not None:
            self.bar.update(self.task, completed=done, pace=self.pace(), numbers=self.numbers)
        elif not self.quiet and time.perf_counter() - self.printed >= PLAIN_INTERVAL:
            self.print_line()
        if self.file and time.perf_counter() - self.kept >= FILE_INTERVAL:
            self.keep()

    def keep(self) -> None:
        """Write the file, whole or not at all; a full disk must not end the work that is told of."""
        if not self.file:
            return
        self.kept = time.perf_counter()
        numbers = {"done": self.done, "total": self.total, "first": self.first, "seconds": self.kept - self.started}
        target = Path(self.file)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps({"label": self.label, "unit": self.unit, **numbers}))
            os.replace(temporary, target)

    def pace(self) -> str:
        """The rate and the time that is left: `4 step/s, 15 s left`."""
        seconds, count = time.perf_counter() - self.started, self.done - self.first
        if count <= 0 or seconds <= 0:
            return ""
        rate = count / seconds
        shown = f"{rate:.3g} {self.unit}/s" if rate >= 1 else f"{1 / rate:.3g} s/{self.unit}"
        left = f"{clock((self.total - self.done) / rate)} left" if self.done < self.total else clock(seconds)
        return f"{shown}, {left}"

    def print_line(self) -> None:
        self.printed, self.printed_done = time.perf_counter(), self.done
        parts = [f"{self.done} of {self.total}", self.pace(), self.numbers]
        print(f"{self.label}: {', '.join(part for part in parts if part)}", file=sys.stderr, flush=True)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.keep()
        if self.bar is not None:
            self.bar.stop()
        elif not self.quiet and self.printed_done != self.done:
            self.print_line()


def clock(seconds: float) -> str:
    """59 s, 4:05, 1:02:03."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
