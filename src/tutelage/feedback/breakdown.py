"""Agreement by the use case of the prompt, and by week or day of the answers."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import Session as Db

from tutelage.feedback import schema
from tutelage.feedback.at_size import in_parts
from tutelage.feedback.quality import Compared, Ranked
from tutelage.feedback.schema import Project, Task
from tutelage.feedback.shares import Share, resampled

NOT_STATED = "not stated"
DAYS = 21  # where the answers span fewer days, a row is a day


@dataclass(frozen=True)
class Row:
    """A category, a week (its Monday) or a day, and how far labelers agree there; None where no two share a pair."""

    name: str
    share: Share | None

    def to_json(self, key: str) -> dict[str, Any]:
        empty = {"share": None, "ci95": None, "pairs": 0, "items": 0}
        return {key: self.name, **(self.share.to_json() if self.share else empty)}


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


def by_category(compared: Sequence[Compared], names: Mapping[int, str]) -> list[Row]:
    """A row a category, the one with the most pairs first. names: by item."""
    found = _rows(compared, lambda one: names[one.first.item], set(names.values()))
    return sorted(found, key=lambda row: (-(row.share.n if row.share else 0), row.name))


def over_time(compared: Sequence[Compared]) -> tuple[str, list[Row]]:
    """ "week" or "day" (UTC), and its rows in order. Two answers count where the later one, with which they met, lies."""
    met = [max(one.first.when, one.second.when) for one in compared]
    unit = "week" if met and max(met) - min(met) >= DAYS * 86_400 else "day"

    def period(one: Compared) -> str:
        day = datetime.fromtimestamp(max(one.first.when, one.second.when), UTC).date()
        return str(day - timedelta(days=day.weekday()) if unit == "week" else day)

    return unit, sorted(_rows(compared, period, set()), key=lambda row: row.name)


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
