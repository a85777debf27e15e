"""Win rates of one policy over another on the same prompts, ties counting a half."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
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


def matrix(scores: Mapping[str, ArrayLike], clusters: Sequence[Hashable] | None = None) -> list[dict[str, Any]]:
    """Win rates of each model over every one named before it, on the same prompts.

    `scores`: name -> scores (n,), row i of all is the same prompt; order the names from the baseline on.
    Returns `win_rate`'s mapping with "policy" and "baseline" for each pair.
    """
    return [
        {"policy": policy, "baseline": baseline, **win_rate(scores[policy], scores[baseline], clusters)}
        for baseline, policy in combinations(scores, 2)
    ]


def judge_votes(
    rank: Sequence[Callable[[int, random.Random], Sequence[int]]],
    pairs: int,
    rng: random.Random,
    votes_each: int = 1,
) -> tuple[list[float], list[int]]:
    """Votes of a panel on `pairs` pairs of answers: (votes, the number of the pair that each vote is on).

    `rank`: one function per labeler that ranks pair i, (rank of A, rank of B), 1 is best and equal is a tie.
    Each pair is given to `votes_each` labelers of the panel, drawn anew. The two lists are what
    `win_rate_from_votes` takes as votes and clusters. Raises UserError where the panel is too small.
    """
    if not 0 < votes_each <= len(rank):
        raise UserError(
            f"{votes_each} votes on a pair from a panel of {len(rank)}", where="judge_votes", mend="take fewer votes"
        )
    votes, clusters = [], []
    for pair in range(pairs):
        for labeler in rng.sample(range(len(rank)), votes_each):
            first, second = rank[labeler](pair, rng)
            votes.append(1.0 if first < second else 0.5 if first == second else 0.0)
            clusters.append(pair)
    return votes, clusters
