"""The reward model's report card on held-out rankings, and the gate in front of PPO."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import exp
from typing import Any

import numpy as np

from tutelage.evaluation.intervals import clustered_interval


@dataclass(frozen=True)
class Ranking:
    """One held-out ranking with the model's scores and the answers' lengths in characters.

    weight: of a labeler, or of one order of a soft label, which stands in both; zero takes no part.
    """

    prompt_id: str
    ranks: Sequence[int | None]
    scores: Sequence[float]
    lengths: Sequence[int]
    category: str | None = None
    weight: float = 1.0


def report_card(rankings: Sequence[Ranking]) -> dict[str, Any]:
    """Accuracy with a prompt-clustered interval, by slice, calibration, correlation with length, and the gate.

    The gate is "passed" where accuracy is clearly above chance and not below what length alone reaches.
    """
    right, by_length, predicted, cluster, category, weight = [], [], [], [], [], []
    for ranking in rankings:
        for i, j in combinations(range(len(ranking.ranks)), 2):
            a, b = ranking.ranks[i], ranking.ranks[j]
            if a is None or b is None or a == b or not ranking.weight:
                continue
            better, worse = (i, j) if a < b else (j, i)
            gap = ranking.scores[better] - ranking.scores[worse]
            right.append(_half(gap))
            by_length.append(_half(ranking.lengths[better] - ranking.lengths[worse]))
            predicted.append(1 / (1 + exp(-max(-50.0, min(50.0, gap)))))
            cluster.append(ranking.prompt_id)
            category.append(ranking.category)
            weight.append(ranking.weight)
    if not right:
        return {"accuracy": 0.5, "ci95": [0.0, 1.0], "pairs": 0, "gate": "no held-out pairs"}
    if float(np.average(by_length, weights=weight)) < 0.5:
        by_length = [1 - one for one in by_length]
    length_accuracy = float(np.average(by_length, weights=weight))
    accuracy, interval = float(np.average(right, weights=weight)), share_interval(right, cluster, weight)
    gate = "passed"
    if interval is None or interval[0] <= 0.5:
        gate = "failed: not better than chance on held-out comparisons"
    elif accuracy < length_accuracy:
        gate = "failed: not better than choosing by length"
    bins, error = _calibration(predicted, weight, cluster)
    slices = {
        name: _slice(right, weight, cluster, [c == name for c in category])
        for name in sorted({c for c in category if c})
    }
    return {
        "accuracy": accuracy,
        "ci95": interval,
        "pairs": len(right),
        "calibration": bins,
        "calibration_error": error,
        "length_accuracy": length_accuracy,
        "length_accuracy_ci95": share_interval(by_length, cluster, weight),
        "length_correlation": _length_correlation(rankings),
        "accuracy_by_category": slices,
        "gate": gate,
    }


def _half(difference: float) -> float:
    return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0


def share_interval(
    right: Sequence[float], cluster: Sequence[Hashable], weight: Sequence[float] | None = None
) -> list[float] | None:
    """The prompt-clustered interval of a share, within 0 to 1; None where there are fewer than two prompts."""
    if len(set(cluster)) < 2:
        return None
    _, low, high = clustered_interval(right, cluster, weights=weight)
    return [max(0.0, low), min(1.0, high)]


def _slice(
    right: Sequence[float], weight: Sequence[float], cluster: Sequence[Hashable], inside: Sequence[bool]
) -> dict[str, Any]:
    """Accuracy over the pairs of one category."""
    rows = [(r, w, c) for r, w, c, here in zip(right, weight, cluster, inside, strict=True) if here]
    shares, weights, clusters = zip(*rows, strict=True)
    value = float(np.average(shares, weights=weights))
    return {"value": value, "ci95": share_interval(shares, clusters, weights), "pairs": len(rows)}


def _calibration(
    predicted: Sequence[float], weight: Sequence[float], cluster: Sequence[Hashable]
) -> tuple[list[dict[str, Any]], float]:
    """Confidence against how often the favored answer was the better one; and the expected calibration error."""
    confidence = np.array([max(p, 1 - p) for p in predicted])
    correct = np.array([p > 0.5 for p in predicted], dtype=float)
    share = np.array(weight)
    bins, error = [], 0.0
    edges = np.linspace(0.5, 1.0, 6)
    for low, high in pairwise(edges):
        inside = (confidence >= low) & ((confidence < high) | (high == 1.0))
        if inside.any():
            expected, observed = (float(np.average(x[inside], weights=share[inside])) for x in (confidence, correct))
            some = [prompt for prompt, here in zip(cluster, inside, strict=True) if here]
            ci95 = share_interval(correct[inside].tolist(), some, share[inside].tolist())
            bins.append({"predicted": expected, "observed": observed, "ci95": ci95, "pairs": int(inside.sum())})
            error += abs(expected - observed) * share[inside].sum() / share.sum()
    return bins, float(error)


def _length_correlation(rankings: Sequence[Ranking]) -> float:
    """Correlation of score and length within prompts."""
    scores = np.concatenate([np.array(r.scores) - np.mean(r.scores) for r in rankings])
    lengths = np.concatenate([np.array(r.lengths) - np.mean(r.lengths) for r in rankings])
    spread = scores.std() * lengths.std()
    return float((scores * lengths).mean() / spread) if spread else 0.0
