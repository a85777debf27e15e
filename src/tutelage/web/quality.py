"""A project's quality figures for the lead's pages: of the store, and worked out anew when answers came."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session as Db

from tutelage.feedback import figures, jobs
from tutelage.feedback.breakdown import Row
from tutelage.feedback.projects import find_project
from tutelage.feedback.quality import LEAST
from tutelage.feedback.schema import Figures as Stored
from tutelage.feedback.statistics import last_number
from tutelage.feedback.store import Store
from tutelage.report.svg import Dot, dot_panel

PAPER_AGREEMENT = 0.726  # Ouyang et al. 2022, section 3.4
SHOWN = 26  # periods: half a year of weeks; the command line has all
WIDTH, LONGEST = 440, 22  # of a figure in its units, and of a label in characters
AT_ONCE = 0.05  # seconds of work that a page may wait for
SHARE = 60  # at most one second in so many goes to resampling: fewer than one page in twenty meets it


@dataclass(frozen=True)
class Quality:
    """Figures as of an answer's number, the seconds that they took, and when they were made."""

    number: int
    found: dict[str, Any]
    took: float
    made: float


class Figures:
    """Resampling takes a second on thousands of answers: a page then shows the last figures, while a job makes new ones."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, Quality] = {}  # as they are in the store or, where they are made quickly, newer

    def of(self, project_id: str) -> dict[str, Any]:
        """The figures as of now or, where they take long and were known before, as of a little earlier."""
        with self.store.read() as db:
            known = self._newest(db, project_id)
            now = jobs.moment(db)
            slow = known is not None and known.took >= AT_ONCE
            if known is not None and slow and now - known.made <= SHARE * known.took:
                return known.found
            news = known is None or known.number != last_number(db, find_project(db, project_id))
        if known is None or (news and not slow):
            return self._work_out(project_id, now).found
        if news:
            with self.store.write() as db:
                jobs.put(db, "quality", project_id, {})
        return known.found

    def _newest(self, db: Db, project_id: str) -> Quality | None:
        known = self._known.get(project_id)
        number = db.scalar(select(Stored.number).filter_by(project_id=project_id))
        if number is not None and (known is None or number > known.number):
            row = db.get_one(Stored, project_id)
            known = Quality(row.number, figures.unpacked(row.found), row.took, row.made)
            self._known[project_id] = known
        return known

    def _work_out(self, project_id: str, now: float) -> Quality:
        number, found, took = figures.work_out(self.store, project_id)
        if took >= AT_ONCE:  # for the other servers, and for this one when it starts anew
            with self.store.write() as db:
                figures.keep(db, project_id, number, found, took)
        self._known[project_id] = Quality(number, found, took, now)
        return self._known[project_id]


def agreement_charts(found: dict[str, Any]) -> list[tuple[str, Markup, list[Row]]]:
    """(what the rows are, the figure, its rows) of the agreement by use case and by week or day."""
    periods = found["periods"][-SHOWN:]
    return [
        (what, _dots(rows, f"Agreement by {what}, with 95 % intervals; the numbers are in the table below"), rows)
        for what, rows in (("use case", found["categories"]), (found["period"], periods))
        if any(row.share is not None for row in rows)
    ]


def _dots(rows: list[Row], title: str) -> Markup:
    dots = [
        Dot(_label(row.name), row.share.value, row.share.ci95, "s-sft", hollow=row.share.items < LEAST)
        for row in rows
        if row.share is not None
    ]
    # Escaped piece by piece in report.svg.
    return Markup(dot_panel(dots, title, reference=(PAPER_AGREEMENT, "72.6 %"), width=WIDTH))


def _label(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
