"""A lab lesson as figures with their data, and as one HTML file: what was predicted, what happened, and the mend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.report.document import document
from tutelage.report.parts import data, facts, figure, interval
from tutelage.report.svg import Line, esc, line_panel, percent, short

Lesson = Mapping[str, Any]
Points = Sequence[tuple[float, float]]
LABELS = {
    "gold": "Gold: the judge",
    "proxy": "Proxy: the reward model",
    "kl": "KL (nats an answer)",
    "length": "Tokens an answer",
    "objective/scores": "Reward model’s score",
    "objective/kl": "KL (nats an answer)",
    "response_length/mean": "Tokens an answer",
}
LOOKS = {"broken": ("s-ppo", "triangle"), "mended": ("s-ptx", "circle")}
LONGER, SHORTER = 1.5, 0.7  # of the length at the start


def live_figures(name: str, live: Mapping[str, Points]) -> list[str]:
    """The curves of the stage that runs: one run, so without intervals."""
    made = []
    for metric, points in live.items():
        title = LABELS.get(metric, metric)
        chart = line_panel([Line("", points, "s-ppo", None)], title, x_label="step", height=210)
        says = f"From {short(points[0][1])} to {short(points[-1][1])} by step {short(points[-1][0])}; one run, no interval."
        below = data(f"{name}-{metric.replace('/', '-')}", ["step", metric], points)
        made.append(figure(title, "", [f'<div class="panel">{chart}</div>'], below, says))
    return made


def figures(lesson: Lesson) -> list[str]:
    """Broken beside mended against the steps, a figure for each thing that the lesson watches."""
    broken, mended = lesson["curves"]["broken"], lesson["curves"]["mended"]
    made = []
    for stage, points in broken.items():
        for key in [key for key in points[0] if key not in ("step", "ci95")]:
            runs = {"broken": points, **({"mended": mended[stage]} if stage in mended else {})}
            made.append(_figure(lesson, stage, key, runs, several=len(broken) > 1))
    return made


def _figure(
    lesson: Lesson, stage: str, key: str, runs: Mapping[str, Sequence[Mapping[str, Any]]], several: bool
) -> str:
    lines, rows = [], []
    for run, points in runs.items():
        color, shape = LOOKS[run]
        ends = [interval((p.get("ci95") or {}).get(key)) for p in points]
        band = [(p["step"], *two) for p, two in zip(points, ends, strict=True) if two is not None]
        along = [(p["step"], p[key]) for p in points]
        lines.append(Line(run, along, color, shape, dash=run == "mended", band=band))
        rows += [[run, p["step"], p[key], *(two or (None, None))] for p, two in zip(points, ends, strict=True)]
    title = f"{LABELS.get(key, key)}{f', {stage}' if several else ''}"
    seed = f", seed {lesson['seeds'][0]}" if len(lesson.get("seeds", ())) > 1 else ""
    sub = f"Shaded: 95 % intervals over the held-out prompts{seed}." if any(line.band for line in lines) else ""
    below = data(f"{lesson['scenario']}-{stage}-{key}", ["run", "step", key, "low", "high"], rows)
    chart = line_panel(lines, title, x_label="step", height=220)
    return figure(title, sub, [f'<div class="panel">{chart}</div>'], below, _says(key, runs))


def _says(key: str, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What the curves show, and what to do about it."""
    ends = {run: (short(round(p[0][key], 2)), short(round(p[-1][key], 2))) for run, p in runs.items()}
    moved = "; ".join(f"{run} {first} → {last}" for run, (first, last) in ends.items())
    points = runs["broken"]
    if key == "gold":
        best = max(points, key=lambda p: p["gold"])
        top, last = (interval((p.get("ci95") or {}).get("gold")) for p in (best, points[-1]))
        if top is not None and last is not None and last[1] < top[0]:
            return f"{moved}. Broken, gold was best at step {best['step']}: stop there, or mend the cause."
        return f"{moved}. Broken, it does not end clearly below its best: take the last checkpoint."
    if key == "proxy":
        return f"{moved}. This is what training maximizes; look at gold before you call a rise a gain."
    if key == "kl":
        return f"{moved}. The further a policy goes, the less the reward model knows of its answers: compare gold at equal KL."
    if key == "length":
        change = points[-1][key] / points[0][key] if points[0][key] else 1.0
        if change > LONGER:
            return f"{moved}. Broken, answers grew by {percent(change - 1)}: look for padding in the answers below."
        if change < SHORTER:
            return (
                f"{moved}. Broken, answers shrank by {percent(1 - change)}: look for answers that say too little below."
            )
        return f"{moved}. Length changed too little to explain what happened: read the answers below."
    return f"{moved}. Read it beside gold."


