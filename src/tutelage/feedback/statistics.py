"""Numbers about the work: how much is left, how long it takes, who does it. Medians over active seconds."""

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from sqlalchemy import and_, case, func, select
from sqlalchemy.orm import Session as Db

from tutelage.feedback.at_size import now_and_then
from tutelage.feedback.breakdown import by_category, categories, over_time
from tutelage.feedback.export import current_answers
from tutelage.feedback.habits import Habits, habits
from tutelage.feedback.quality import (
    LEAST,
    Compared,
    Ranked,
    agreement,
    compare_all,
    gold_accuracy,
    kendall_tau,
    labeler_agreement,
    labeler_figures,
    read_rankings,
    shared_parts,
    weights_of,
)
from tutelage.feedback.queue import my_count
from tutelage.feedback.schema import Answer, Assignment, Person, Project, Task
from tutelage.feedback.screening import screening_state
from tutelage.feedback.shares import Share
from tutelage.feedback.step_agreement import step_agreement

WEEK, PACE = 7 * 86_400.0, 500
FAST = 0.33  # a median under this share of the others' is worth a look


@dataclass
class Mine:
    """A project as one labeler sees it."""

    project: Project
    answered: int
    left: int
    seconds: float | None
    total: float  # active seconds of all work here, idle ones left out
    screening: str  # "", or how far this person is with it


@dataclass
class Progress:
    answers: int = 0
    needed: int = 0
    items: int = 0
    leased: int = 0
    expired: int = 0  # leases that ran out without an answer
    skipped: int = 0
    seconds_left: float | None = None  # at the latest pace; None where too few answers tell it
    by_kind: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        return min(1.0, self.answers / self.needed) if self.needed else 0.0


@dataclass
class Labeler:
    """One person in a project. Every share comes with its interval and the numbers behind it.

    seconds, total: the median item, and all work in the project (gold items, skips, corrections and screening too), in
    active seconds (input within two minutes, page in sight).
    """

    name: str
    answers: int
    skips: int
    seconds: float | None
    total: float
    agreement: Share | None
    gold: Share | None
    weight: float | None
    habits: Habits
    remark: str = ""
    figures: dict[str, Any] = field(default_factory=dict)  # agreement with others beyond chance, and intervals


def my_projects(db: Db, person_id: str) -> list[Mine]:
    rows = []
    for project in db.scalars(select(Project).order_by(Project.created)):
        done, total = my_count(db, project, person_id)
        times = spent(db, project, person_id).get(person_id, Spent())
        state = screening_state(db, project, person_id)
        rows.append(Mine(project, done, total - done, times.median, times.total, state))
    return rows


@dataclass
class Spent:
    """Active seconds of one person: of each item that was answered, with its corrections; and of everything."""

    items: dict[int, float] = field(default_factory=dict)
    total: float = 0.0

    @property
    def median(self) -> float | None:
        return median(self.items.values()) if self.items else None


def spent(db: Db, project: Project, person_id: str | None = None) -> dict[str, Spent]:
    """By person. What a correction took is added to its item; a skip, a gold item and the screening are work too."""
    query = select(Answer.person_id, Answer.task_id, Answer.kind, Answer.seconds, Task.part)
    query = query.join(Task, Task.id == Answer.task_id).where(Answer.project_id == project.id)
    if person_id is not None:
        query = query.where(Answer.person_id == person_id)
    found: dict[str, Spent] = defaultdict(Spent)
    skipped: dict[tuple[str, int], bool] = {}
    for person, task, kind, seconds, part in db.execute(query.order_by(Answer.number)):
        one = found[person]
        one.total += seconds or 0.0
        skipped[person, task] = kind == "skip"  # the last answer says it
        if seconds is not None and not part:
            one.items[task] = one.items.get(task, 0.0) + seconds
    for person, one in found.items():
        one.items = {task: seconds for task, seconds in one.items.items() if not skipped[person, task]}
    return found


def progress(db: Db, project: Project, now: float) -> Progress:
    """A project of many items is counted now and then: its figures may be some seconds old."""
    found = now_and_then(db, (project.id, "progress"), lambda: _progress(db, project, now), lambda one: one.items)
    left = max(found.needed - found.answers, 0)
    return replace(found, seconds_left=_seconds_left(db, project, left, now))


