"""How far each labeler can be trusted, from their answers alone: Dawid and Skene's model, and weights made of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DawidSkene:
    """posterior [I, C] over the true class; confusion [J, C, C]: P(label l | true c) of labeler j; prior [C]."""

    posterior: np.ndarray
    confusion: np.ndarray
    prior: np.ndarray
    iterations: int


def dawid_skene(
    counts: np.ndarray, *, smoothing: float = 0.0, iterations: int = 200, tolerance: float = 1e-7
) -> DawidSkene:
    """Dawid and Skene (1979), equations 2.3 to 2.5, by EM from the shares of votes.

    counts [I, J, C]: how often labeler j gave item i class c (0 or 1, mostly).
    E: T_ic ∝ p_c Π_j Π_l π_jcl^{n_ijl}.  M: p_c = mean_i T_ic, π_jcl ∝ Σ_i T_ic n_ijl + smoothing.
    """
    if counts.ndim != 3 or (counts < 0).any():
        raise ValueError(f"counts must be [items, labelers, classes], not {counts.shape}")
    votes = counts.sum(axis=1)
    posterior = votes / votes.sum(axis=1, keepdims=True)
    confusion, prior = _maximize(counts, posterior, smoothing)
    done = 0
    for done in range(1, iterations + 1):  # noqa: B007
        updated = _expect(counts, confusion, prior)
        change = np.abs(updated - posterior).max()
        posterior = updated
        confusion, prior = _maximize(counts, posterior, smoothing)
        if change < tolerance:
            break
    return DawidSkene(posterior, confusion, prior, done)


def _maximize(counts: np.ndarray, posterior: np.ndarray, smoothing: float) -> tuple[np.ndarray, np.ndarray]:
    items, labelers, classes = counts.shape
    weighted = (posterior.T @ counts.reshape(items, -1)).reshape(classes, labelers, classes).transpose(
        1, 0, 2
    ) + smoothing
    total = weighted.sum(axis=2, keepdims=True)
    even = np.full_like(weighted, 1 / counts.shape[2])  # a class that a labeler never met
    return np.divide(weighted, total, out=even, where=total > 0), posterior.mean(axis=0)


def _expect(counts: np.ndarray, confusion: np.ndarray, prior: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):  # "never" stays finite, so that nobody's absent label times it is 0
        log_confusion, log_prior = np.maximum(np.log(confusion), -1e300), np.maximum(np.log(prior), -1e300)
    items, labelers, classes = counts.shape
    by_label = log_confusion.transpose(0, 2, 1).reshape(labelers * classes, classes)
    log_posterior = log_prior + counts.reshape(items, -1) @ by_label
    log_posterior -= log_posterior.max(axis=1, keepdims=True)
    posterior = np.exp(log_posterior)
    return posterior / posterior.sum(axis=1, keepdims=True)


def labeler_accuracies(judgments: Sequence[tuple[str, object, bool]]) -> dict[str, float]:
    """Estimated share of pairs that each labeler orders as the truth does.

    judgments: (labeler, pair, whether the first of the pair is better). Each pair enters in both orientations, so
    that the model cannot prefer one side; a pair that one labeler alone judged says nothing and is left out.
    One answer added to each cell keeps a labeler of few answers near 1/2, and nobody at 0 or 1.
    """
    labelers = sorted({labeler for labeler, _, _ in judgments})
    column = {labeler: j for j, labeler in enumerate(labelers)}
    rows: dict[object, dict[int, bool]] = {}
    for labeler, pair, first in judgments:
        rows.setdefault(pair, {})[column[labeler]] = first
    shared = [row for row in rows.values() if len(row) > 1]
    if not shared:
        return {}
    counts = np.zeros((2 * len(shared), len(labelers), 2))
    for i, row in enumerate(shared):
        for j, first in row.items():
            counts[2 * i, j, int(first)] = counts[2 * i + 1, j, int(not first)] = 1
    model = dawid_skene(counts, smoothing=1.0)
    judged = counts.sum(axis=(0, 2)) > 0
    accuracy = model.confusion.diagonal(axis1=1, axis2=2).mean(axis=1)
    return {labeler: float(accuracy[j]) for labeler, j in column.items() if judged[j]}


def labeler_weights(accuracies: dict[str, float], answers: dict[str, int]) -> dict[str, float]:
    """Weight of each labeler in the reward loss: w ∝ max(2a − 1, 0), scaled so that the mean over answers is 1.

    A label flipped with probability 1 − a keeps 2a − 1 of its gradient's expected size at the same variance; weights
    in that proportion give the least variance of the sum. Who shares no pair with others gets the weight 1.
    """
    raw = {labeler: max(2 * accuracy - 1, 0.0) for labeler, accuracy in accuracies.items()}
    total = sum(answers[labeler] for labeler in raw)
    mean = sum(raw[labeler] * answers[labeler] for labeler in raw) / total if total else 0.0
    return {labeler: value / mean for labeler, value in raw.items()} if mean > 0 else dict.fromkeys(raw, 1.0)


def soft_label(votes: Sequence[tuple[float, bool]]) -> float:
    """P(the first of a pair is better) by labelers' accuracies a and their votes, with even odds before them.

    Dawid and Skene's posterior with one symmetric accuracy each: log-odds = Σ ±log(a / (1 − a)).
    """
    clipped = [(min(max(accuracy, 0.01), 0.99), first) for accuracy, first in votes]
    logit = sum(float(np.log(a / (1 - a))) * (1 if first else -1) for a, first in clipped)
    return float(1 / (1 + np.exp(-logit)))
