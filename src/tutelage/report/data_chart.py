"""`tutelage data stats --chart`: the paper's tables 1 and 6 to 11 of your data as bars and boxes, in one SVG."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tutelage.report.standalone import WIDTH, together
from tutelage.report.svg import Pair, esc, frame, short, ticks

ROW, RIGHT = 27, 64
LONGEST = 22  # characters of a label
NOT_SHARES = ("answers a comparison", "labelers", "mean rating")  # what table 7 holds besides shares
DECADES = [0.0, *(float(digit * 10**power) for power in range(7) for digit in (1, 3))]  # ticks of lengths

Bar = tuple[str, float, float | None]  # label, value, a mark to compare with
Box = tuple[str, Mapping[str, float]]  # label, a row of the tables of lengths


def data_chart(tables: Mapping[str, Any]) -> str:
    """tables: of `data.stats.stats`. A table without rows has no panel."""
    unit = tables["unit"]
    cases = [(name, row["percent"], row["paper_percent"]) for name, row in tables["use_cases"].items()]
    sizes = [(f"{kind}, {part}", n, None) for kind, row in tables["sizes"].items() for part, n in row.items()]
    said = [(name, 100.0 * value, None) for name, value in tables["annotations"].items() if name not in NOT_SHARES]
    customers = [
        (f"{part}, {words}", row[key], None)
        for part, row in tables["per_customer"].items()
        for key, words in (("mean", "mean"), ("max", "most"))
    ]
    drawn = [
        ("Use cases (table 1); marks: the paper's shares", bars(cases, "Use cases", _share) if cases else ""),
        ("Sizes (table 6)", bars(sizes, "Sizes", _count) if sizes else ""),
        ("Annotations (table 7)", bars(said, "Annotations", _share) if said else ""),
        ("Prompts a customer (table 8)", bars(customers, "Prompts a customer", short) if customers else ""),
    ]
    for key, words in (
        ("prompt_lengths", "Prompt lengths (table 9)"),
        ("prompt_lengths_by_category", "Prompt lengths by use case (table 10)"),
        ("demonstration_lengths", "Demonstrations and answers (table 11)"),
    ):
        rows = [(name, row) for name, row in tables[key].items() if row["count"]]
        drawn.append((f"{words}, {unit}", boxes(rows, f"{words}, in {unit}, logarithmic") if rows else ""))
    kept = [(heading, panel) for heading, panel in drawn if panel]
    spec = tables["spec"] if len(tables["spec"]) <= LONGEST else f"…{tables['spec'][1 - LONGEST :]}"
    title = f"{spec}: use cases, sizes and lengths"
    return together([panel for _, panel in kept], [heading for heading, _ in kept], title)


def bars(rows: Sequence[Bar], title: str, show: Callable[[float], str]) -> str:
    """A bar a row from 0, its value in figures, and a mark where there is something to compare with."""
    left, bottom = _gutter([name for name, _, _ in rows]), 8 + ROW * len(rows)
    high = max([1e-9, *(value for _, value, _ in rows), *(mark for _, _, mark in rows if mark is not None)])

    def x(value: float) -> float:
        return left + value / high * (WIDTH - left - RIGHT)

    parts = [_tick(x(tick), bottom, show(tick)) for tick in ticks(0.0, high, 3)]
    for i, (name, value, mark) in enumerate(rows):
        y = 8 + ROW * i
        rect = f'<rect class="m" x="{left}" y="{y + 6}" width="{x(value) - left:.1f}" height="15"/>'
        against = "" if mark is None else f'<path class="l s-ppo" d="M{x(mark):.1f} {y + 2}v23"/>'
        parts.append(_row(name, left, y, f"{rect}{against}", show(value)))
    return frame(WIDTH, bottom + 24, title, "".join(parts))


def boxes(rows: Sequence[Box], title: str) -> str:
    """From the least to the greatest a line, the middle half a box with its median, which stands in figures too."""
    left, bottom = _gutter([name for name, _ in rows]), 8 + ROW * len(rows)
    high = max(1.0, *(row["max"] for _, row in rows))

    def x(value: float) -> float:
        return left + math.log1p(value) / math.log1p(high) * (WIDTH - left - RIGHT)

    parts, last = [], -math.inf
    for tick in DECADES:
        if tick <= high and x(tick) - last >= 30:
            parts.append(_tick(x(tick), bottom, _count(tick)))
            last = x(tick)
    for i, (name, row) in enumerate(rows):
        y = 8 + ROW * i
        ends: Pair = (x(row["25%"]), x(row["75%"]))
        drawn = (
            f'<path class="l" d="M{x(row["min"]):.1f} {y + 13.5}H{x(row["max"]):.1f}"/>'
            f'<rect class="m hollow" x="{ends[0]:.1f}" y="{y + 5}" width="{max(1.0, ends[1] - ends[0]):.1f}" height="17"/>'
            f'<path class="l" d="M{x(row["50%"]):.1f} {y + 5}v17"/>'
        )
        parts.append(_row(name, left, y, drawn, _count(row["50%"])))
    return frame(WIDTH, bottom + 24, title, "".join(parts))


def _row(name: str, left: float, y: float, drawn: str, value: str) -> str:
    return (
        f'<g class="s-sft"><text class="lab end" x="{left - 10}" y="{y + 18}">{esc(_label(name))}</text>{drawn}'
        f'<text class="val" x="{WIDTH - RIGHT + 10}" y="{y + 18}">{esc(value)}</text></g>'
    )


def _tick(x: float, bottom: float, words: str) -> str:
    line = f'<path class="grid" d="M{x:.1f} 8V{bottom}"/>'
    return f'{line}<text class="t mid" x="{x:.1f}" y="{bottom + 16}">{esc(words)}</text>'


def _label(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _gutter(names: Sequence[str]) -> int:
    return round(18 + 7.8 * max(len(_label(name)) for name in names))


def _share(value: float) -> str:
    return f"{value:.3g} %"


def _count(value: float) -> str:
    return f"{value:,.0f}"
