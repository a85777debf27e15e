"""Figures of studies and lessons: one panel a measure, seeds thin, their mean thick; stand-alone SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.report.standalone import WIDTH, together
from tutelage.report.svg import Dot, Line, dot_panel, line_panel, short
from tutelage.studies.schema import Study

HEIGHT = 260
SHAPES = ("circle", "square", "triangle", "diamond")
LOOKS = ("s-ppo", "s-ptx", "s-sft", "s-base")


def study_figure(study: Study, result: Mapping[str, Any]) -> str:
    """Each measure of the figure against what was varied; numbers as lines, names as dots."""
    values = [row["value"] for row in result["summary"]]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values) and len(values) > 1
    panels = []
    for name, label in study.figure.y.items():
        known = [row for row in result["summary"] if row[name]["mean"] is not None]
        if not known:
            continue
        if numeric:
            lines = [
                Line(
                    "",
                    [(float(c["value"]), c[name]) for c in result["cells"] if c["seed"] == seed],
                    "s-base",
                    None,
                    dash=True,
                )
                for seed in result["seeds"]
                if len(result["seeds"]) > 1
            ]
            lines.append(Line("", [(float(r["value"]), r[name]["mean"]) for r in known], "s-ppo", "circle"))
            panels.append(line_panel(lines, label, x_label=study.vary.label, width=WIDTH, height=HEIGHT))
        else:
            dots = [
                Dot(str(r["value"]), r[name]["mean"], tuple(r[name]["ci95"]) if r[name]["ci95"] else None, "s-ppo")
                for r in known
            ]
            panels.append(dot_panel(dots, label, limits=_limits(dots), show=short, width=WIDTH))
    titles = list(study.figure.y.values())
    if (found := result["over_optimization"]) is not None:
        for key, heading in (("proxy", "Proxy against √KL"), ("gold", "Gold against √KL; the best is marked")):
            panels.append(
                line_panel(_by_distance(found, key), heading, x_label="√KL, √nats", width=WIDTH, height=HEIGHT)
            )
            titles.append(heading)
    for value, rows in (result["methods"] or {}).items():
        panels.append(_frontier(rows))
        titles.append(f"Gold win rate against KL: {value}")
    return together(panels, titles, study.figure.title)


def _frontier(rows: Sequence[Mapping[str, Any]]) -> str:
    """A point a method: how far it went from the baseline, and what that was worth."""
    marks = [(look, SHAPES[(i + j) % len(SHAPES)]) for j in range(len(SHAPES)) for i, look in enumerate(LOOKS)]
    compared = [row for row in rows if row["win"]["mean"] is not None and row["kl"]["mean"] is not None]
    points = [
        Line(row["method"], [(row["kl"]["mean"], row["win"]["mean"])], *marks[number % len(marks)])
        for number, row in enumerate(compared)
    ]
    return line_panel(
        points, "frontier", x_label="KL, nats an answer", reference=(0.5, "even"), width=WIDTH, height=340
    )


def _by_distance(found: Mapping[str, Any], key: str) -> list[Line]:
    """Mean curves of each KL coefficient, and best-of-n."""
    lines = []
    for number, group in enumerate(found["groups"]):
        points = [(max(0.0, p["kl"]) ** 0.5, p[key]) for p in group["curve"]]
        best = group["best"]
        note = (max(0.0, best["kl"]) ** 0.5, best["gold"], f"KL {best['kl']:.1f}") if key == "gold" else None
        lines.append(Line(f"β {group['kl_coef']:g}", points, LOOKS[number % len(LOOKS)], "circle", note=note))
    chosen = [(max(0.0, row["kl"]) ** 0.5, row[key]) for row in found["best_of_n"]]
    return [*lines, Line("best of n", chosen, "s-gold", "diamond", dash=True)]


def _limits(dots: list[Dot]) -> tuple[float, float]:
    ends = [x for d in dots for x in (d.value, *(d.ci or ()))]
    return min(0.0, *ends), max(1e-9, *ends) * 1.05 if max(ends) > 0 else 0.05
