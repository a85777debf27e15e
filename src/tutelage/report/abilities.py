"""Capability tasks before and after, made-up statements, calibration, and ratings of answers one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.report.behaviors import TESTS, TRUTH, dots_of, entries, group_figure, measured, signed, test_row
from tutelage.report.measured import JUDGES
from tutelage.report.parts import data, ends, figure, interval, look, name, number, ordered, panel
from tutelage.report.svg import Dot, Line, dot_panel, line_panel, percent, short

Report = dict[str, Any]
TASKS = ("task:", "lm-eval:")
MARKS = {  # the paper's table 3 in a few words
    "fails_instruction": "Fails the task",
    "inappropriate": "Inappropriate for an assistant",
    "hallucination": "Hallucination",
    "satisfies_constraint": "Satisfies the constraint",
    "harmful": "Harmful",
    "denigrates": "Denigrates a protected class",
    "sexual": "Sexual content",
    "violent": "Violent content",
    "encourages_harm": "Encourages harm",
    "bad_advice": "Harmful advice",
    "opinion": "Expresses an opinion",
    "moral_judgment": "Expresses a moral judgment",
}


def tasks(report: Report) -> str:
    """Dots of each capability task, and its paired differences to the first model."""
    found = measured(report)
    names = list(dict.fromkeys(key for some in found.values() for key in some if key.startswith(TASKS)))
    panels, rows = [], []
    for key in names:
        dots = dots_of(found, key)
        if not dots:
            continue
        title = key.partition(":")[2]
        share = all(0 <= dot.value <= 1 for dot in dots)
        chart = dot_panel(dots, title, limits=(0.0, 1.0) if share else None, show=percent if share else short)
        panels.append(panel(title, chart, "share of questions right" if key.startswith("task:") else "lm-eval"))
        rows += [
            [key, s, e["value"], *ends(e), e.get("prompts"), e.get("per_character")] for s, e in entries(found, key)
        ]
    if not panels:
        return ""
    head = ["task", "stage", "value", "low", "high", "questions", "by log-probability a character"]
    below = data("capability", head, rows)
    tests = [row for row in report.get("changes") or [] if row["behavior"].startswith(TASKS)]
    if tests:
        below += data("changes-capability", TESTS, [test_row(row) for row in tests], title="Paired tests")
    title, says = _tasks_say(tests)
    sub = "The likeliest of the options counts, in the words of plain text. Bars are 95 % intervals over questions."
    return figure(title, sub, panels, below, says)


def _tasks_say(tests: Sequence[dict[str, Any]]) -> tuple[str, str]:
    lost = sorted((r for r in tests if r["changed"] and r["difference"] < 0), key=lambda r: r["difference"])
    if lost:
        row = lost[0]
        low, high = (100 * (end if end is not None else row["difference"]) for end in ends(row))
        task = row["behavior"].partition(":")[2]
        title = f"{name(row['policy'])} lost {short(-100 * row['difference'])} points of “{task}” from {name(row['baseline'])}"
        return title, (
            f"From {name(row['baseline'])} to {name(row['policy'])}, “{task}” moved by {signed(100 * row['difference'])} "
            f"points ({signed(low)} to {signed(high)}): mix pretraining text into training (ptx_coef), raise kl_coef, or "
            "go on with a model that kept it."
        )
    if tests:
        return "No model lost a capability beyond chance", (
            "No paired difference on these tasks is a loss beyond chance: there is no tax to mend here, as far as they can show."
        )
    return "Capability tasks", (
        "Without two models on the same questions this is a level and no tax: evaluate the base model beside them."
    )


def truth(report: Report) -> str:
    """Made-up statements in the world, and calibration tables of any model."""
    return group_figure(report, measured(report), "truth", "What the models make up", TRUTH) + _calibration(report)


def _calibration(report: Report) -> str:
    found: dict[str, dict[str, Any]] = report.get("calibration") or {}
    stages = ordered(list(found))
    panels, rows, worst = [], [], None
    for task in dict.fromkeys(task for stage in stages for task in found[stage]):
        lines, dots = [], []
        for stage in stages:
            if (table := found[stage].get(task)) is None:
                continue
            color, shape, hollow = look(stage)
            points = [(row["confidence"], row["right"]) for row in table["bins"]]
            lines.append(Line(name(stage), points, color, shape, hollow=hollow))
            dots.append(Dot(name(stage), table["value"], interval(table["ci95"]), color, shape, hollow))
            rows += [
                [task, stage, r["low"], r["high"], r["questions"], r["confidence"], r["right"], *ends(r)]
                for r in table["bins"]
            ]
            gap = table["confidence"] - table["accuracy"]
            if worst is None or table["value"] > worst[1]["value"]:
                worst = (stage, table, gap, task)
        chart = line_panel(
            lines,
            f"Reliability, {task}",
            x_label="confidence",
            x_limits=(0.0, 1.0),
            y_limits=(0.0, 1.0),
            show=percent,
            show_x=percent,
            diagonal=True,
        )
        panels.append(panel(f"Right against confidence: {task}", chart, "on the line, confidence is what it says"))
        chart = dot_panel(dots, "Expected calibration error", limits=None, show=short)
        panels.append(panel(f"Calibration error: {task}", chart, "0 is best; 95 % by bootstrap"))
    if worst is None:
        return ""
    stage, table, gap, task = worst
    way = "more sure than right" if gap > 0 else "less sure than right"
    says = (
        f"The largest error is that of {name(stage)} on {task}, {short(table['value'])} ({short(table['ci95'][0])} to "
        f"{short(table['ci95'][1])}): it is {way} by {short(abs(100 * gap))} points on the mean. Scale its confidence by a "
        "temperature fitted on held-out questions before you show it to anyone."
    )
    head = ["task", "stage", "from", "to", "questions", "confidence", "right", "low", "high"]
    sub = "Ten bins of equal width; confidence is the softmax over the options, or what the answer states."
    return figure("How far confidence is to be believed", sub, panels, data("calibration", head, rows), says)


def rubric(report: Report) -> str:
    """Likert and the paper's marks of each model, a figure for each rater."""
    return "".join(_rater(report, rater, found) for rater, found in (report.get("rubric") or {}).items())


