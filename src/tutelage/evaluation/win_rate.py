"""Win rates of one policy over another on the same prompts, ties counting a half."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.errors import UserError
from tutelage.evaluation.intervals import clustered_interval, wilson


def _summary(points: NDArray[np.float64], clusters: Sequence[Hashable] | None) -> dict[str, Any]:
    """`points`: one of {0, 0.5, 1} per comparison, shape (n,)."""
    n = int(points.size)
    rate = float(points.mean())
    if clusters is None:
        prompts = n
        low, high = wilson(float(points.sum()), n)
    else:
        prompts = len(set(clusters))
        _, low, high = clustered_interval(points, clusters)
        if low == high or not np.isfinite([low, high]).all():
            # All clusters alike (or a single one): the sandwich variance says nothing there,
            # so the number of clusters bounds what can be known.
            low, high = wilson(rate * prompts, prompts)
        low, high = max(0.0, low), min(1.0, high)
    return {
        "win_rate": rate,
        "ci95": [float(low), float(high)],
        "prompts": prompts,
        "ties": int((points == 0.5).sum()),
    }


def win_rate(scores_a: ArrayLike, scores_b: ArrayLike, clusters: Sequence[Hashable] | None = None) -> dict[str, Any]:
    """How often A's answer scores higher than B's to the same prompt.

    `scores_a`, `scores_b`: shape (n,), row i of both is the same prompt. `clusters`: one label per row
    where a prompt has several rows. Returns {"win_rate", "ci95": [low, high], "prompts", "ties"};
    without clusters the interval is Wilson's, with them the cluster-robust one (CR1, Student's t).
    Raises UserError on unequal lengths, no rows, or a score that is not a number.
    """
    a = np.asarray(scores_a, dtype=np.float64).reshape(-1)
    b = np.asarray(scores_b, dtype=np.float64).reshape(-1)
    if a.size != b.size:
        raise UserError(
            f"{a.size} scores against {b.size}", where="win_rate", mend="score both policies on the same prompts"
        )
    if a.size == 0:
        raise UserError("no prompts to compare on", where="win_rate", mend="give at least one prompt")
    if clusters is not None and len(clusters) != a.size:
        raise UserError(
            f"{a.size} scores but {len(clusters)} cluster labels", where="win_rate", mend="give one label per score"
        )
    bad = np.flatnonzero(np.isnan(a) | np.isnan(b))
    if bad.size:
        raise UserError(
            f"the score of prompt {int(bad[0])} is not a number", where="win_rate", mend="score every answer"
        )
    points = np.where(a > b, 1.0, np.where(a == b, 0.5, 0.0))
    return _summary(points, clusters)


def win_rate_from_votes(votes: ArrayLike, clusters: Sequence[Hashable] | None = None) -> dict[str, Any]:
    """The same from votes, each 1 (A wins), 0.5 (tie) or 0 (B wins), shape (n,).

    Give `clusters` (the prompt's id) where several labelers vote on one prompt.
    """
    points = np.asarray(votes, dtype=np.float64).reshape(-1)
    if points.size == 0:
        raise UserError("no votes", where="win_rate_from_votes", mend="give at least one vote")
    bad = np.flatnonzero(~np.isin(points, (0.0, 0.5, 1.0)))
    if bad.size:
        raise UserError(
            f"vote {int(bad[0])} is {points[bad[0]]:g}", where="win_rate_from_votes", mend="votes are 0, 0.5 or 1"
        )
    if clusters is not None and len(clusters) != points.size:
        raise UserError(
            f"{points.size} votes but {len(clusters)} cluster labels",
            where="win_rate_from_votes",
            mend="give one label per vote",
        )
    return _summary(points, clusters)
