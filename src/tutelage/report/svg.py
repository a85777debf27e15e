"""Small inline SVG charts: panels of dots with intervals, and panels of lines. Colors come from CSS classes.

A panel is about as wide as a phone's screen, so that its text needs no shrinking there; wider pages put
several side by side.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Pair = tuple[float, float]  # x and y, or the two ends of an interval
APART = 34  # units between the figures at an axis


def esc(value: object) -> str:
    """Text for HTML, attribute or content; what is not a valid character is replaced."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return html.escape("".join(c if c in "\n\t" or ord(c) >= 32 else "\N{REPLACEMENT CHARACTER}" for c in text))


def short(value: float | None, digits: int = 3) -> str:
    """A number for people: 1,240 or 0.0312 or 2.1e-05; a missing one is a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}" if size < 1e7 else f"{value / 1e6:,.0f} M"
    if size < 1e-3:
        return f"{value:.1e}"
    text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def percent(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.1f} %" if 0 < value < 0.0995 or 0.9905 < value < 1 else f"{100 * value:.0f} %"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that lie within [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_words(places: Sequence[float], show: Callable[[float], str]) -> list[str]:
    """Ticks in figures; more digits where a narrow range would name two of them alike."""
    words = [show(place) for place in places]
    for digits in range(4, 8):
        if show is not short or len(set(words)) == len(words):
            break
        words = [short(place, digits) for place in places]
    return words


def marker(x: float, y: float, shape: str, hollow: bool = False, r: float = 4.5) -> str:
    """A mark in the class's color: circle, square, triangle, cross, star, diamond or tick."""
    kind = "m hollow" if hollow else "m"
    if shape == "circle":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
    if shape == "square":
        return f'<rect class="{kind}" x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}"/>'
    if shape == "tick":
        return f'<path class="l" d="M{x:.1f} {y - 7:.1f}v14"/>'
    if shape == "cross":
        return f'<path class="l" d="M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}m0 {-2 * r}l{-2 * r} {2 * r}"/>'
    corners: dict[str, list[Pair]] = {
        "triangle": [(0, -5.5), (5.2, 4), (-5.2, 4)],
        "diamond": [(0, -6), (5, 0), (0, 6), (-5, 0)],
        "star": [(0, -6.5), (1.7, -2), (6.2, -2), (2.6, 1), (3.9, 5.5), (0, 3), (-3.9, 5.5), (-2.6, 1), (-6.2, -2)],
    }
    return f'<path class="{kind}" d="M' + "L".join(f"{x + a:.1f} {y + b:.1f}" for a, b in corners[shape]) + 'Z"/>'


@dataclass
class Dot:
    """A row of a dot panel: a value, its interval if it has one, and how it is drawn."""

    label: str
    value: float
    ci: Pair | None = None
    look: str = "s-gold"
    shape: str = "circle"
    hollow: bool = False


def frame(width: int, height: int, title: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{esc(title)}" class="chart">'
        f"<title>{esc(title)}</title>{body}</svg>"
    )


def dot_panel(
    dots: Sequence[Dot],
    title: str,
    *,
    limits: Pair | None = (0.0, 1.0),
    show: Callable[[float], str] = percent,
    reference: tuple[float, str] | None = None,
    width: int = 360,
) -> str:
    """One row per dot, the value in figures at the right end. `limits` None: from 0 (or the least end below) to the largest."""
    left = max(96, 16 + 8 * max((len(dot.label) for dot in dots), default=0))  # room for the names
    rows, right, top = 27, 58, 22 if reference else 8
    if limits is None:
        ends = [0.0, *(d.value for d in dots), *(end for d in dots if d.ci for end in d.ci)]
        limits = (1.05 * min(ends), 1.05 * max(ends)) if any(ends) else (0.0, 1.0)
    low, high = limits
    bottom = top + rows * len(dots)

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (width - left - right)

    parts = []
    last = -math.inf
    for tick in ticks(low, high, 4 if low == 0 and left < 110 else 3):
        parts.append(f'<path class="grid" d="M{x(tick):.1f} {top}V{bottom}"/>')
        if x(tick) - last >= APART:  # beside long names there is little room
            parts.append(f'<text class="t mid" x="{x(tick):.1f}" y="{bottom + 16}">{show(tick)}</text>')
            last = x(tick)
    if reference:
        parts.append(f'<path class="ref" d="M{x(reference[0]):.1f} {top - 4}V{bottom}"/>')
        parts.append(f'<text class="t mid" x="{x(reference[0]):.1f}" y="{top - 8}">{esc(reference[1])}</text>')
    for i, dot in enumerate(dots):
        y = top + rows * (i + 0.5)
        bar = f'<path class="l ci" d="M{x(dot.ci[0]):.1f} {y}H{x(dot.ci[1]):.1f}"/>' if dot.ci else ""
        parts.append(
            f'<g class="{esc(dot.look)}"><text class="lab end" x="{left - 10}" y="{y + 4}">{esc(dot.label)}</text>'
            f"{bar}{marker(x(dot.value), y, dot.shape, dot.hollow)}"
            f'<text class="val" x="{width - right + 10}" y="{y + 4}">{show(dot.value)}</text></g>'
        )
    return frame(width, bottom + 24, title, "".join(parts))


@dataclass
class Line:
    """A series of a line panel; a point whose y is None leaves a gap. band: its interval, shaded."""

    label: str
    points: Sequence[tuple[float, float | None]]
    look: str = "s-gold"
    shape: str | None = "circle"
    dash: bool = False
    hollow: bool = False
    note: tuple[float, float, str] | None = None
    band: Sequence[tuple[float, float, float]] = ()  # x and the two ends of the interval there
    known: list[Pair] = field(init=False)

    def __post_init__(self) -> None:
        self.known = [(x, y) for x, y in self.points if y is not None and math.isfinite(x) and math.isfinite(y)]