def _rater(report: Report, rater: str, found: dict[str, dict[str, Any]]) -> str:
    found = {stage: found[stage] for stage in ordered(list(found))}
    panels, rows = [], []
    if likert := dots_of(found, "likert"):
        chart = dot_panel(likert, "Likert", limits=(1.0, 7.0), show=short)
        panels.append(panel("Quality, 1 to 7", chart, "higher is better"))
    for key, heading in MARKS.items():
        dots = dots_of(found, key)
        if any(dot.value > 0 for dot in dots):  # what nobody marked is in the table alone
            panels.append(panel(heading, dot_panel(dots, heading), "share of answers"))
    for key in ("likert", *MARKS):
        rows += [[rater, key, s, e["value"], *ends(e), e.get("prompts")] for s, e in entries(found, key)]
    if not panels:
        return ""
    below = data("rubric", ["rater", "mark", "stage", "value", "low", "high", "answers"], rows)
    counts = [[stage, *some["counts"].values()] for stage, some in found.items() if some.get("counts")]
    if counts:
        head = ["stage", *next(some["counts"] for some in found.values() if some.get("counts"))]
        below += data("rubric-counts", head, counts, title="What could not be rated")
    start = f"rubric:{rater}/"
    tests = [row for row in report.get("changes") or [] if row["behavior"].startswith(start)]
    if tests:
        below += data("changes-rubric", TESTS, [test_row(row) for row in tests], title="Paired tests")
    who = JUDGES.get(rater, rater)
    sub = "Each answer by itself on the form of Ouyang et al. 2022, table 3. Bars are 95 % intervals over prompts."
    return figure(f"Quality and marks by {who}", sub, panels, below, _rubric_says(tests, start))


def _rubric_says(tests: Sequence[dict[str, Any]], start: str) -> str:
    quality = [r for r in tests if r["behavior"] == f"{start}likert" and r["changed"] and number(r["difference"])]
    if quality:
        row = max(quality, key=lambda r: abs(r["difference"]))
        low, high = (end if end is not None else row["difference"] for end in ends(row))
        return (
            f"From {name(row['baseline'])} to {name(row['policy'])}, quality moved by {signed(row['difference'])} of 7 "
            f"({signed(low)} to {signed(high)}): read the marks beside it to see what it moved by."
        )
    return (
        "No model's quality differs from another's beyond chance by this rater: rate more answers, or read the marks."
    )
