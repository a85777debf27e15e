"""Why the chosen answers' log-probability falls under DPO and its family, and whether that is bad in *this* run.

The losses see the difference of two answers alone, and the two share most of their words, so that both may fall (Rafailov
et al. 2023; Pal et al. 2024, 2402.13228). Judged by what the run itself logged, never by the fall alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
WITH_REFERENCE = ("dpo", "ipo", "kto")  # their implicit rewards start at 0
FLAT = 0.02  # of the margin: a smaller change of the chosen answers' reward is none
UNLIKELY = 1.0  # nats a token by which the chosen answers' NLL may rise: e times less likely each
WHY = (
    "The loss asks for the difference of the two answers alone, and they share most of their words: what makes the worse "
    "one less likely takes the better one along, and what both lose goes to answers that are in neither list."
)
KTO_WHY = (
    "Thumbs up and down are pushed apart, and their answers share most of their words: what makes the bad ones less likely "
    "takes the good ones along, and what both lose goes to answers that are in neither list."
)
MEND = (
    "What to do, in this order: stop earlier or lower the learning rate; {beta}{nll}learn from the policy's own answers "
    "(online-dpo)."
)


def explain(rows: Sequence[Row], config: Mapping[str, Any], win: Row | None = None) -> dict[str, Any] | None:
    """What became of the chosen answers in a run's metrics: {"verdict": "rose" | "harmless" | "watch" | "bad", the changes
    from start to end, "why", "here", "mend"}; None where the run logs no pairs, or one step alone.

    config: the stage's options, `stage` among them. win: {"rate", "ci"} over the model that training started from.
    """
    known = [row for row in rows if {"rewards/chosen", "rewards/rejected", "nll_loss"} <= row.keys()]
    if len(known) < 2:
        return None
    stage = str(config.get("stage", ""))
    from_zero = stage in WITH_REFERENCE and config.get("reference") is None
    chosen, rejected = (_change(known, f"rewards/{side}", from_zero) for side in ("chosen", "rejected"))
    nll = _change(known, "nll_loss", False)
    held_out = _held_out(known)
    margin = chosen - rejected
    found: dict[str, Any] = {"chosen": chosen, "rejected": rejected, "nll": nll, "held_out": held_out, "win": win}
    if chosen >= -FLAT * abs(margin):
        here = f"It did not fall here: {_moved(chosen, rejected, config)}."
        return {"verdict": "rose", **found, "why": "", "here": here, "mend": ""}
    verdict, reasons = _judged(chosen, margin, nll, held_out, win)
    here = f"Here {_moved(chosen, rejected, config)}. {reasons}"
    mend = "" if verdict == "harmless" else _mend(stage)
    return {"verdict": verdict, **found, "why": KTO_WHY if stage == "kto" else WHY, "here": here, "mend": mend}


def _ends(rows: Sequence[Row], name: str) -> tuple[float, float]:
    """Means over the first and the last tenth of the steps."""
    values = [float(row[name]) for row in rows if name in row]
    part = max(1, len(values) // 10)
    return sum(values[:part]) / part, sum(values[-part:]) / part


def _change(rows: Sequence[Row], name: str, from_zero: bool) -> float:
    first, last = _ends(rows, name)
    return last - (0.0 if from_zero else first)


def _held_out(rows: Sequence[Row]) -> dict[str, float] | None:
    """The held-out accuracy's best and last value, and the upper end of the last one's interval."""
    name = "eval/rewards/accuracies"
    looks = [row for row in rows if name in row]
    if not looks:
        return None
    last = looks[-1]
    return {"best": max(row[name] for row in looks), "last": last[name], "high": last.get(f"{name}_high", last[name])}


def _judged(
    chosen: float, margin: float, nll: float, held_out: Mapping[str, float] | None, win: Row | None
) -> tuple[str, str]:
    """The verdict, and what speaks for it in words: a win rate decides, then held-out accuracy, then how far it went."""
    if win is not None and win.get("ci"):
        low, high = win["ci"]
        if high < 0.5:
            return (
                "bad",
                f"That is bad: its answers win {win['rate']:.0%} over those of the model that it started from.",
            )
        if low > 0.5:
            return "harmless", f"That did no harm: its answers win {win['rate']:.0%} over those of the start."
    if held_out and held_out["high"] < held_out["best"]:
        best, last = held_out["best"], held_out["last"]
        return "bad", f"That is bad: it goes on while held-out accuracy has fallen, {best:.0%} → {last:.0%}."
    if nll > UNLIKELY:
        said = f"each of their tokens has become {_times(nll)} less likely"
        return "bad", f"That is bad: {said}, so that the model hardly gives such answers any more. Read its samples."
    accuracy = f"held-out accuracy is {held_out['last']:.0%}" if held_out else "no held-out accuracy was measured"
    if margin <= 0:
        return "watch", f"The worse answers did not fall further, so nothing was gained by it ({accuracy})."
    if -chosen > margin:
        far = f"it fell {-chosen / margin:.1f} times the margin that was gained, and {accuracy}"
        return "watch", f"Look closely: {far}. Read samples and compare win rates."
    return "harmless", f"By itself that is harmless: it fell by less than the margin gained, and {accuracy}."


def _times(nll: float) -> str:
    return f"{2.718281828**nll:.0f} times"


def _moved(chosen: float, rejected: float, config: Mapping[str, Any]) -> str:
    """How both sides moved: in nats where the implicit reward is a multiple of them, else as rewards."""
    scale = config.get("beta", config.get("tau", config.get("odds_weight")))
    per_token = config.get("logprob") == "mean" or config.get("stage") in ("orpo", "simpo")
    if not isinstance(scale, int | float) or not scale:
        return f"the better answers' implicit reward moved by {chosen:+.2f}, the worse ones' by {rejected:+.2f}"
    unit = "nats a token" if per_token else "nats an answer"
    return f"the better answers' log-probability moved by {chosen / scale:+.2f}, the worse ones' by {rejected / scale:+.2f} {unit}"


def _mend(stage: str) -> str:
    beta = {"dpo": "raise beta; ", "kto": "raise beta; ", "ipo": "raise tau; "}.get(stage, "")
    nll = "add nll_coef 0.1 to 1; " if stage in ("dpo", "ipo", "simpo") else ""
    return MEND.format(beta=beta, nll=nll)
