"""The reward model's report card on held-out rankings, and the gate in front of PPO."""

from collections.abc import Sequence
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
    length_accuracy = float(np.average(by_length, weights=weight))
    length_accuracy = max(length_accuracy, 1 - length_accuracy)
    accuracy, *interval = clustered_interval(right, cluster, weights=weight)
    gate = "passed"
    if interval[0] <= 0.5:
        gate = "failed: not better than chance on held-out comparisons"
    elif accuracy < length_accuracy:
        gate = "failed: not better than choosing by length"
    bins, error = _calibration(predicted, weight)
    slices = {name: _slice(right, weight, [c == name for c in category]) for name in sorted({c for c in category if c})}
    return {
        "accuracy": accuracy,
        "ci95": interval,
        "pairs": len(right),
        "calibration": bins,
        "calibration_error": error,
        "length_accuracy": length_accuracy,
        "length_correlation": _length_correlation(rankings),
        "accuracy_by_category": slices,
        "gate": gate,
    }


def _half(difference: float) -> float:
    return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0


def _slice(right: Sequence[float], weight: Sequence[float], inside: Sequence[bool]) -> dict[str, float]:
    """Accuracy over the pairs of one category."""
    return {"value": float(np.average(np.array(right)[inside], weights=np.array(weight)[inside])), "pairs": sum(inside)}


def _calibration(predicted: Sequence[float], weight: Sequence[float]) -> tuple[list[dict[str, float]], float]:
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
            bins.append({"predicted": expected, "observed": observed, "pairs": int(inside.sum())})
            error += abs(expected - observed) * share[inside].sum() / share.sum()
    return bins, float(error)


def _length_correlation(rankings: Sequence[Ranking]) -> float:
    """Correlation of score and length within prompts."""
    scores = np.concatenate([np.array(r.scores) - np.mean(r.scores) for r in rankings])
    lengths = np.concatenate([np.array(r.lengths) - np.mean(r.lengths) for r in rankings])
    spread = scores.std() * lengths.std()
    return float((scores * lengths).mean() / spread) if spread else 0.0
