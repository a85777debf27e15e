"""How often a model would win if its answers were as long as the baseline's (AlpacaEval 2's logistic model)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from tutelage.errors import UserError
from tutelage.evaluation.intervals import fieller_interval

Array = NDArray[np.float64]
STRENGTHS = np.logspace(-4, 4, 10)  # inverse strengths of the penalty among which cross-validation chooses
FOLDS = 5
FEWEST = 20  # verdicts under which length is not controlled for
LONGEST_STEP = 4.0  # of a coefficient in a Newton step
GAMED_WEIGHT = 0.2 / 2  # of an annotation of a gamed baseline; AlpacaEval halves its 0.2, since it has two of them


@dataclass(frozen=True)
class Gamed:
    """Annotations of answers that differ from the baseline's in length and not in quality (AlpacaEval: GPT-4 told to be
    concise, and to be verbose), so that theta is 0 for them and the length term is seen alone. [n] each.
    """

    preferences: ArrayLike  # 0 to 1, the gamed answer over the baseline's
    std_delta_len: ArrayLike  # baseline's less gamed length, over its standard deviation
    difficulty: ArrayLike  # of the prompt


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
    gamed: Gamed | None = None,
    *,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 200,
) -> dict[str, Any]:
    """The mean of `preference_probability` with the length term at zero, fitted to the preferences.

    preferences: [n] probability from 0 to 1 that the model's answer is preferred to the baseline's. lengths,
    baseline_lengths: [n] characters. difficulty: [n] of each prompt, where it is known from other models. gamed: rows
    that tell the length term by itself; they have no theta and the weight `GAMED_WEIGHT`. With difficulty and gamed
    this is AlpacaEval 2's length_controlled_v1; without them it is the same model with those terms left out. The fit
    is L1-penalized logistic regression on soft labels, without an intercept (theta is a penalized feature, too), its
    strength chosen by 5-fold cross-validation of the weighted log loss over all rows, the gamed first. clusters: the
    prompt of each row, where several rows share one. Returns {"win_rate", "ci95", "explained_ci95", "raw", "theta",
    "phi", "psi"}; ci95 is a percentile bootstrap over prompts, explained_ci95 Fieller's interval of
    (raw - win_rate) / (raw - 1/2) with the covariance that the same resamples give, None where raw may be 1/2.
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
    own = np.stack(columns, axis=1)
    extra, extra_y = _gamed_rows(gamed, own.shape[1])
    if not all(((v >= 0) & (v <= 1)).all() for v in (y, extra_y)) or not np.isfinite(np.vstack([extra, own])).all():
        raise UserError("a preference is not between 0 and 1", where="length_controlled_win_rate", mend="1 is a win")

    def all_rows(rows: Any) -> tuple[Array, Array, Array]:
        weight = np.concatenate([np.full(len(extra), GAMED_WEIGHT), np.ones(len(own[rows]))])
        return np.vstack([extra, own[rows]]), np.concatenate([extra_y, y[rows]]), weight

    x_all, y_all, weight = all_rows(slice(None))
    strength = _choose_strength(x_all, y_all, weight)
    weights = fit_soft_logistic(x_all, y_all, strength, sample_weight=weight)
    draws, raw = [], []
    for rows in resampled(y.size, clusters, resamples):
        some_x, some_y, some_weight = all_rows(rows)
        draws.append(_without_length(own[rows], fit_soft_logistic(some_x, some_y, strength, weights, some_weight)))
        raw.append(float(y[rows].mean()))
    rate = _without_length(own, weights)
    return {
        "win_rate": rate,
        "ci95": [float(q) for q in np.quantile(draws, [0.025, 0.975])] if draws else None,
        "explained_ci95": _explained_interval(float(y.mean()), rate, np.array(raw), np.array(draws)),
        "raw": float(y.mean()),
        "theta": float(weights[0]),
        "phi": float(weights[1]),
        "psi": float(weights[2]) if len(weights) > 2 else 0.0,
    }


