"""How far two raters agree beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

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