def _progress(db: Db, project: Project, now: float) -> Progress:
    """All of it but the seconds that are left."""
    sums = select(Task.kind, func.sum(Task.filled), func.sum(Task.overlap), func.count())
    kinds = sums.where(Task.project_id == project.id, ~Task.is_gold).group_by(Task.kind)
    by_kind = {kind: tuple(map(int, counts)) for kind, *counts in db.execute(kinds)}
    answers, needed, items = (sum(counts[place] for counts in by_kind.values()) for place in range(3))
    given, live = Assignment.state == "leased", Assignment.expires > now
    states = (and_(given, live), and_(given, ~live), Assignment.state == "skipped")
    counts = select(*[func.count(case((state, 1))) for state in states]).select_from(Assignment).join(Task)
    leased, expired, skipped = tuple(db.execute(counts.where(Task.project_id == project.id, Task.part == "")).one())
    return Progress(
        answers=answers,
        needed=needed,
        items=items,
        leased=leased,
        expired=expired,
        skipped=skipped,
        by_kind={kind: counts[0] for kind, counts in by_kind.items()},
    )


def _seconds_left(db: Db, project: Project, left: int, now: float) -> float | None:
    """Until `left` more places are filled, at the pace of the last PACE answers, none of them older than a week."""
    latest = select(Answer.created).join(Task, Task.id == Answer.task_id).where(Answer.project_id == project.id)
    counted = latest.where(~Task.is_gold, Answer.kind != "skip", ~Answer.extra, Answer.supersedes.is_(None))
    times = [t for t in db.scalars(counted.order_by(Answer.number.desc()).limit(PACE)) if t > now - WEEK]
    span = now - min(times, default=now)
    return left * span / len(times) if left > 0 and len(times) >= LEAST and span >= 60 else None


def labelers(
    db: Db, project: Project, rankings: list[Ranked], compared: list[Compared], known: dict[str, Habits]
) -> list[Labeler]:
    """People who answered in this project, by name. known: habits by id."""
    counts: dict[str, int] = defaultdict(int)
    skips: dict[str, int] = defaultdict(int)
    for answer, _ in current_answers(db, project):
        if answer.kind == "skip":
            skips[answer.person_id] += 1
            continue
        counts[answer.person_id] += 1
    times = spent(db, project)
    beside = labeler_figures(rankings)
    agreed, gold, weights = labeler_agreement(compared), gold_accuracy(db, project), weights_of(rankings)
    names = {person.id: person.name for person in db.scalars(select(Person))}
    medians = {name: value for name, one in times.items() if (value := one.median) is not None}
    rows = []
    for person_id in sorted(counts.keys() | skips.keys(), key=lambda p: names[p].lower()):
        others = [value for name, value in medians.items() if name != person_id]
        own = medians.get(person_id)
        fast = own is not None and others and counts[person_id] >= LEAST and own < FAST * median(others)
        own_habits = known.get(person_id, Habits())
        remarks = [word for word, holds in (("fast", fast), ("differs", own_habits.differs)) if holds]
        rows.append(
            Labeler(
                name=names[person_id],
                answers=counts[person_id],
                skips=skips[person_id],
                seconds=own,
                total=times[person_id].total,
                agreement=agreed.get(person_id),
                gold=gold.get(person_id),
                weight=weights.get(person_id),
                habits=own_habits,
                figures=beside.get(person_id, {}),
                remark=", ".join(remarks),
            )
        )
    return rows


def lowest_agreement(rankings: list[Ranked], most: int = 50) -> list[dict[str, Any]]:
    """Items on which labelers agree least, for a lead to look at."""
    items: dict[int, list[Ranked]] = defaultdict(list)
    for one in rankings:
        items[one.item].append(one)
    scored = []
    for item, group in items.items():
        tau = kendall_tau([[one.ranks for one in group]])
        if not math.isnan(tau):
            scored.append({"item": item, "tau": round(tau, 4), "labelers": len(group)})
    return sorted(scored, key=lambda row: row["tau"])[:most]


def last_number(db: Db, project: Project) -> int:
    """Grows with each answer."""
    return db.scalar(select(func.max(Answer.number)).where(Answer.project_id == project.id)) or 0


def quality(db: Db, project: Project) -> dict[str, Any]:
    """How far labelers agree, by use case and over time, what each one does, and the items on which they differ most."""
    rankings = read_rankings(db, project)
    compared = compare_all(rankings)
    everybody, people = habits(db, project)
    shared = shared_parts(rankings)
    unit, periods = over_time(compared, shared)
    return {
        "agreement": agreement(rankings),
        "categories": by_category(compared, categories(db, project, rankings), shared),
        "period": unit,
        "periods": periods,
        "habits": everybody,
        "labelers": labelers(db, project, rankings, compared, people),
        "lowest": lowest_agreement(rankings),
        "steps": step_agreement(db, project),
    }
