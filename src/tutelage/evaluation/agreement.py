"""How far two raters agree beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import UserError


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """(p_o - p_e) / (1 - p_e): observed agreement over that of raters who keep their own shares and ignore the item.

    Cohen (1960), "A coefficient of agreement for nominal scales". NaN where both use one and the same label only.
    """
    if len(first) != len(second) or not first:
        raise UserError(f"{len(first)} labels against {len(second)}", where="cohen_kappa", mend="label the same items")
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    ours, theirs = Counter(first), Counter(second)
    chance = sum(ours[label] * theirs[label] for label in ours) / n**2
    return (observed - chance) / (1 - chance) if chance < 1 else float("nan")


def kappa_interval(
    first: Sequence[Hashable], second: Sequence[Hashable], clusters: Sequence[Hashable], resamples: int = 2000
) -> tuple[float, float, float]:
    """Cohen's kappa with a 95 % percentile interval over resampled clusters (prompts): (kappa, low, high).

    Resamples in which both raters use one and the same label have no kappa and are left out; NaN ends where all are.
    """
    kappa = cohen_kappa(first, second)
    labels = {label: i for i, label in enumerate(dict.fromkeys((*first, *second)))}
    places = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    table = np.zeros((len(places), len(labels), len(labels)))
    for a, b, cluster in zip(first, second, clusters, strict=True):
        table[places[cluster], labels[a], labels[b]] += 1
    counts = np.random.default_rng(0).multinomial(len(places), [1 / len(places)] * len(places), size=resamples)
    found = _kappas(np.tensordot(counts, table, axes=1))
    found = found[np.isfinite(found)]
    if len(places) < 2 or not found.size:
        return kappa, float("nan"), float("nan")
    low, high = np.quantile(found, [0.025, 0.975])
    return kappa, float(low), float(high)


def _kappas(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kappa of each table [N, L, L] of counts."""
    shares = tables / tables.sum((1, 2), keepdims=True)
    observed = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(1) * shares.sum(2)).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)


def agreement_row(
    first: Sequence[Hashable], second: Sequence[Hashable], clusters: Sequence[Hashable]
) -> dict[str, Any]:
    """What two judges of the same pairs agree on: kappa with its interval, the raw share, pairs and prompts."""
    kappa, low, high = kappa_interval(first, second, clusters)
    known = bool(np.isfinite(kappa))
    return {
        "kappa": kappa if known else None,
        "ci95": [low, high] if known and np.isfinite([low, high]).all() else None,
        "agreement": sum(a == b for a, b in zip(first, second, strict=True)) / len(first),
        "pairs": len(first),
        "prompts": len(set(clusters)),
    }
