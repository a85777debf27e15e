"""Shares of pairs with their 95 % intervals, where the pairs of one item are not independent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Z = 1.959964  # the normal quantile of a two-sided 95 % interval
EXACT = 2000  # up to so many trials the distribution of their sum is computed, beyond them approximated
Interval = tuple[float, float]


@dataclass(frozen=True)
class Share:
    """value of n pairs (or items) on so many items; ci95 is None where there are too few to resample."""

    value: float
    n: int
    items: int
    ci95: Interval | None

    def to_json(self, unit: str = "pairs") -> dict[str, Any]:
        ci95 = None if self.ci95 is None else [round(end, 4) for end in self.ci95]
        return {"share": round(self.value, 4), "ci95": ci95, unit: self.n, "items": self.items}


def wilson(share: float, n: float) -> Interval:
    """Wilson's (1927) score interval of a share of n independent trials; n need not be whole."""
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def clustered(hits: Sequence[float], totals: Sequence[float]) -> Share | None:
    """The share Σ hits / Σ totals over items [I], with Wilson's interval at the effective number of trials.

    That number is p(1 - p) / v with v the ratio estimator's variance over items (Cochran 1977, section 6), at most
    the pairs; where all items say the same, which gives v = 0, it is the number of items.
    """
    a, m = np.asarray(hits, dtype=float), np.asarray(totals, dtype=float)
    a, m = a[m > 0], m[m > 0]
    items, n = len(m), float(m.sum())
    if not items:
        return None
    share = float(a.sum() / n)
    effective = float(items)
    if items > 1 and 0 < share < 1:
        variance = items / (items - 1) * float(((a - share * m) ** 2).sum()) / n**2
        effective = min(n, share * (1 - share) / variance) if variance > 0 else n
    return Share(share, round(n), items, wilson(share, max(1.0, effective)))


def resampled(hits: Sequence[float], totals: Sequence[float], *, samples: int = 200, seed: int = 0) -> Share | None:
    """The same share with the percentile interval of resampled items (bootstrap); one item alone has none."""
    a, m = np.asarray(hits, dtype=float), np.asarray(totals, dtype=float)
    a, m = a[m > 0], m[m > 0]
    items = len(m)
    if not items:
        return None
    ci95 = None
    if items > 1:
        rng = np.random.default_rng(seed)
        drawn = [
            a[chosen].sum() / m[chosen].sum() for chosen in (rng.integers(0, items, items) for _ in range(samples))
        ]
        low, high = np.percentile(drawn, [2.5, 97.5])
        ci95 = float(low), float(high)
    return Share(float(a.sum() / m.sum()), round(m.sum()), items, ci95)


def p_of_count(count: int, chances: Sequence[float]) -> float:
    """Two-sided p of so many successes in independent trials of these chances.

    The sum of the probabilities of all counts no more likely than this one (as the exact binomial test has it); beyond
    2,000 trials by the normal approximation with continuity correction.
    """
    if len(chances) > EXACT:
        mean = sum(chances)
        deviation = math.sqrt(sum(chance * (1 - chance) for chance in chances))
        return math.erfc(max(0.0, abs(count - mean) - 0.5) / deviation / math.sqrt(2))
    of_sum = np.ones(1)
    for chance in chances:
        longer = np.zeros(len(of_sum) + 1)
        longer[:-1] = of_sum * (1 - chance)
        longer[1:] += of_sum * chance
        of_sum = longer
    return float(min(1.0, of_sum[of_sum <= of_sum[count] * (1 + 1e-7)].sum()))


def percent_words(share: Share, unit: str = "pairs", *, least: int = 0) -> str:
    """ "71 % of 340 pairs (64-77)", with "too few to tell" under `least` items."""
    said = f"{100 * share.value:.0f} % of {share.n:,} {unit}"
    if share.ci95:
        said += f" ({100 * share.ci95[0]:.0f}–{100 * share.ci95[1]:.0f})"
    return said + (", too few to tell" if share.items < least else "")