def _limits(values: list[float], pad: float) -> Pair:
    low, high = min(values), max(values)
    if high - low < 1e-12:
        return low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    return low - pad * (high - low), high + pad * (high - low)


def _spread(places: list[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart, in order, so that none covers another."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for before, after in zip(order, order[1:], strict=False):  # noqa: RUF007
        moved[after] = max(moved[after], moved[before] + gap)
    if order and moved[order[-1]] > high:
        moved[order[-1]] = high
        for after, before in zip(order[::-1], order[-2::-1], strict=False):
            moved[before] = max(low, min(moved[before], moved[after] - gap))
    return moved


def line_panel(
    lines: Sequence[Line],
    title: str,
    *,
    x_label: str,
    y_limits: Pair | None = None,
    x_limits: Pair | None = None,
    show: Callable[[float], str] = short,
    show_x: Callable[[float], str] = short,
    reference: tuple[float, str] | None = None,
    diagonal: bool = False,
    width: int = 400,
    height: int = 250,
) -> str:
    """Lines named at their ends; `reference` is a level drawn across. Lines without a known point are left out."""
    lines = [line for line in lines if line.known]
    longest = max((len(line.label) for line in lines), default=0)
    room = round(min(max(86, 14 + 7.6 * longest), 0.4 * width)) if longest else 14
    left, right, top, bottom = 46, room, 14, height - 42
    y_values = [y for line in lines for _, y in line.known] + ([reference[0]] if reference else [])
    y_values += [end for line in lines for _, *two in line.band for end in two]
    x0, x1 = x_limits or _limits([x for line in lines for x, _ in line.known], 0.0)
    y0, y1 = y_limits or _limits(y_values, 0.07)

    def px(x: float) -> float:
        return left + (x - x0) / (x1 - x0) * (width - left - right)

    def py(y: float) -> float:
        return bottom - (min(max(y, y0), y1) - y0) / (y1 - y0) * (bottom - top)

    parts = []
    levels, along = ticks(y0, y1, 5), ticks(x0, x1, 5)
    for t, words in zip(levels, tick_words(levels, show), strict=True):
        parts.append(f'<path class="grid" d="M{left} {py(t):.1f}H{width - right}"/>')
        parts.append(f'<text class="t end" x="{left - 7}" y="{py(t) + 4:.1f}">{words}</text>')
    for t, words in zip(along, tick_words(along, show_x), strict=True):
        parts.append(f'<path class="axis" d="M{px(t):.1f} {bottom}v4"/>')
        parts.append(f'<text class="t mid" x="{px(t):.1f}" y="{bottom + 18}">{words}</text>')
    parts.append(f'<path class="axis" d="M{left} {bottom}H{width - right}"/>')
    parts.append(f'<text class="t end" x="{width - right}" y="{bottom + 35}">{esc(x_label)}</text>')
    if reference:
        y = py(reference[0])
        parts.append(f'<path class="ref" d="M{left} {y:.1f}H{width - right}"/>')
        parts.append(
            f'<text class="t" x="{left + 6}" y="{y + (14 if y < bottom - 18 else -5):.1f}">{esc(reference[1])}</text>'
        )
    if diagonal:
        parts.append(f'<path class="ref" d="M{px(x0):.1f} {py(x0):.1f}L{px(x1):.1f} {py(x1):.1f}"/>')
    ends = _spread([py(line.known[-1][1]) for line in lines], 15, top, bottom)
    for line, end in zip(lines, ends, strict=True):
        parts.append(_line(line, px, py, end, width - right))
    return frame(width, height, title, "".join(parts))


def _line(line: Line, px: Callable[[float], float], py: Callable[[float], float], end: float, right: float) -> str:
    path, pen = [], "M"
    for x, y in line.points:
        if y is None or not math.isfinite(y) or not math.isfinite(x):
            pen = "M"
            continue
        path.append(f"{pen}{px(x):.1f} {py(y):.1f}")
        pen = "L"
    marks = "".join(marker(px(x), py(y), line.shape, line.hollow, 3.5) for x, y in line.known) if line.shape else ""
    note = ""
    if line.note:
        x, y, text = line.note
        # Past the middle the words go to the left of the point, so that they stay in the panel.
        side = "end" if px(x) > right * 0.6 else ""
        note = f'<text class="note {side}" x="{px(x):.1f}" y="{max(11.0, py(y) - 9):.1f}">{esc(text)}</text>'
    label = ""
    if line.label:
        last = line.known[-1]
        start = px(last[0])
        lead = f'<path class="lead" d="M{start + 6:.1f} {py(last[1]):.1f}L{right + 4:.1f} {end:.1f}"/>'
        label = (
            lead if right - start > 14 else ""
        ) + f'<text class="lab" x="{right + 8:.1f}" y="{end + 4:.1f}">{esc(line.label)}</text>'
    dash = " dash" if line.dash else ""
    drawn = f'{_band(line, px, py)}<path class="l{dash}" d="{"".join(path)}"/>{marks}{note}{label}'
    return f'<g class="{esc(line.look)}">{drawn}</g>'


def _band(line: Line, px: Callable[[float], float], py: Callable[[float], float]) -> str:
    if len(line.band) < 2:
        return ""
    corners = [(x, high) for x, _, high in line.band] + [(x, low) for x, low, _ in reversed(line.band)]
    return '<path class="band" d="M' + "L".join(f"{px(x):.1f} {py(y):.1f}" for x, y in corners) + 'Z"/>'
