"""How well a process reward model reads steps that it was not trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.algorithms.process import first_error
from tutelage.evaluation.intervals import wilson

Judged = tuple[list[float], list[bool], bool | None]  # scores of the steps, which are right, whether the answer is


def step_card(judged: Sequence[Judged], each_step: bool) -> dict[str, Any]:
    """Step accuracy, AUC over steps up to the first error, share of first errors found, AUC over solutions, the gate.

    An outcome reward model (each_step False) is judged by its last score alone.
    """
    scores: list[float] = []
    right: list[bool] = []
    found = 0
    for one, labels, outcome in judged:
        if not each_step:
            scores.append(one[-1])
            right.append(bool(outcome))
            continue
        error = first_error(labels)
        kept = len(labels) if error is None else error + 1
        scores += one[:kept]
        right += labels[:kept]
        found += first_error([score >= 0.5 for score in one]) == error
    accuracy = sum((score >= 0.5) == is_right for score, is_right in zip(scores, right, strict=True))
    area = auc(scores, right)
    card: dict[str, Any] = {"step_accuracy": accuracy / max(len(scores), 1), "steps": len(scores)}
    card |= {"auc": area, "auc_ci95": auc_interval(scores, right), "solutions": len(judged)}
    if each_step:
        card["first_error_accuracy"] = found / max(len(judged), 1)
        card["first_error_ci95"] = list(wilson(found, len(judged)))
    low = card["auc_ci95"][0] if card["auc_ci95"] else 0.0
    card["gate"] = "passed" if low > 0.5 else "failed: not better than chance on held-out steps"
    return card


def auc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """P(score of a right one > score of a wrong one), ties half (Mann–Whitney); None without both kinds."""
    values, labels = np.asarray(scores, dtype=float), np.asarray(right, dtype=bool)
    good, bad = values[labels], np.sort(values[~labels])
    if not len(good) or not len(bad):
        return None
    below, upto = np.searchsorted(bad, good, "left"), np.searchsorted(bad, good, "right")
    return float((below + upto).sum() / (2 * len(good) * len(bad)))


def auc_interval(scores: Sequence[float], right: Sequence[bool], level_z: float = 1.96) -> list[float] | None:
    """95 % interval of the AUC with DeLong's variance (DeLong et al. 1988)."""
    values, labels = np.asarray(scores, dtype=float), np.asarray(right, dtype=bool)
    good, bad = values[labels], values[~labels]
    area = auc(scores, right)
    if area is None or len(good) < 2 or len(bad) < 2:
        return None
    order_bad, order_good = np.sort(bad), np.sort(good)
    of_good = (np.searchsorted(order_bad, good, "left") + np.searchsorted(order_bad, good, "right")) / (2 * len(bad))
    of_bad = 1 - (np.searchsorted(order_good, bad, "left") + np.searchsorted(order_good, bad, "right")) / (
        2 * len(good)
    )
    spread = (of_good.var(ddof=1) / len(good) + of_bad.var(ddof=1) / len(bad)) ** 0.5
    return [max(0.0, area - level_z * float(spread)), min(1.0, area + level_z * float(spread))]
