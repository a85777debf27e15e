"""Tables of what a study measured beside what it varied: a row a way of doing something, a column a measure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.studies.measures import Cell, over_seeds, shown

Tables = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]  # title → row → column → measure
Measured = dict[str, dict[str, dict[str, dict[str, Any]]]]  # the same, each measure a mean over seeds


def measure_tables(tables: Tables, cells: Sequence[Cell]) -> Measured:
    """Every measure of every table as a mean over the cells, one a seed, with its interval."""
    return {
        title: {
            name: {column: over_seeds([cell.measure(one) for cell in cells]) for column, one in columns.items()}
            for name, columns in rows.items()
        }
        for title, rows in tables.items()
    }


def as_markdown(tables: Measured) -> list[str]:
    """A heading and a table each; a dash where a row has no such column."""
    lines: list[str] = []
    for title, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        lines += [f"## {title}", "", f"| | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
        for name, row in rows.items():
            lines.append(f"| {name} | {' | '.join(shown(row.get(column), '.3g') for column in columns)} |")
        lines.append("")
    return lines
