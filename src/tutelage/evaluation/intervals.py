"""Intervals for proportions and means, with and without clusters."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tutelage.errors import UserError


def _finite(values: ArrayLike, what: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if array.size and not np.isfinite(array).all():
        place = int(np.flatnonzero(~np.isfinite(array))[0])
        raise UserError(
            f"{what} number {place} is not finite", where=what, mend="leave it out, or find out where it came from"
        )
    return array


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion; both ends lie in [0, 1].

    `successes` may be fractional (a tie counts a half). With `n` = 0 nothing is known: (0, 1).
    Raises UserError where `successes` is not between 0 and `n`.
    Source: Wilson (1927), "Probable inference", equation for the roots of the score test.
    """
    if n < 0 or not 0 <= successes <= n:
        raise UserError(
            f"{successes} successes in {n} trials is not possible", where="wilson", mend="pass 0 <= successes <= n"
        )
    if n == 0:
        return 0.0, 1.0
    z = float(stats.norm.ppf(0.5 + level / 2))
    p = successes / n
    scale = 1 + z * z / n
    center = (p + z * z / (2 * n)) / scale
    half = z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / scale
    # Rounding may leave 1e-17 below 0 at p = 0, and the exact ends there are known.
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == n else min(1.0, center + half)
    return float(low), float(high)


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of independent values with Student's t interval: (mean, low, high).

    One value has no interval: both ends are NaN. No values: all three are NaN.
    """
    array = _finite(values, "values")
    if array.size == 0:
        return float("nan"), float("nan"), float("nan")
    mean = float(array.mean())
    if array.size == 1:
        return mean, float("nan"), float("nan")
    error = float(array.std(ddof=1) / np.sqrt(array.size))
    half = float(stats.t.ppf(0.5 + level / 2, array.size - 1)) * error
    return mean, mean - half, mean + half


def clustered_interval(
    values: ArrayLike,
    clusters: Sequence[Hashable] | NDArray[Any],
    level: float = 0.95,
    weights: ArrayLike | None = None,
) -> tuple[float, float, float]:
    """Mean of values that share clusters (answers to one prompt, votes of one labeler): (mean, low, high).

    The sandwich variance of a mean, with the CR1 correction G / (G - 1), and Student's t with G - 1
    degrees of freedom, G the number of clusters. A single cluster has no interval (NaN ends).
    With one value in each cluster it equals `mean_interval`. With weights, of which not all may be zero, it is the
    interval of the weighted mean.
    Source: Cameron & Miller (2015), "A practitioner's guide to cluster-robust inference", equations 11-12.
    """
    array = _finite(values, "values")
    labels = list(clusters)
    if len(labels) != array.size:
        raise UserError(
            f"{array.size} values but {len(labels)} cluster labels",
            where="clustered_interval",
            mend="give one label to each value",
        )
    share = np.ones(array.size) if weights is None else _finite(weights, "weights")
    if share.sum() == 0:
        return float("nan"), float("nan"), float("nan")
    number: dict[Hashable, int] = {}
    index = np.fromiter((number.setdefault(label, len(number)) for label in labels), dtype=np.int64, count=array.size)
    mean = float((share * array).sum() / share.sum())
    groups = len(number)
    if groups < 2:
        return mean, float("nan"), float("nan")
    sums = np.bincount(index, weights=share * (array - mean), minlength=groups)
    error = float(np.sqrt(groups / (groups - 1) * np.square(sums).sum()) / share.sum())
    half = float(stats.t.ppf(0.5 + level / 2, groups - 1)) * error
    return mean, mean - half, mean + half


def ratio_interval(sums: ArrayLike, sizes: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """(sum of sums) / (sum of sizes) over independent units (a loss a token over documents): (ratio, low, high).

    The linearized residuals (s_i - r n_i) / mean(n) have the variance of the ratio, with Student's t. With equal sizes
    it is `mean_interval` of s_i / n_i. Differences of sums give a paired interval: the same documents under two models.
    Source: Cochran (1977), "Sampling techniques", section 6.3.
    """
    s, n = _finite(sums, "sums"), _finite(sizes, "sizes")
    if s.size != n.size or n.sum() <= 0:
        raise UserError(f"{s.size} sums over {n.size} sizes", where="ratio_interval", mend="give one size to each sum")
    ratio = float(s.sum() / n.sum())
    _, low, high = mean_interval((s - ratio * n) / n.mean(), level)
    return ratio, ratio + low, ratio + high


def fieller_interval(
    numerator: float, denominator: float, covariance: ArrayLike, level: float = 0.95
) -> tuple[float, float] | None:
    """The ratios rho for which numerator - rho * denominator may be 0: (low, high).

    covariance: [2, 2] of the two estimates, jointly normal. None where the denominator may itself be 0, so that no
    ratio can be excluded on one side at least. Unlike percentiles of resampled ratios it does not break where a
    resampled denominator changes its sign.
    Source: Fieller (1954), "Some problems in interval estimation"; the roots of its quadratic.
    """
    v = _finite(np.asarray(covariance), "covariance").reshape(2, 2)
    z2 = float(stats.norm.ppf(0.5 + level / 2)) ** 2
    # a rho^2 - 2 b rho + c <= 0 is an interval where a > 0.
    a = denominator**2 - z2 * v[1, 1]
    b = numerator * denominator - z2 * v[0, 1]
    c = numerator**2 - z2 * v[0, 0]
    if a <= 0:
        return None
    half = float(np.sqrt(max(0.0, b * b - a * c)))
    return float((b - half) / a), float((b + half) / a)