def measures(lesson: Lesson) -> str:
    """The numbers that the explanation is made of, broken and mended, each with its interval."""
    rows = []
    for name, value in lesson["measures"].items():
        row = [name, *_with_ends(value, lesson.get("measures_ci95"), name)]
        if lesson["mended"] is not None:
            row += _with_ends(lesson["mended"][name], lesson.get("mended_ci95"), name)
        rows.append(row)
    head = ["measure", "broken", "low", "high", *(["mended", "low", "high"] if lesson["mended"] is not None else [])]
    return data(f"{lesson['scenario']}-measures", head, rows, title="Every number of the lesson")


def _with_ends(value: float | None, intervals: Mapping[str, Any] | None, name: str) -> list[float | None]:
    return [value, *(interval((intervals or {}).get(name)) or (None, None))]


def effects(lesson: Lesson) -> str:
    """How sure each effect is, in words."""
    said = [
        f"“{name}” held on {percent(one['share'])} of the resamples of the held-out prompts"
        for name, one in lesson["effects"].items()
        if one["share"] is not None
    ]
    return f"{'; '.join(said)}." if said else ""


def render_lesson(lesson: Lesson) -> str:
    """One file that opens without a connection."""
    happened = "".join(
        f'<p class="callout">A guard spoke, and was bypassed: {esc(one)}</p>' for one in lesson["tripped"]
    )
    happened += "".join(f"<p>{esc(one)}</p>" for one in lesson["explanation"]) or (
        "<p>Nothing that this lesson looks for could be measured.</p>"
    )
    happened += f'<p class="tiny">{esc(effects(lesson))}</p>{measures(lesson)}'
    why = " ".join(f"{one[:1].upper()}{one[1:]}." for one in lesson["why_mend"])
    about = f"<p>{esc(lesson.get('about', ''))}</p>"
    about += '<p class="callout red">A toy size: its numbers say nothing.</p>' if lesson["fast"] else ""
    sections = [
        ("predictions", "What you predicted", _predictions(lesson)),
        ("happened", "What happened", happened),
        ("curves", "Curves", "".join(figures(lesson))),
        ("mend", "The mend", f"<p>{esc(why)}</p>" if why else ""),
        ("answers", "Answers to the same prompts", _answers(lesson)),
        ("settings", "How it was run", _settings(lesson)),
    ]
    return document(lesson["title"], "lab", lesson["title"], about, sections)


def _predictions(lesson: Lesson) -> str:
    rows = [
        f"<tr><td>{esc(p['ask'])}</td><td>{esc(_shown(p['guess']))}</td><td>{esc(_shown(p['came']))}</td>"
        f"<td>{'' if p['right'] is None else 'right' if p['right'] else 'not so'}</td></tr>"
        for p in lesson["predictions"]
    ]
    head = "<thead><tr><th>Question</th><th>You</th><th>It was</th><th></th></tr></thead>"
    said = f"<p><b>{esc(lesson['said'])}</b></p>" if lesson["said"] else ""
    return f'{said}<div class="scroll"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>' if rows else ""


def _shown(value: Any) -> str:
    return short(value) if isinstance(value, int | float) else "–" if value is None else str(value)


def _answers(lesson: Lesson) -> str:
    made = []
    for one in lesson["texts"]:
        sides = [("Broken", "s-ppo", one["broken"], one["gold"])]
        if one["mended"] is not None:
            sides.append(("Mended", "s-ptx", one["mended"], one["mended_gold"]))
        asked = f'<p class="prompt" dir="auto">{esc(one["prompt"])}</p>' if one.get("prompt") else ""
        made.append(
            f'{asked}<div class="cols">'
            + "".join(
                f'<div class="answer {color}"><p class="who">{who}</p><p class="text" dir="auto">{esc(text or "(empty)")}</p>'
                f'<p class="tiny">gold {esc(short(gold))}</p></div>'
                for who, color, text, gold in sides
            )
            + "</div>"
        )
    return "".join(made)


def _settings(lesson: Lesson) -> str:
    seeds = ", ".join(map(str, lesson["seeds"]))
    pairs = [*lesson["settings"].items(), ("seeds", seeds), ("seconds", lesson["seconds"])]
    return facts(pairs)
