"""How often a model would win if its answers were as long as the baseline's (AlpacaEval 2's logistic model)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from tutelage.errors import UserError

Array = NDArray[np.float64]
STRENGTHS = np.logspace(-4, 4, 10)  # inverse strengths of the penalty among which cross-validation chooses
FOLDS = 5
FEWEST = 20  # verdicts under which length is not controlled for


def length_feature(lengths: ArrayLike, baseline_lengths: ArrayLike) -> Array:
    """tanh(dlen / std(dlen)), dlen = baseline's minus model's length in characters; std over the set (ddof 1)."""
    difference = np.asarray(baseline_lengths, dtype=np.float64) - np.asarray(lengths, dtype=np.float64)
    spread = float(difference.std(ddof=1)) if difference.size > 1 else 0.0
    return np.tanh(difference / spread) if spread > 0 else np.zeros_like(difference)


def separable(lengths: ArrayLike, baseline_lengths: ArrayLike) -> bool:
    """Whether length can be told from quality: each side has the longer answer on 5% of the prompts or more.

    Where one side's answers are always longer, the length term is a constant and takes theta's place.
    """
    difference = np.asarray(baseline_lengths, dtype=np.float64) - np.asarray(lengths, dtype=np.float64)
    sides = float((difference > 0).sum()), float((difference < 0).sum())
    return difference.size > 0 and min(sides) >= 0.05 * difference.size


def preference_probability(
    theta: float, phi: float, feature: ArrayLike, psi: float = 0.0, difficulty: ArrayLike = 0.0
) -> Array:
    """P(model preferred) = sigmoid(theta + phi * tanh(dlen / std(dlen)) + psi * difficulty(x)).

    Dubois et al. 2024 (arXiv 2404.04475), equation 2; feature is the tanh, `length_feature`.
    """
    return special.expit(theta + phi * np.asarray(feature) + psi * np.asarray(difficulty))


def length_controlled_win_rate(
    preferences: ArrayLike,
    lengths: ArrayLike,
    baseline_lengths: ArrayLike,
    difficulty: ArrayLike | None = None,
    *,
    resamples: int = 200,
) -> dict[str, Any]:
    """The mean of `preference_probability` with the length term at zero, fitted to the preferences.

    preferences: [n] probability from 0 to 1 that the model's answer is preferred to the baseline's. lengths,
    baseline_lengths: [n] characters. difficulty: [n] of each prompt, where it is known from other models. The fit is
    L1-penalized logistic regression on soft labels, without an intercept (theta is a penalized feature, too), its
    strength chosen by 5-fold cross-validation of the log loss. AlpacaEval also mixes in, at weight 0.2, annotations
    of two gamed baselines of its own prompts; those exist for its prompts only and are left out here.
    Returns {"win_rate", "ci95", "raw", "theta", "phi", "psi"}; the interval is a percentile bootstrap over prompts.
    """
    y = np.asarray(preferences, dtype=np.float64).reshape(-1)
    feature = length_feature(lengths, baseline_lengths).reshape(-1)
    columns = [np.ones_like(y), feature] + ([] if difficulty is None else [np.asarray(difficulty, dtype=np.float64)])
    if len({column.size for column in columns}) > 1 or y.size < FOLDS:
        raise UserError(
            f"{y.size} preferences with {feature.size} lengths",
            where="length_controlled_win_rate",
            mend=f"give one of each for every prompt, at least {FOLDS}",
        )
    if not ((y >= 0) & (y <= 1)).all() or not all(np.isfinite(column).all() for column in columns):
        raise UserError("a preference is not between 0 and 1", where="length_controlled_win_rate", mend="1 is a win")
    x = np.stack(columns, axis=1)
    strength = _choose_strength(x, y)
    weights = fit_soft_logistic(x, y, strength)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(resamples):
        rows = rng.integers(0, y.size, y.size)
        draws.append(_without_length(x[rows], fit_soft_logistic(x[rows], y[rows], strength, weights)))
    return {
        "win_rate": _without_length(x, weights),
        "ci95": [float(q) for q in np.quantile(draws, [0.025, 0.975])] if draws else None,
        "raw": float(y.mean()),
        "theta": float(weights[0]),
        "phi": float(weights[1]),
        "psi": float(weights[2]) if len(weights) > 2 else 0.0,
    }


def fit_soft_logistic(x: Array, y: Array, strength: float, start: Array | None = None) -> Array:
    """argmin over w of ||w||_1 + strength * sum_i [log(1 + exp(x_i w)) - y_i x_i w]: x [n, k], y [n] from 0 to 1.

    w = p - q with p, q >= 0, so that the penalty is smooth.
    """
    k = x.shape[1]

    def objective(parts: Array) -> tuple[float, Array]:
        logits = x @ (parts[:k] - parts[k:])
        loss = float(np.logaddexp(0, logits).sum() - y @ logits)
        slope = strength * (x.T @ (special.expit(logits) - y))
        return float(parts.sum()) + strength * loss, np.concatenate([1 + slope, 1 - slope])

    begin = np.zeros(k) if start is None else start
    first = np.concatenate([np.maximum(begin, 0), np.maximum(-begin, 0)])
    tight = {"ftol": 1e-12, "gtol": 1e-8 * max(1.0, strength)}
    found = optimize.minimize(
        objective, first, jac=True, method="L-BFGS-B", bounds=[(0, None)] * (2 * k), options=tight
    )
    return found.x[:k] - found.x[k:]


def controlled(
    points: Sequence[float], lengths: Sequence[int], baseline_lengths: Sequence[int]
) -> dict[str, Any] | None:
    """The rate at equal lengths; None where too few verdicts, or lengths that always favor one side, cannot tell."""
    if len(points) < FEWEST or not separable(lengths, baseline_lengths):
        return None
    return length_controlled_win_rate(points, lengths, baseline_lengths)


def _choose_strength(x: Array, y: Array) -> float:
    """The strength with the least log loss on held-out prompts; the strongest penalty among equals."""
    fold = np.arange(len(y)) % FOLDS
    losses = np.zeros(len(STRENGTHS))
    for held in range(FOLDS):
        weights = None
        for i, strength in enumerate(STRENGTHS):
            weights = fit_soft_logistic(x[fold != held], y[fold != held], strength, weights)
            logits = x[fold == held] @ weights
            losses[i] += float(np.mean(np.logaddexp(0, logits) - y[fold == held] * logits))
    return float(STRENGTHS[int(losses.argmin())])


def _without_length(x: Array, weights: Array) -> float:
    even = x.copy()
    even[:, 1] = 0
    return float(special.expit(even @ weights).mean())
