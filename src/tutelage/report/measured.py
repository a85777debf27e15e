"""The sections that are numbers: win rates, behaviors, reward hacking, the reward model, curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.evaluation.overoptimization import verdict
from tutelage.report.parts import data, ends, figure, interval, look, name, number, ordered, panel, sentence
from tutelage.report.svg import Dot, Line, dot_panel, esc, line_panel, percent, short
from tutelage.runs.metrics import DRAWN_FIRST

Report = dict[str, Any]
JUDGES = {
    "gold": "The gold judge",
    "held-out-labelers": "Held-out labelers",
    "reward-model": "The reward model",
}


def find_win(report: Report, policy: str, baseline: str, judge: str = "gold") -> dict[str, Any] | None:
    """The win rate of a pair, turned round where only the mirrored pair was measured."""
    for row in report.get("win_rates") or []:
        rate, ci = number(row.get("win_rate")), interval(row.get("ci95"))
        if row.get("judge") != judge or rate is None:
            continue
        if (row.get("policy"), row.get("baseline")) == (policy, baseline):
            return {"rate": rate, "ci": ci, "prompts": row.get("prompts")}
        if (row.get("baseline"), row.get("policy")) == (policy, baseline):
            return {"rate": 1 - rate, "ci": (1 - ci[1], 1 - ci[0]) if ci else None, "prompts": row.get("prompts")}
    return None


def _cell(win: dict[str, Any] | None) -> str:
    if win is None:
        return '<td class="self">–</td>'
    rate, ci = win["rate"], win["ci"]
    if ci is None or ci[0] <= 0.5 <= ci[1]:
        shade = "even"
    else:
        shade = ("up" if rate > 0.5 else "dn") + str(1 + (abs(rate - 0.5) > 0.15) + (abs(rate - 0.5) > 0.3))
    ends = f"<span>{100 * ci[0]:.0f}–{100 * ci[1]:.0f}</span>" if ci else ""
    return f'<td class="{shade}"><b>{100 * rate:.0f}</b>{ends}</td>'


def win_rates(report: Report) -> str:
    rows = report.get("win_rates") or []
    if not rows:
        return ""
    made = []
    for judge in dict.fromkeys(row["judge"] for row in rows):
        mine = [row for row in rows if row["judge"] == judge]
        stages = ordered([row["policy"] for row in mine] + [row["baseline"] for row in mine])
        head = "".join(f'<th class="{look(s)[0]}">{esc(name(s))}</th>' for s in stages)
        body = "".join(
            f'<tr><th class="{look(a)[0]}">{esc(name(a))}</th>'
            + "".join('<td class="self">·</td>' if a == b else _cell(find_win(report, a, b, judge)) for b in stages)
            + "</tr>"
            for a in stages
        )
        made.append(
            f"<div><h4>{esc(JUDGES.get(judge, judge))}</h4><table class='matrix'><thead><tr><th>row wins over "
            f"column, %</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )
    clear = [r for r in rows if (ci := interval(r.get("ci95"))) and not ci[0] <= 0.5 <= ci[1]]
    title = f"{len(clear)} of {len(rows)} comparisons are decided: their 95 % interval leaves out 50 %"
    below = data(
        "win-rates",
        ["policy", "baseline", "judge", "win rate", "low", "high", "prompts"],
        [
            [
                r["policy"],
                r["baseline"],
                r["judge"],
                r["win_rate"],
                *(interval(r.get("ci95")) or (None, None)),
                r.get("prompts"),
            ]
            for r in rows
        ],
    )
    sub = "The same prompts for both, none of them trained on; ties count a half. Grey: not decided."
    return (
        f"<figure><figcaption><h3>{title}</h3><p class='sub'>{sub}</p></figcaption>"
        f"<div class='matrices'>{''.join(made)}</div>{sentence(_who_leads(report))}{below}</figure>"
    )


def _who_leads(report: Report) -> str:
    """Which model is ahead of every other by a judge, its intervals clear of one half."""
    rows = [r for r in report["win_rates"] if number(r.get("win_rate")) is not None]
    for judge in dict.fromkeys(r["judge"] for r in rows):
        mine = [r for r in rows if r["judge"] == judge]
        models = ordered([r["policy"] for r in mine] + [r["baseline"] for r in mine])
        for one in models:
            found = [find_win(report, one, other, judge) for other in models if other != one]
            if all(win and win["ci"] and win["ci"][0] > 0.5 for win in found):
                return (
                    f"{name(one)} wins over every other model by {_the(judge)}, beyond chance: go on with it, unless the "
                    "behaviors or the tax below cost more than the win is worth."
                )
    return (
        "No model is clear of all others by any judge: do not choose by these rates alone; ask more prompts "
        "(--prompts), or choose by behavior and cost."
    )


def _the(judge: str) -> str:
    return JUDGES[judge][0].lower() + JUDGES[judge][1:] if judge in JUDGES else judge


def overoptimization(report: Report) -> str:
    runs = [r for r in report.get("overoptimization") or [] if r.get("curve")]
    if not runs:
        return ""
    lines: dict[str, list[Line]] = {"gold": [], "proxy": []}
    rows, words, start = [], [], None
    for run in runs:
        stage, label, side, free = _who(run)
        color, shape, _ = look(stage)
        curve = [p for p in run["curve"] if number(p.get("kl")) is not None]
        for key, made in lines.items():
            points = [(max(0.0, p["kl"]) ** 0.5, number(p.get(key))) for p in curve]
            made.append(Line(label, points, color, shape, free, free, note=_best(points) if key == "gold" else None))
        rows += [
            [stage, run.get("kl_coef"), *(number(p.get(k)) for k in ("step", "kl", "proxy", "gold", "length"))]
            for p in curve
        ]
        full = [p for p in curve if number(p.get("gold")) is not None and number(p.get("proxy")) is not None]
        if full:
            start = full[0]["gold"] if start is None else start
            fell = (
                number(full[-1]["gold"]) < max(p["gold"] for p in full[:-1] or full) - 1e-9
                and full[-1]["gold"] < full[0]["gold"]
            )
            words.append((fell, side, verdict(full)))
    hacking = report.get("hacking") or {}
    for key, made in lines.items():
        chosen = [(max(0.0, r["kl"]) ** 0.5, number(r.get(key))) for r in hacking.get("best_of_n") or []]
        made.append(Line("best of n", chosen, "s-rm", "diamond"))
    worst = [w for w in words if w[0]]
    title = "Without the penalty the reward model is exploited: its score rises while the judge's falls below the start"
    if not worst:
        title = "No run ends below where it began by the gold judge"
    elif not worst[0][1].startswith("Without") or not worst[0][2].startswith("Proxy rose"):
        title = f"{worst[0][1]}, gold ends below where it began"
    panels = []
    for key, heading, tiny in (
        ("proxy", "Proxy: the reward model's score", "what training maximizes"),
        ("gold", "Gold: the judge's score", "what it was meant to maximize"),
    ):
        if any(line.known for line in lines[key]):
            ref = (start, "the start") if key == "gold" and start is not None else None
            panels.append(
                panel(heading, line_panel(lines[key], heading, x_label="√KL from SFT, √nats", reference=ref), tiny)
            )
    calls = "".join(
        f'<p class="callout {"red" if bad else "good"}"><b>{esc(side)}.</b> {esc(text)}</p>'
        for bad, side, text in words
    )
    if hacking.get("verdict"):
        calls += f"<p>{esc(hacking['verdict'])}</p>"
    for form, fit in (hacking.get("fits") or {}).items():
        where = f", best at KL {fit['peak_kl']:.1f}" if fit.get("peak_is_inside") else ", no best within the data"
        calls += f"<p class='sub'>{esc(_fitted(form, fit))}{where}.</p>"
    says = (
        "The judge's score ends below where it began: take the checkpoint at its best, or raise the KL penalty."
        if worst
        else "The judge's score holds along every run: a longer run or a lower KL penalty may be tried, with gold watched."
    )
    below = calls + data("overoptimization", ["stage", "kl_coef", "step", "kl", "proxy", "gold", "length"], rows)
    return figure(
        title,
        "One run each, so no intervals; each point is a mean over evaluation prompts.",
        panels,
        below,
        says,
        wide=True,
    )


def _who(run: Report) -> tuple[str, str, str, bool]:
    """(stage, name in the chart, name in a sentence, whether nothing held it) of a run: PPO with and without the penalty
    by that, others by their stage."""
    stage, free = str(run.get("stage") or "ppo"), not number(run.get("kl_coef"))
    side = "without the penalty" if free else f"with the penalty (coefficient {run['kl_coef']:g})"
    if stage in ("ppo", "ppo-no-kl"):
        return stage, "no KL" if free else "with KL", side.capitalize(), free
    return stage, name(stage), f"{name(stage)}, {side}", free


def _best(points: Sequence[tuple[float, float | None]]) -> tuple[float, float, str] | None:
    """The mark of the best gold, unless it is the last point."""
    known = [(y, x) for x, y in points if y is not None]
    best = max(known, default=None)
    return (best[1], best[0], f"best gold, KL {best[1] ** 2:.1f}") if best and best != known[-1] else None


def _fitted(form: str, fit: dict[str, Any]) -> str:
    formula = "d (α − β log d)" if form == "rl" else "d (α − β d)"
    numbers = f"α = {fit['alpha']:.3f} ± {fit['alpha_error']:.3f}, β = {fit['beta']:.3f} ± {fit['beta_error']:.3f}"
    return f"Gao et al.'s form for {form}: gold over the start = {formula}, d = √KL, {numbers} (standard errors)"


def reward_model(report: Report) -> str:
    card = report.get("reward_model") or {}
    n = {k: number(v) for k, v in card.items()}
    dots = [
        Dot(label, n[key] or 0.0, interval(card.get("ci95" if key == "accuracy" else f"{key}_ci95")), color, shape)
        for key, label, color, shape in (
            ("accuracy", "Reward model", "s-rm", "diamond"),
            ("labeler_agreement", "Two labelers agree", "s-people", "diamond"),
            ("ceiling", "Ceiling on labels", "s-people", "tick"),
            ("length_accuracy", "Longer one wins", "s-base", "circle"),
            ("gold_accuracy", "On the gold order", "s-gold", "circle"),
        )
        if n.get(key) is not None
    ]
    if not dots:
        return ""
    panels = [panel("Accuracy on held-out pairs", dot_panel(dots, "Accuracy", limits=(0.4, 1.0)), "chance is 50 %")]
    parts = [(d.label, "", d.value, *(d.ci or (None, None)), None) for d in dots]
    groups = [
        (c, v)
        for c, v in (card.get("accuracy_by_category") or {}).items()
        if number((v or {}).get("value")) is not None
    ]
    if groups:
        rows = [Dot(c, v["value"], interval(v.get("ci95")), "s-rm", "diamond") for c, v in groups]
        panels.append(panel("By category", dot_panel(rows, "By category", limits=(0.4, 1.0)), "held-out labels"))
        parts += [("by category", c, v["value"], *ends(v), v.get("pairs")) for c, v in groups]
    bins = [
        b
        for b in card.get("calibration") or []
        if number(b.get("predicted")) is not None and number(b.get("observed")) is not None
    ]
    if bins:
        line = Line("", [(b["predicted"], b["observed"]) for b in bins], "s-rm", "diamond")
        chart = line_panel(
            [line],
            "Calibration",
            x_label="predicted chance that A wins",
            x_limits=(0, 1),
            y_limits=(0, 1),
            show=percent,
            show_x=percent,
            diagonal=True,
        )
        panels.append(
            panel("Calibration", chart, f"expected error {percent(n.get('calibration_error'))}; dotted: perfect")
        )
        parts += [("calibration", b["predicted"], b["observed"], *ends(b), b.get("pairs")) for b in bins]
    best = [b for b in card.get("best_of_n") or [] if number(b.get("n")) and number(b.get("gold")) is not None]
    if len(best) > 1:
        line = Line("", [(b["n"], b["gold"]) for b in best], "s-rm", "diamond")
        panels.append(
            panel(
                "Gold score of the best of n",
                line_panel([line], "Best of n", x_label="answers to choose from"),
                "chosen by the reward model",
            )
        )
        parts += [("best of n", b["n"], b["gold"], *(interval(b.get("gold_ci95")) or (None, None)), None) for b in best]
    title = f"The reward model is right on {percent(n.get('accuracy'))} of held-out labels"
    if n.get("accuracy") is not None and n.get("labeler_agreement") is not None:
        title += f"; two labelers agree on {percent(n['labeler_agreement'])}"
    sub = f"{short(n.get('pairs'))} pairs. Correlation of reward and length: {short(n.get('length_correlation'), 2)}."
    below = data("reward-model", ["what", "group", "value", "low", "high", "pairs"], parts)
    return figure(title, sub, panels, below, _reward_says(n))


def _reward_says(n: dict[str, float | None]) -> str:
    accuracy, agree, length = n.get("accuracy"), n.get("labeler_agreement"), n.get("length_correlation")
    if length is not None and abs(length) > 0.4:
        return f"Reward follows length (correlation {short(length, 2)}): balance lengths in the labels before training on it."
    if accuracy is None:
        return "The accuracy is not known: measure it on held-out labels before training on this model."
    if accuracy < 0.55:
        return (
            "The reward model is hardly better than chance: label more, or look at the labels, before training on it."
        )
    if agree is not None and accuracy < agree - 0.05:
        return (
            "The reward model is short of what two labelers agree on: more labels, or a larger model, would still help."
        )
    return "The reward model does about as well as its labels allow: better labels would help, more of the same hardly."


def curves(metrics: dict[str, list[dict[str, Any]]], most: int) -> str:
    """Training curves of each stage, folded; `most` points a series (first and last kept)."""
    made = []
    for stage, rows in metrics.items():
        keys = list(dict.fromkeys(k for row in rows for k in row if number(row[k]) is not None))
        keys = [k for k in DRAWN_FIRST if k in keys] + [
            k for k in keys if k not in (*DRAWN_FIRST, "step", "seconds", "num_tokens")
        ]
        thin = rows[:: max(1, -(-len(rows) // most))]
        panels = []
        for key in keys[:9]:
            line = Line(
                "", [(float(r.get("step", i)), number(r.get(key))) for i, r in enumerate(thin)], look(stage)[0], None
            )
            if len(line.known) > 1:
                panels.append(
                    panel(key.replace("_", " "), line_panel([line], key, x_label="step", height=190, width=340))
                )
        if panels:
            head = ["step", *keys[:9]]
            below = data(f"{stage}-metrics", head, [[r.get(k) for k in head] for r in thin], shown=12)
            made.append(
                f'<details class="curves"><summary>{esc(name(stage))}: {len(rows)} steps</summary>'
                f'<div class="panels">{"".join(panels)}</div>{sentence(_curve_says(rows))}{below}</details>'
            )
    return "".join(made)


def _curve_says(rows: Sequence[dict[str, Any]]) -> str:
    losses = [value for row in rows if (value := number(row.get("loss"))) is not None]
    part = max(1, len(losses) // 5)
    if len(losses) < 10:
        return "Too short a run to tell a trend: train longer before you read anything into it."
    first, before, last = (sum(some) / len(some) for some in (losses[:part], losses[-2 * part : -part], losses[-part:]))
    if last > first:
        return f"The loss went from {short(first)} to {short(last)}: if it is meant to fall, lower the learning rate."
    if before - last > 0.05 * max(first - last, 1e-12):
        return f"The loss fell from {short(first)} to {short(last)} and was still falling: more steps may help."
    return f"The loss fell from {short(first)} to {short(last)} and is level: more steps of the same will hardly help."