def resampled(n: int, clusters: Sequence[Hashable] | None, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers of bootstrap draws of whole clusters, of single rows where there are none."""
    if clusters is not None and len(clusters) != n:
        raise UserError(f"{n} rows but {len(clusters)} cluster labels", where="resampled", mend="give each row a label")
    members: dict[Hashable, list[int]] = {}
    for row, label in enumerate(range(n) if clusters is None else clusters):
        members.setdefault(label, []).append(row)
    groups = [np.array(rows) for rows in members.values()]
    rng = np.random.default_rng(0)
    for _ in range(resamples):
        yield np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])


def _explained_interval(raw: float, rate: float, raw_draws: Array, draws: Array) -> list[float] | None:
    if len(draws) < 2:
        return None
    found = fieller_interval(raw - rate, raw - 0.5, np.cov(raw_draws - draws, raw_draws))
    return None if found is None else [*found]


def _gamed_rows(gamed: Gamed | None, width: int) -> tuple[Array, Array]:
    """Features [m, width] with theta's at 0 (and the difficulty where the model's rows have one), and preferences [m]."""
    if gamed is None:
        return np.zeros((0, width)), np.zeros(0)
    y, delta, difficulty = (
        np.asarray(v, dtype=np.float64).reshape(-1) for v in (gamed.preferences, gamed.std_delta_len, gamed.difficulty)
    )
    return np.stack([np.zeros_like(y), np.tanh(delta), difficulty], axis=1)[:, :width], y


def fit_soft_logistic(
    x: Array, y: Array, strength: float, start: Array | None = None, sample_weight: Array | None = None
) -> Array:
    """argmin over w of ||w||_1 + strength * sum_i s_i [log(1 + exp(x_i w)) - y_i x_i w].

    x: [n, k]; y: [n] from 0 to 1; s: sample_weight [n], ones when not given. Proximal Newton steps, as liblinear's
    newGLMNET takes them (Yuan, Ho & Lin 2012): a quadratic model of the loss with the penalty as it is, and a line
    search on the whole.
    """
    s = np.ones(len(y)) if sample_weight is None else sample_weight

    def objective(w: Array) -> float:
        logits = x @ w
        return float(np.abs(w).sum() + strength * (s @ np.logaddexp(0, logits) - (s * y) @ logits))

    w = np.zeros(x.shape[1]) if start is None else start.copy()
    value = objective(w)
    for _ in range(200):
        p = special.expit(x @ w)
        slope = strength * (x.T @ (s * (p - y)))
        bend = strength * (x.T @ ((s * p * (1 - p))[:, None] * x)) + 1e-9 * np.eye(len(w))
        step = _proximal_step(w, slope, bend)
        step *= min(1.0, LONGEST_STEP / max(float(np.abs(step).max()), 1e-30))  # where p is 0 or 1 the model is flat
        size = 1.0
        while (there := objective(w + size * step)) > value and size > 1e-4:
            size /= 2
        if there > value:  # rounding
            break
        gain, w, value = value - there, w + size * step, there
        if np.abs(step).max() < 1e-9 or gain <= 1e-14 * value:
            break
    return w


def _proximal_step(w: Array, slope: Array, bend: Array) -> Array:
    """argmin over d of slope d + d' bend d / 2 + ||w + d||_1: a few rounds coordinate by coordinate find which of
    w + d are zero and the others' signs; with these known the rest is linear, and checked.
    """
    d, g, h, now = [0.0] * len(w), slope.tolist(), bend.tolist(), w.tolist()
    for _ in range(200):
        largest = 0.0
        for _ in range(4):
            largest = 0.0
            for j, at in enumerate(now):
                # The minimum along one coordinate: where it stands less the pull, softened by the threshold.
                aim = h[j][j] * (at + d[j]) - g[j] - sum(a * b for a, b in zip(h[j], d, strict=True))
                new = (max(abs(aim) - 1.0, 0.0) * (1.0 if aim > 0 else -1.0)) / h[j][j] - at
                largest, d[j] = max(largest, abs(new - d[j])), new
        sign = np.sign(w + np.array(d))
        free, exact = sign != 0, -w
        exact[free] = np.linalg.solve(bend[np.ix_(free, free)], -(slope + sign + bend[:, ~free] @ exact[~free])[free])
        left = slope + bend @ exact
        if (np.sign(w + exact)[free] == sign[free]).all() and (np.abs(left[~free]) <= 1 + 1e-9).all():
            return exact
        if largest < 1e-12:
            break
    return np.array(d)


def controlled(
    points: Sequence[float],
    lengths: Sequence[int],
    baseline_lengths: Sequence[int],
    difficulty: Sequence[float] | None = None,
    gamed: Gamed | None = None,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, Any] | None:
    """The rate at equal lengths; None where too few verdicts, or lengths that always favor one side, cannot tell.

    With gamed baselines the length term is known from them, whoever writes longer.
    """
    if len(points) < FEWEST or (gamed is None and not separable(lengths, baseline_lengths)):
        return None
    return length_controlled_win_rate(points, lengths, baseline_lengths, difficulty, gamed, clusters=clusters)


def _choose_strength(x: Array, y: Array, weight: Array) -> float:
    """The strength with the least log loss on held-out rows; the strongest penalty among equals."""
    fold = np.arange(len(y)) % FOLDS
    losses = np.zeros(len(STRENGTHS))
    for held in range(FOLDS):
        weights, out = None, fold == held
        for i, strength in enumerate(STRENGTHS):
            weights = fit_soft_logistic(x[~out], y[~out], strength, weights, weight[~out])
            logits = x[out] @ weights
            losses[i] += float(np.mean(weight[out] * (np.logaddexp(0, logits) - y[out] * logits)))
    return float(STRENGTHS[int(losses.argmin())])


def _without_length(x: Array, weights: Array) -> float:
    even = x.copy()
    even[:, 1] = 0
    return float(special.expit(even @ weights).mean())
