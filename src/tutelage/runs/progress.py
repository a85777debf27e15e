"""Progress on standard error: a bar with rate and time left on a terminal, else a line now and then."""

import os
import sys
import time
from types import TracebackType
from typing import Any, ClassVar, Self

PLAIN_INTERVAL = 10.0  # seconds between lines where there is no terminal
QUIET = "TUTELAGE_QUIET"


class Progress:
    """`with Progress(100, "sft") as bar: bar.update(7, loss=1.3)`; the numbers are the two or three that matter.

    done: units that were done before (a resumed run); rate and time left count from there. One bar may run inside
    another and is then drawn below it.
    """

    _live: ClassVar[Any] = None  # the rich display; a terminal has room for one

    def __init__(self, total: int, label: str, unit: str = "step", quiet: bool = False, *, done: int = 0):
        self.total, self.label, self.unit = total, label, unit
        self.first = self.done = done
        self.numbers = ""
        self.quiet = quiet or os.environ.get(QUIET, "") not in ("", "0")
        self.started = time.perf_counter()
        self._line_time, self._line_done = self.started, -1
        self._owns_live = False
        self._task: Any = None

    def __enter__(self) -> Self:
        self.started = self._line_time = time.perf_counter()
        if sys.stderr.isatty() and not self.quiet:
            if Progress._live is None:
                Progress._live = _rich_progress()
                Progress._live.start()
                self._owns_live = True
            self._task = Progress._live.add_task(
                self.label, total=self.total, completed=self.done, rate="", left="", numbers=""
            )
        return self

    def update(self, done: int, **numbers: float) -> None:
        """done: units finished so far, of `total`. numbers: shown with three digits, in this order."""
        self.done = done
        self.numbers = "  ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in numbers.items())
        if self._task is not None:
            rate, left = self._rate_and_left()
            Progress._live.update(self._task, completed=done, rate=rate, left=left, numbers=self.numbers)
        elif not self.quiet and time.perf_counter() - self._line_time >= PLAIN_INTERVAL:
            self._print_line()

    def _rate_and_left(self) -> tuple[str, str]:
        seconds = time.perf_counter() - self.started
        count = self.done - self.first
        if count <= 0 or seconds <= 0:
            return "", ""
        rate = count / seconds
        shown = f"{rate:.3g} {self.unit}/s" if rate >= 1 else f"{1 / rate:.3g} s/{self.unit}"
        return shown, f"{clock((self.total - self.done) / rate)} left" if self.done < self.total else clock(seconds)

    def _print_line(self) -> None:
        self._line_time, self._line_done = time.perf_counter(), self.done
        parts = [f"{self.done} of {self.total}", *self._rate_and_left(), self.numbers]
        print(f"{self.label}: {', '.join(part for part in parts if part)}", file=sys.stderr, flush=True)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._task is not None:
            if self._owns_live:
                Progress._live.stop()
                Progress._live = None
            else:
                Progress._live.remove_task(self._task)
            self._task = None
        elif not self.quiet and self._line_done != self.done:
            self._print_line()


def clock(seconds: float) -> str:
    """59 s, 4:05, 1:02:03."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def _rich_progress() -> Any:
    # Imported late: rich takes longer to load than `tutelage --help` may.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description:>14}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        TextColumn("[bold]{task.fields[numbers]}"),
        console=Console(stderr=True),
        # Standard output that goes to a file must not turn up on standard error.
        redirect_stdout=sys.stdout.isatty(),
    )
