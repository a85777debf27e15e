"""Agreement by the use case of the prompt, and by week or day of the answers."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import Session as Db

from tutelage.feedback import schema
from tutelage.feedback.at_size import in_parts
from tutelage.feedback.quality import Compared, Parts, Ranked, figures
from tutelage.feedback.schema import Project, Task
from tutelage.feedback.shares import Share, resampled

NOT_STATED = "not stated"
DAYS = 21  # where the answers span fewer days, a row is a day


@dataclass(frozen=True)
class Row:
    """A category, a week (its Monday) or a day, and how far labelers agree there; None where no two share a pair.

    figures: agreement beyond chance on its items (kappa, alpha, tau), with intervals.
    """

    name: str
    share: Share | None
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self, key: str) -> dict[str, Any]:
        empty = {"share": None, "ci95": None, "pairs": 0, "items": 0}
        return {key: self.name, **(self.share.to_json() if self.share else empty), **self.figures}


def categories(db: Db, project: Project, rankings: Sequence[Ranked]) -> dict[int, str]:
    """The use case of each ranked item: its prompt's, else the one that most of its labelers chose."""
    prompt = and_(schema.Prompt.project_id == Task.project_id, schema.Prompt.id == Task.prompt_id)
    query = select(Task.id, schema.Prompt.category).join(schema.Prompt, prompt).where(Task.project_id == project.id)
    known: dict[int, str] = {}
    for some in in_parts(one.item for one in rankings):
        known |= {item: name for item, name in db.execute(query.where(Task.id.in_(some))).tuples() if name}
    said: dict[int, Counter[str]] = defaultdict(Counter)
    for one in rankings:
        if one.said:
            said[one.item][one.said] += 1
    chosen = {item: min(names, key=lambda name: (-names[name], name)) for item, names in said.items()}
    return {one.item: known.get(one.item) or chosen.get(one.item, NOT_STATED) for one in rankings}


def by_category(compared: Sequence[Compared], names: Mapping[int, str], shared: Parts | None = None) -> list[Row]:
    """A row a category, the one with the most pairs first. names: by item. shared: of all items."""
    found = _rows(compared, lambda one: names[one.first.item], set(names.values()))
    found = sorted(found, key=lambda row: (-(row.share.n if row.share else 0), row.name))
    return _with_figures(found, names, shared)


def _with_figures(rows: list[Row], names: Mapping[int, str], shared: Parts | None) -> list[Row]:
    """names: the row of each item."""
    if shared is None:
        return rows
    items: dict[str, list[int]] = defaultdict(list)
    for item, name in names.items():
        items[name].append(item)
    parts = [shared.of(items[row.name]) for row in rows]
    found = [figures(one.statistics, len(one)) if len(one) else {} for one in parts]
    beyond = [{k: v for k, v in one.items() if not k.startswith("pair_agreement")} for one in found]
    return [replace(row, figures=one) for row, one in zip(rows, beyond, strict=True)]


def over_time(compared: Sequence[Compared], shared: Parts | None = None) -> tuple[str, list[Row]]:
    """ "week" or "day" (UTC), and its rows in order. Two answers count where the later one, with which they met, lies;
    for figures beyond chance an item counts where its last answer lies."""
    met = [max(one.first.when, one.second.when) for one in compared]
    unit = "week" if met and max(met) - min(met) >= DAYS * 86_400 else "day"

    def of(when: float) -> str:
        day = datetime.fromtimestamp(when, UTC).date()
        return str(day - timedelta(days=day.weekday()) if unit == "week" else day)

    last: dict[int, float] = defaultdict(float)
    for one, when in zip(compared, met, strict=True):
        last[one.first.item] = max(last[one.first.item], when)
    rows = _rows(compared, lambda one: of(max(one.first.when, one.second.when)), set())
    rows.sort(key=lambda row: row.name)
    return unit, _with_figures(rows, {item: of(when) for item, when in last.items()}, shared)


def _rows(compared: Sequence[Compared], key: Callable[[Compared], str], besides: set[str]) -> list[Row]:
    """Shares by key, and empty rows for the keys `besides` that no pair has."""
    counts: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for one in compared:
        of_item = counts[key(one)][one.first.item]
        of_item[0] += one.alike
        of_item[1] += one.pairs
    rows = []
    for name in counts.keys() | besides:
        hits, pairs = zip(*counts[name].values(), strict=True) if name in counts else ((), ())
        rows.append(Row(name, resampled(hits, pairs)))
    return rows
