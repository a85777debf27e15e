"""Who judged, and how far it can be believed: ratings, verdicts that were lost or flipped, agreement of people."""

from __future__ import annotations

from typing import Any

from tutelage.report.measured import JUDGES
from tutelage.report.parts import data, ends, figure, interval, look, name, number, panel
from tutelage.report.svg import Dot, dot_panel, percent, short

Report = dict[str, Any]
COUNTS = ("judged", "ties", "flip_rate", "flips_low", "flips_high", "unparsable", "failed", "missing", "unvoted")
HEAD = [
    "policy",
    "baseline",
    "judge",
    *COUNTS,
    "at equal lengths",
    "low",
    "high",
    "explained by length",
    "low",
    "high",
    "rate at worst",
    "at best",
]


def ratings(report: Report) -> str:
    """Bradley-Terry ratings of three models or more, by each judge."""
    panels, rows, clear = [], [], 0
    for judge, table in (report.get("ratings") or {}).items():
        dots = []
        for row in table:
            color, shape, hollow = look(row["model"])
            dots.append(Dot(name(row["model"]), row["rating"], interval(row.get("ci95")), color, shape, hollow))
            even = row.get("length_controlled") or {}
            at_equal = [even.get("rating"), *ends(even)]
            rows.append([judge, row["model"], row["rating"], *ends(row), row.get("games"), *at_equal])
            if even:
                dots.append(Dot("at equal lengths", even["rating"], interval(even.get("ci95")), color, "diamond", True))
        low = min(d.ci[0] if d.ci else d.value for d in dots)
        high = max(d.ci[1] if d.ci else d.value for d in dots)
        chart = dot_panel(dots, "Ratings", limits=(low - 20, high + 20), show=lambda v: f"{v:.0f}")
        panels.append(panel(JUDGES.get(judge, judge), chart, "400 points: ten to one"))
        first, second = ([interval(row.get("ci95")) for row in table] + [None, None])[:2]
        clear += first is not None and second is not None and first[0] > second[1]
    if not panels:
        return ""
    title = f"Ratings on one scale: the first is clear of the second by {clear} of {len(panels)} judges"
    sub = "Bradley–Terry with ties (Davidson), in Elo points around 1000; 95 % intervals over resampled prompts."
    if any(row[6] is not None for row in rows):
        sub += " Hollow: if all answers to a prompt were of one length."
    says = (
        "The order holds by every judge: choose the first."
        if clear == len(panels)
        else "Where the intervals of two models overlap, the order is not settled: ask more prompts before you rank them."
    )
    below = data(
        "ratings", ["judge", "model", "rating", "low", "high", "games", "at equal lengths", "low", "high"], rows
    )
    return figure(title, sub, panels, below, says)


def verdicts(report: Report) -> str:
    """What became of the verdicts: flips, unparsable ones, and the rate at equal lengths."""
    rows = [r for r in report.get("win_rates") or [] if r.get("length_controlled") or "flip_rate" in r]
    if not rows:
        return ""
    panels = []
    for judge in dict.fromkeys(row["judge"] for row in rows):
        mine = [r for r in rows if r["judge"] == judge and number(r.get("win_rate")) is not None]
        dots = []
        for row in mine:
            label, color = f"{name(row['policy'])} / {name(row['baseline'])}", look(row["policy"])[0]
            dots.append(Dot(label[:24], row["win_rate"], interval(row.get("ci95")), color))
            if row.get("length_controlled"):
                even = row["length_controlled"]
                dots.append(
                    Dot("at equal lengths", even["win_rate"], interval(even.get("ci95")), color, "diamond", True)
                )
        if dots:
            chart = dot_panel(dots, "Win rates", reference=(0.5, "even"))
            panels.append(panel(JUDGES.get(judge, judge), chart, "first over second"))
    lost = sum((r.get("unparsable") or 0) + (r.get("failed") or 0) for r in rows)
    flips = max((number(r.get("flip_rate")) or 0 for r in rows), default=0.0)
    title, sub = "Win rates beside those at equal lengths", "Hollow: AlpacaEval 2’s length-controlled rate."
    if any("flip_rate" in r for r in rows):
        title = f"Verdicts: {lost} lost (unparsable or failed), at most {percent(flips)} flipped with the order"
        sub += " A flip is a tie. Lost verdicts are in no rate: the data has it if all had gone one way."
    below = data("verdicts", HEAD, [_row(r) for r in rows])
    return figure(title, sub, panels, below, _verdict_says(rows, lost, flips))


