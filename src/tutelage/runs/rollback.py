"""Going back to the last good checkpoint when the numbers break, and past the batches that broke them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tutelage.runs.files import append_rows

FILE = "rollbacks.jsonl"
HISTORY = 50  # steps that a spike is measured against
ENOUGH = 10  # fewer say nothing


class RolledBack(Exception):
    """A run broke at `step` and is to be resumed from its checkpoint of step `to`."""

    def __init__(self, step: int, to: int, reason: str):
        self.step, self.to, self.reason = step, to, reason
        super().__init__(f"step {step}: {reason}; back to step {to} and past these batches (resume the run)")


@dataclass(frozen=True)
class Rollback:
    step: int
    to: int
    reason: str


def is_spike(history: Sequence[float], value: float, factor: float) -> bool:
    """Whether a value lies above the median of those before by more than `factor` times their median deviation."""
    recent = list(history)[-HISTORY:]
    if len(recent) < ENOUGH:
        return False
    middle = median(recent)
    deviation = median(abs(x - middle) for x in recent)
    return value - middle > factor * max(deviation, 1e-3 * abs(middle), 1e-12)


def rollbacks(run: Path) -> list[Rollback]:
    """What is logged, oldest first."""
    path = run / FILE
    if not path.exists():
        return []
    return [Rollback(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def note(run: Path, rollback: Rollback) -> None:
    append_rows(run / FILE, [vars(rollback)])


def position(done: Sequence[Rollback], step: int) -> int:
    """Which batch (from 0) a step takes: those between a checkpoint and the break after it are left out."""
    return step - 1 + sum(one.step - one.to for one in done if step > one.to)


def going_on(run: Callable[[Any], dict[str, Any]], config: Any, resumed: Callable[[Any], Any]) -> dict[str, Any]:
    """`run(config)`, begun anew from the checkpoint as often as it rolls back."""
    while True:
        try:
            return run(config)
        except RolledBack:
            config = resumed(config)
        # Past the handler nothing holds the broken models any more.
