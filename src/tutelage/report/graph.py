"""A small directed graph as inline SVG, from left to right: boxes that are links, and curves between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.report.svg import esc

WIDE, HIGH, ACROSS, DOWN = 168, 46, 56, 16  # a box, and the room between boxes, pixels
LETTERS = 18  # that a box has room for


@dataclass(frozen=True)
class Node:
    """label: cut where it is too long, whole in the title. look: a CSS class. inputs: places of the nodes before it."""

    label: str
    note: str
    href: str
    look: str
    inputs: tuple[int, ...] = ()


def graph(nodes: Sequence[Node], title: str) -> str:
    """The nodes in columns: each stands right of all that it is made of. Cycles are not allowed."""
    columns = _columns(nodes)
    order = _order(nodes, columns)
    tallest = max((columns.count(c) for c in set(columns)), default=0)
    width = (max(columns, default=0) + 1) * (WIDE + ACROSS) - ACROSS + 4
    height = tallest * (HIGH + DOWN) - DOWN + 4
    places: list[tuple[float, float]] = []
    for node, column in enumerate(columns):
        free = (tallest - columns.count(column)) * (HIGH + DOWN) / 2  # columns stand in the middle
        places.append((2 + column * (WIDE + ACROSS), 2 + free + order[node] * (HIGH + DOWN)))
    edges = "".join(_edge(places[before], places[after]) for after, node in enumerate(nodes) for before in node.inputs)
    boxes = "".join(_box(node, *place) for node, place in zip(nodes, places, strict=True))
    # No role img: the links inside must be reachable.
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="group" '
        f'aria-label="{esc(title)}" class="graph">{edges}{boxes}</svg>'
    )


def _columns(nodes: Sequence[Node]) -> list[int]:
    """The longest way from a source to each node; sources stand one column before the first that needs them."""
    far: dict[int, int] = {}

    def depth(node: int) -> int:
        if node not in far:
            far[node] = max((depth(i) + 1 for i in nodes[node].inputs), default=0)
        return far[node]

    columns = [depth(i) for i in range(len(nodes))]
    for i, node in enumerate(nodes):
        users = [columns[after] for after, other in enumerate(nodes) if i in other.inputs]
        if not node.inputs and users:
            columns[i] = min(users) - 1
    return columns


def _order(nodes: Sequence[Node], columns: Sequence[int]) -> list[int]:
    """The row of each node in its column: near those that it goes into, which keeps crossings few."""
    rows = [0] * len(nodes)
    for column in sorted(set(columns), reverse=True):
        members = [i for i, c in enumerate(columns) if c == column]
        aims = {}
        for i in members:
            users = [rows[after] for after, other in enumerate(nodes) if i in other.inputs]
            aims[i] = sum(users) / len(users) if users else 0.0
        for row, i in enumerate(sorted(members, key=lambda i: (aims[i], i))):
            rows[i] = row
    return rows


def _edge(start: tuple[float, float], end: tuple[float, float]) -> str:
    x, y, to_x, to_y = start[0] + WIDE, start[1] + HIGH / 2, end[0], end[1] + HIGH / 2
    middle = (x + to_x) / 2
    curve = f"M{x:.0f} {y:.0f}C{middle:.0f} {y:.0f} {middle:.0f} {to_y:.0f} {to_x - 6:.0f} {to_y:.0f}"
    head = f"M{to_x - 6:.0f} {to_y - 4:.0f}l6 4l-6 4z"
    return f'<path class="edge" d="{curve}"/><path class="head" d="{head}"/>'


def _box(node: Node, x: float, y: float) -> str:
    label = node.label if len(node.label) <= LETTERS else "…" + node.label[1 - LETTERS :]
    return (
        f'<a href="{esc(node.href)}" class="{esc(node.look)}"><title>{esc(node.label)}, {esc(node.note)}</title>'
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{WIDE}" height="{HIGH}" rx="6"/>'
        f'<text class="lab" x="{x + 10:.0f}" y="{y + 20:.0f}">{esc(label)}</text>'
        f'<text x="{x + 10:.0f}" y="{y + 37:.0f}">{esc(node.note)}</text></a>'
    )