def _row(row: dict[str, Any]) -> list[Any]:
    controlled, bounds = row.get("length_controlled") or {}, interval(row.get("bounds")) or (None, None)
    flips = interval(row.get("flip_ci95")) or (None, None)
    known = {**row, "flips_low": flips[0], "flips_high": flips[1]}
    counts = [known.get(key) for key in COUNTS]
    return [
        row["policy"],
        row["baseline"],
        row["judge"],
        *counts,
        controlled.get("win_rate"),
        *ends(controlled),
        row.get("explained_by_length"),
        *(interval(row.get("explained_by_length_ci95")) or (None, None)),
        *bounds,
    ]


def _verdict_says(rows: list[dict[str, Any]], lost: int, flips: float) -> str:
    if flips > 0.2:
        return f"A judge changes its mind with the order on {percent(flips)} of a pair's prompts: use a stronger judge."
    if lost:
        return f"{lost} verdicts were lost: read the rate at worst and at best, and run again if they lie on both sides of even."
    explained = [(ends, r) for r in rows if (ends := interval(r.get("explained_by_length_ci95"))) is not None]
    longer = [one for one in explained if (number(one[1].get("explained_by_length")) or 0) > 0.5]
    if longer:
        (low, high), one = longer[0]
        return (
            f"Length explains {percent(one['explained_by_length'])} ({percent(low)} to {percent(high)}) of the difference "
            f"of {name(one['policy'])} and {name(one['baseline'])}: believe the rate at equal lengths."
        )
    if any(high > 0.5 for (_, high), _ in explained):
        return (
            "No verdict was lost; length explains less than half of every difference, but may explain more of some: "
            "see the intervals in the data, and ask more prompts."
        )
    return "No verdict was lost, and length explains less than half of every difference: take the rates as they are."


def agreement(report: Report) -> str:
    """People with each other, people with judges (Cohen's kappa), and the reward model's labelers."""
    panels, rows = [], []
    dots = []
    for stage, card in (report.get("reward_models") or _single(report)).items():
        for key, label in (("labeler_agreement", "Two labelers agree"), ("ceiling", "Ceiling on labels")):
            value = number((card or {}).get(key))
            if value is not None:
                ci = interval(card.get(f"{key}_ci95"))
                dots.append(Dot(label, value, ci, "s-people", "tick" if key == "ceiling" else "diamond"))
                rows.append([stage, label, "share", value, *(ci or (None, None)), None])
    if dots:
        chart = dot_panel(dots, "Labeler agreement", limits=(0.4, 1.0), reference=(0.726, "the paper, 73 %"))
        panels.append(panel("Labelers of the comparisons", chart, "share of pairs; chance is 50 %"))
    kappas = []
    for row in report.get("judge_agreement") or []:
        label = "People among themselves" if row["judge"] is None else str(JUDGES.get(row["judge"], row["judge"]))
        rows.append([row["people"], label, "kappa", row["kappa"], *ends(row), row["pairs"]])
        if number(row["kappa"]) is not None:
            look_of = ("s-people", "diamond") if row["judge"] is None else ("s-rm", "circle")
            kappas.append(Dot(label[-24:], row["kappa"], interval(row.get("ci95")), *look_of))
    if kappas:
        chart = dot_panel(kappas, "Kappa", limits=(-0.2, 1.0), show=lambda v: short(v, 2))
        panels.append(panel("Cohen’s kappa with people", chart, "0 is chance, 1 the same verdicts"))
    if not panels:
        return ""
    below = data("agreement", ["of", "who", "measure", "value", "low", "high", "pairs"], rows)
    sub = "95 % intervals: kappa’s over resampled prompts; labelers’ agreement is over pairs that two of them ranked, with prompts as the units."
    return figure(_agreement_title(dots, kappas), sub, panels, below, _agreement_says(dots, kappas))


def _single(report: Report) -> dict[str, Any]:
    return {"reward": report["reward_model"]} if report.get("reward_model") else {}


def _agreement_title(dots: list[Dot], kappas: list[Dot]) -> str:
    judged = [k for k in kappas if k.look == "s-rm"]
    if judged:
        return f"{judged[0].label} agrees with people at kappa {short(judged[0].value, 2)}"
    agree = next((d.value for d in dots if d.shape == "diamond"), None)
    return f"Two labelers agree on {percent(agree)} of pairs" if agree is not None else "How far people agree"


def _agreement_says(dots: list[Dot], kappas: list[Dot]) -> str:
    weak = [k for k in kappas if k.look == "s-rm" and k.value < 0.4]
    if weak:
        return f"{weak[0].label} hardly agrees with people beyond chance: do not decide by it; ask people, or another judge."
    if any(k.look == "s-rm" for k in kappas):
        return (
            "The model judge agrees with people well beyond chance: use it for screening, and people where it is close."
        )
    agree = next((d.value for d in dots if d.shape == "diamond"), None)
    if agree is not None and agree < 0.65:
        return "Two labelers agree on less than two pairs of three: mend the instructions before you buy more labels."
    return "Labelers agree about as well as the paper’s: no reward model can be right on much more of their labels."
