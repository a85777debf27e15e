"""One model against another by a judge's verdicts: the rate, what could not be judged, and what n prompts can show."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from scipy import optimize, stats

from tutelage.errors import UserError
from tutelage.evaluation.intervals import wilson
from tutelage.evaluation.win_rate import win_rate_from_votes


def compare_by_verdicts(
    points: Sequence[float | None],
    prompts: Sequence[Hashable],
    *,
    flipped: Sequence[bool],
    problems: Sequence[str | None],
    asked: int,
) -> dict[str, Any]:
    """Win rate from verdicts (1, 0.5, 0, or None for none), each with its prompt's id, flip and problem.

    Several verdicts on one prompt make a cluster. `asked`: prompts there were; those without both answers have no
    verdict and count as missing. Verdicts that are None stay out of the rate and are counted; `bounds` is the rate
    if all of them had gone against the model, and all for it.
    """
    kept = [i for i, p in enumerate(points) if p is not None]
    counts = {name: sum(p == name for p in problems) for name in ("unparsable", "failed")}
    missing = asked - len(set(prompts))
    turned = sum(flipped[i] for i in kept)
    about = {
        "judged": len(kept),
        **counts,
        "missing": missing,
        "flip_rate": turned / len(kept) if kept else None,
        "flip_ci95": list(wilson(turned, len(kept))) if kept else None,
    }
    if not kept:
        return {"win_rate": None, "ci95": None, "prompts": 0, "ties": 0, **about, "bounds": None, "detectable": None}
    ids = [prompts[i] for i in kept]
    votes = [float(points[i]) for i in kept]  # type: ignore[arg-type]
    summary = win_rate_from_votes(votes, ids if len(set(ids)) < len(ids) else None)
    lost = sum(counts.values())
    total = len(kept) + lost
    return {
        **summary,
        **about,
        "bounds": [sum(votes) / total, (sum(votes) + lost) / total],
        "detectable": detectable_difference(summary["prompts"], summary["ties"] / len(kept)),
    }


def detectable_difference(n: int, ties: float = 0.0, power: float = 0.8, level: float = 0.95) -> float:
    """How far from one half a win rate must be for n prompts to show it, two-sided, with the given power.

    Solves n d^2 = (z_{level} s_0 + z_{power} s_d)^2, with s_0^2 = (1 - ties) / 4 the variance of a verdict where the
    models are equal and s_d^2 = s_0^2 - d^2 where they are d apart (the two-sided test of one proportion; Fleiss, Levin
    & Paik 2003, section 2.4; ties count a half). 0.05 needs 783 prompts. At most 0.5, which n = 8 or fewer cannot show.
    """
    if n < 0 or not 0 <= ties <= 1:
        raise UserError(
            f"{n} prompts with a share {ties} of ties", where="detectable_difference", mend="n >= 0, 0 to 1"
        )
    variance = (1 - ties) / 4
    if n == 0 or variance == 0:
        return 0.5
    z_level, z_power = float(stats.norm.ppf(0.5 + level / 2)), float(stats.norm.ppf(power))

    def excess(d: float) -> float:
        return n**0.5 * d - z_level * variance**0.5 - z_power * max(variance - d * d, 0.0) ** 0.5

    return float(optimize.brentq(excess, 0.0, 0.5)) if excess(0.5) > 0 else 0.5
