"""A project's quality figures for the lead's pages, kept and worked out anew when answers came."""

import threading
import time
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tutelage.feedback.breakdown import Row
from tutelage.feedback.projects import find_project
from tutelage.feedback.quality import LEAST
from tutelage.feedback.statistics import last_number, quality
from tutelage.feedback.store import Store
from tutelage.report.svg import Dot, dot_panel

PAPER_AGREEMENT = 0.726  # Ouyang et al. 2022, section 3.4
SHOWN = 26  # periods: half a year of weeks; the command line has all
WIDTH, LONGEST = 440, 22  # of a figure in its units, and of a label in characters
AT_ONCE = 0.05  # seconds of work that a page may wait for
SHARE = 60  # at most one second in so many goes to resampling: fewer than one page in twenty meets it


@dataclass(frozen=True)
class Quality:
    """Figures as of an answer's number, and the seconds that they took."""

    number: int
    found: dict[str, Any]
    when: float
    took: float


class Figures:
    """Resampling takes a second on thousands of answers: a page then shows the last figures, while new ones are made."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, Quality] = {}
        self._busy: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def of(self, project_id: str) -> dict[str, Any]:
        """The figures as of now or, where they take long and were known before, as of a little earlier."""
        known = self._known.get(project_id)
        if known is None or known.took < AT_ONCE:
            return self._work_out(project_id).found
        if time.monotonic() - known.when > SHARE * known.took:
            self._begin(project_id)
        return known.found

    def _begin(self, project_id: str) -> None:
        with self._lock:
            busy = self._busy.get(project_id)
            if busy is None or not busy.is_alive():
                work = threading.Thread(target=self._work_out, args=(project_id,), daemon=True, name="quality")
                self._busy[project_id] = work
                work.start()

    def _work_out(self, project_id: str) -> Quality:
        started = time.monotonic()
        known = self._known.get(project_id)
        with self.store.read() as db:
            project = find_project(db, project_id)
            number = last_number(db, project)
            if known is not None and known.number == number:
                return known
            found = quality(db, project)
        self._known[project_id] = Quality(number, found, started, time.monotonic() - started)
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
    gutter = 24 + 7 * max(len(dot.label) for dot in dots)
    # Escaped piece by piece in report.svg.
    return Markup(dot_panel(dots, title, reference=(PAPER_AGREEMENT, "72.6 %"), width=WIDTH, gutter=gutter))


def _label(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
