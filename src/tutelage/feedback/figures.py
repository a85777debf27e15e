"""A project's quality figures in the store, for all servers: worked out once, by the page or by a job."""

import contextlib
import time
from dataclasses import fields, is_dataclass
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as Db

from tutelage.feedback.breakdown import Row
from tutelage.feedback.habits import Contradictions, FirstShown, Habits, Longer
from tutelage.feedback.jobs import moment
from tutelage.feedback.projects import find_project
from tutelage.feedback.schema import Figures
from tutelage.feedback.shares import Share
from tutelage.feedback.statistics import Labeler, last_number, quality
from tutelage.feedback.store import Store

KIND, TUPLE = "_", "tuple"
KNOWN: dict[str, type] = {
    one.__name__: one for one in (Contradictions, FirstShown, Habits, Labeler, Longer, Row, Share)
}


def work_out(store: Store, project_id: str) -> tuple[int, dict[str, Any], float]:
    """(the number of the last answer, the figures as of it, the seconds that they took)."""
    started = time.monotonic()
    with store.read() as db:
        project = find_project(db, project_id)
        number = last_number(db, project)
        found = quality(db, project)
    return number, found, time.monotonic() - started


def keep(db: Db, project_id: str, number: int, found: dict[str, Any], took: float) -> None:
    """Store figures, unless newer ones are there."""
    row = db.get(Figures, project_id, with_for_update=True)
    if row is None:
        with contextlib.suppress(IntegrityError), db.begin_nested():  # another server may be quicker
            db.add(Figures(project_id=project_id, number=-1, found={}, took=0.0, made=0.0))
        row = db.get_one(Figures, project_id, with_for_update=True, populate_existing=True)
    if number >= row.number:
        row.number, row.found, row.took, row.made = number, packed(found), took, moment(db)


def packed(value: Any) -> Any:
    """As JSON that `unpacked` reads: our dataclasses by their names, and tuples."""
    if is_dataclass(value):
        return {KIND: type(value).__name__, **{one.name: packed(getattr(value, one.name)) for one in fields(value)}}
    if isinstance(value, tuple):
        return {KIND: TUPLE, "of": [packed(one) for one in value]}
    if isinstance(value, list):
        return [packed(one) for one in value]
    if isinstance(value, dict):
        return {name: packed(one) for name, one in value.items()}
    return value.item() if hasattr(value, "item") else value  # numpy's numbers


def unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [unpacked(one) for one in value]
    if not isinstance(value, dict):
        return value
    rest = {name: unpacked(one) for name, one in value.items() if name != KIND}
    kind = value.get(KIND)
    if kind is None:
        return rest
    return tuple(rest["of"]) if kind == TUPLE else KNOWN[kind](**rest)
