"""Figures of studies and lessons: one panel a measure, seeds thin, their mean thick; stand-alone SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.report.svg import Dot, Line, dot_panel, esc, line_panel, short
from tutelage.studies.schema import Study

STYLE = (
    "svg{--bg:#fff;--ink:#1a1f26;--muted:#57606a;--line:#d5dae0;background:#fff}text{font:12px system-ui,sans-serif;fill:var(--muted)}"
    ".lab,.note,.val{font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}.grid{stroke:var(--line);fill:none}.axis{stroke:#7c8692;fill:none}"
    ".ref{stroke:var(--muted);stroke-dasharray:2 3;fill:none}.lead{stroke:var(--muted);opacity:.4;fill:none}.l{stroke:var(--c);stroke-width:2.4;fill:none}"
    ".ci{stroke-width:3;opacity:.45}.dash{stroke-dasharray:5 4;stroke-width:1.2;opacity:.7}.m{fill:var(--c);stroke:var(--c)}"
    ".hollow{fill:#fff}.s-gold{--c:#1a1f26}.s-base{--c:#5c6775}.s-sft{--c:#000ea3}.s-ppo{--c:#cc400c}.s-ptx{--c:#058760}"
)
WIDTH, HEIGHT = 400, 260
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
            gutter = max(96, 16 + 8 * max(len(dot.label) for dot in dots))  # room for the names
            panels.append(dot_panel(dots, label, limits=_limits(dots), show=short, width=WIDTH, gutter=gutter))
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


def together(panels: list[str], titles: list[str], title: str) -> str:
    """Panels below each other's titles in one SVG."""
    parts, top = [], 34
    for panel, heading in zip(panels, titles, strict=False):
        parts.append(f'<text class="lab" x="8" y="{top + 12}">{esc(heading)}</text>')
        height = int(panel.split('viewBox="0 0 ')[1].split('"')[0].split()[1])
        parts.append(panel.replace("<svg ", f'<svg x="0" y="{top + 18}" width="{WIDTH}" height="{height}" ', 1))
        top += height + 30
    head = f'<text class="val" x="8" y="20" font-size="14">{esc(title)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" role="img">'
        f"<title>{esc(title)}</title><style>{STYLE}</style>{head}{''.join(parts)}</svg>\n"
    )
