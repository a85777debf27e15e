"""Methods beside each other in one study: gold win rate and KL from the same baseline, behaviors, time, memory, labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.studies.measures import Cell, over_seeds, shown
from tutelage.studies.schema import Methods

# Column → the measure, in which {name} and {baseline} are put in.
COLUMNS: dict[str, dict[str, Any]] = {
    "win": {"win_rate": ["{name}", "{baseline}"], "by": "gold"},
    "people": {"win_rate": ["{name}", "{baseline}"], "by": "held-out-labelers"},
    "instructions": {"behavior": "instruction_following", "of": "{name}"},
    "harm": {"behavior": "harmful_compliance", "of": "{name}"},
    "over_refusal": {"behavior": "over_refusal", "of": "{name}"},
    "sycophancy": {"behavior": "sycophancy", "of": "{name}"},
    "words": {"behavior": "words", "of": "{name}"},
    "corpus_loss": {"corpus_loss": "{name}"},
}
TITLES = {
    "win": "wins over {baseline} (gold)",
    "people": "by held-out labelers",
    "kl": "KL, nats an answer",
    "instructions": "instructions followed",
    "harm": "harmful compliance",
    "over_refusal": "over-refusal",
    "sycophancy": "wrong opinions agreed with",
    "words": "words",
    "corpus_loss": "corpus loss",
    "seconds": "seconds",
    "seconds_in_all": "with what it needs",
    "gib": "GiB at the peak",
    "labels": "labels learned from",
}


def compare_methods(methods: Methods, cells: Sequence[tuple[Any, Cell]]) -> dict[str, list[dict[str, Any]]]:
    """Value of what was varied → a row a method, each column a mean over seeds with its interval.

    The baseline comes first; a method's time and memory count its own stage, time in a second column what it needs too.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for value in dict.fromkeys(value for value, _ in cells):
        same = [cell for one, cell in cells if one == value]
        names = [methods.baseline, *methods.needs]
        rows = [[_measured(methods, name, cell) for cell in same] for name in names]
        found[str(value)] = [
            {"method": name, **{column: over_seeds([row[column] for row in seeds]) for column in TITLES}}
            for name, seeds in zip(names, rows, strict=True)
        ]
    return found


def _measured(methods: Methods, name: str, cell: Cell) -> dict[str, float | None]:
    baseline = name == methods.baseline
    row: dict[str, float | None] = {}
    for column, template in COLUMNS.items():
        measure = {key: _filled(value, name, methods.baseline) for key, value in template.items()}
        row[column] = None if baseline and "win_rate" in measure else cell.measure({**measure, "stage": methods.stage})
    row["kl"] = cell.results[methods.stage]["kl"].get(name, {}).get("value")
    stages = [cell.results[stage] for stage in methods.needs.get(name, [name])]
    seconds = [stage["seconds"] for stage in stages]
    row["seconds"], row["seconds_in_all"] = (seconds[-1], sum(seconds)) if seconds else (None, None)
    row["gib"] = stages[-1]["peak_rss_bytes"] / 2**30 if stages else None
    row["labels"] = max((stage.get("comparisons", 0) for stage in stages), default=0)  # its stages share the same ones
    return row


def _filled(value: Any, name: str, baseline: str) -> Any:
    if isinstance(value, list):
        return [_filled(one, name, baseline) for one in value]
    return value.format(name=name, baseline=baseline)


def as_markdown(methods: Methods, table: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """A table for each value of what was varied; intervals where they decide, at the win rate."""
    lines: list[str] = []
    heads = [title.format(baseline=methods.baseline) for title in TITLES.values()]
    for value, rows in table.items():
        lines += [f"## {value}", "", "| method | " + " | ".join(heads) + " |", "|" + "---|" * (len(heads) + 1)]
        for row in rows:
            lines.append(
                f"| {row['method']} | " + " | ".join(shown(row[c], ".3g", ends=c == "win") for c in TITLES) + " |"
            )
        lines.append("")
    return lines
