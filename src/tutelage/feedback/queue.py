"""Who answers what next: leases that expire, `overlap` answers a task by as many people, gold items mixed in.

A person gets a task at most once. A lease that ran out frees its place for others; the person may still answer,
and the answer is kept as an `extra` one if the quota was filled meanwhile.
"""

import hashlib
import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import and_, case, exists, func, or_, select, update
from sqlalchemy.orm import Session as Db
from sqlalchemy.orm import aliased

from tutelage.data.formats import read_rows
from tutelage.errors import UserError
from tutelage.feedback import schema
from tutelage.feedback.at_size import now_and_then
from tutelage.feedback.ranking import LETTERS, shown_cards
from tutelage.feedback.schema import Answer, Assignment, Draft, Person, Project, Task
from tutelage.feedback.screening import admission_of, must_screen, start_screening

# A task's row while its places are counted: others may still write what points to it (drafts, leases of their own).
LOCKED = {"key_share": True}


class Refused(Exception):
    """A request about a task that this person may not make."""


@dataclass
class Work:
    """A task as one person sees it. `cards` lists the places of completions behind each letter."""

    task: Task
    assignment: Assignment
    project: Project
    prompt: schema.Prompt
    texts: list[str]
    finishes: list[str]
    draft: Draft | None
    answer: Answer | None

    @property
    def cards(self) -> list[list[int]]:
        return self.assignment.shown.get("cards", [])

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.cards)]

    @property
    def rating(self) -> str:
        """Of which answers quality is asked (schema.RATINGS); a screening asks for orders only."""
        return self.project.rating if self.task.part == "" else "optional"


MOST_HELD = 10  # items that one person may have at once
FOR_EACH = 4  # items that stay for everybody else while one takes several


def lease_next(
    db: Db, project: Project, person_id: str, now: float | None = None, *, besides: Collection[int] = ()
) -> Task | None:
    """The task that this person is to do now; one already leased to them comes first.

    besides: what they do or have at hand already; another one then, past the second only while enough is left for all.
    """
    now = time.time() if now is None else now
    if project.paused:
        return None
    screened = must_screen(db, project, person_id)
    if screened and start_screening(db, project, person_id, now).state != "open":
        return None
    held = db.scalar(
        select(Task)
        .join(Assignment)
        .where(Task.part == ("test" if screened else ""))
        .where(Task.project_id == project.id, Assignment.person_id == person_id, Assignment.state == "leased")
        .where(Assignment.expires > now, Task.id.not_in(besides))
        .order_by(Assignment.leased)
        .limit(1)
    )
    task = held or _another(db, project, person_id, now, besides, screened)
    if task is not None:
        _lease(db, project, task, person_id, now)
    return task


def _another(
    db: Db, project: Project, person_id: str, now: float, besides: Collection[int], screened: bool
) -> Task | None:
    if len(besides) > MOST_HELD:
        return None
    if screened:
        return _next_test(db, project, person_id)
    if len(besides) > 1 and not _enough_for_all(db, project, now):
        return None
    return _next_gold(db, project, person_id) or _next_open(db, project, person_id, now, besides)


def _enough_for_all(db: Db, project: Project, now: float) -> bool:
    """Whether everybody with an account could still take FOR_EACH open items."""
    account = select(func.count()).select_from(Person).where(Person.active, Person.password.is_not(None))
    wanted = FOR_EACH * max(db.scalar(account) or 0, 1)
    free = select(Task.id).where(Task.project_id == project.id, Task.is_gold.is_(False), Task.open.is_(True))
    found = free.where(_has_room(now)).limit(wanted + 1).subquery()
    return (db.scalar(select(func.count()).select_from(found)) or 0) > wanted


def _has_room(now: float) -> Any:
    """Of a task: whether its places are not all answered or leased."""
    other = aliased(Assignment)
    leased = select(func.count()).where(other.task_id == Task.id, other.state == "leased", other.expires > now)
    return Task.filled + leased.select_from(other).scalar_subquery() < Task.overlap


def _mine(person_id: str) -> Any:
    return exists().where(Assignment.task_id == Task.id, Assignment.person_id == person_id)


def _next_test(db: Db, project: Project, person_id: str) -> Task | None:
    """Rankings first, then texts to flag, then texts to write, each in the order of the file."""
    order = case({"rank": 0, "flag": 1}, value=Task.kind, else_=2)
    query = select(Task).where(Task.project_id == project.id, Task.is_gold, Task.part == "test", ~_mine(person_id))
    return db.scalar(query.order_by(order, Task.id).limit(1))


def _next_gold(db: Db, project: Project, person_id: str) -> Task | None:
    if not project.gold_every:
        return None
    given = select(func.count(), func.count(case((Task.is_gold, 1)))).select_from(Assignment)
    mine = given.join(Task, Task.id == Assignment.task_id).where(Assignment.person_id == person_id, Task.part == "")
    items, of_gold = db.execute(mine.where(Task.project_id == project.id)).one()  # those at hand too
    if items - of_gold < gold_due(project, person_id, of_gold):
        return None
    query = select(Task).where(Task.project_id == project.id, Task.is_gold, Task.part == "", ~_mine(person_id))
    return db.scalar(query.order_by(Task.id).limit(1))


def gold_due(project: Project, person_id: str, given: int) -> int:
    """After how many other items the next gold one comes to a person who was given so many.

    One comes with each `gold_every` others, at a place among them drawn for the person: nobody knows it by counting.
    """
    drawn = hashlib.blake2b(repr((project.seed, project.id, person_id, given)).encode(), digest_size=8).digest()
    return project.gold_every * given + 1 + int.from_bytes(drawn, "little") % project.gold_every


def _next_open(db: Db, project: Project, person_id: str, now: float, besides: Collection[int]) -> Task | None:
    """The open task of highest priority that is not this person's and whose places are not all leased."""
    has_room = _has_room(now)
    mine = exists().where(
        and_(Assignment.task_id == Task.id, Assignment.person_id == person_id, Assignment.state != "leased")
    )
    query = (
        select(Task)
        .where(Task.project_id == project.id, Task.is_gold.is_(False), Task.open.is_(True), ~mine)
        .where(has_room)
        .order_by(Task.behind, Task.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Task, **LOCKED)
    )
    passed = list(besides)
    while (task := db.scalar(query.where(Task.id.not_in(passed)))) is not None:
        # On PostgreSQL a place may have been taken after the query began and before the lock: look again under it.
        if db.scalar(select(Task.id).where(Task.id == task.id, has_room)) is not None:
            return task
        passed.append(task.id)
    return None


def _lease(db: Db, project: Project, task: Task, person_id: str, now: float) -> Assignment:
    assignment = db.scalar(select(Assignment).filter_by(task_id=task.id, person_id=person_id))
    if assignment is None:
        shown: dict[str, Any] = {}
        if task.kind == "rank":
            cards = shown_cards(_texts(db, task)[0], project.seed, task.key, person_id)
            shown = {"cards": cards}
        assignment = Assignment(
            task_id=task.id, person_id=person_id, state="leased", shown=shown, leased=now, expires=0
        )
        db.add(assignment)
    if assignment.state == "leased":
        assignment.expires = now + project.lease_seconds
    db.flush()
    return assignment


def _texts(db: Db, task: Task) -> tuple[list[str], list[str]]:
    query = select(schema.Completion.id, schema.Completion.text, schema.Completion.finish)
    found = {
        name: (text, finish)
        for name, text, finish in db.execute(
            query.where(schema.Completion.project_id == task.project_id, schema.Completion.id.in_(task.completions))
        )
    }
    return [found[name][0] for name in task.completions], [found[name][1] for name in task.completions]


def given_to(db: Db, task_id: int, person_id: str) -> tuple[Task, Assignment, Project]:
    """A task that was given to this person; Refused where it was not."""
    query = select(Task, Assignment, Project).join(Assignment).join(Project, Project.id == Task.project_id)
    found = db.execute(query.where(Task.id == task_id, Assignment.person_id == person_id)).first()
    if found is None:
        raise Refused("This item was not given to you.")
    return found.tuple()


def work_on(db: Db, task_id: int, person_id: str) -> Work:
    """A task that was given to this person, with all that the page shows."""
    task, assignment, project = given_to(db, task_id, person_id)
    prompt = db.get(schema.Prompt, (task.project_id, task.prompt_id))
    assert prompt is not None  # a foreign key
    texts, finishes = _texts(db, task)
    draft = db.get(Draft, (task_id, person_id))
    return Work(task, assignment, project, prompt, texts, finishes, draft, last_answer(db, task_id, person_id))


def last_answer(db: Db, task_id: int, person_id: str) -> Answer | None:
    """The answer that no later one supersedes."""
    query = select(Answer).filter_by(task_id=task_id, person_id=person_id)
    return db.scalar(query.order_by(Answer.number.desc()).limit(1))


def renew(db: Db, task_id: int, person_id: str, now: float | None = None) -> str:
    """Prolong a lease: "kept", "free" (it had ended, and is this person's again) or "filled" (others finished it)."""
    return _renew(db, *given_to(db, task_id, person_id), time.time() if now is None else now)


def _renew(db: Db, task: Task, assignment: Assignment, project: Project, now: float) -> str:
    if assignment.state != "leased" or assignment.expires > now:
        if assignment.state == "leased":
            assignment.expires = now + project.lease_seconds
        return "kept"
    db.refresh(task, with_for_update=LOCKED)  # nobody takes a place meanwhile
    if not task.is_gold and task.filled + _leased_by_others(db, assignment, now) >= task.overlap:
        return "filled"
    assignment.expires = now + project.lease_seconds
    return "free"


def _leased_by_others(db: Db, mine: Assignment, now: float) -> int:
    query = select(func.count()).select_from(Assignment).where(Assignment.task_id == mine.task_id)
    others = query.where(Assignment.person_id != mine.person_id)
    return db.scalar(others.where(Assignment.state == "leased", Assignment.expires > now)) or 0


def save_draft(db: Db, task_id: int, person_id: str, revision: int, payload: dict[str, Any]) -> int:
    """The new revision number. A draft made from another revision than the stored one is refused."""
    given = given_to(db, task_id, person_id)
    draft = db.get(Draft, (task_id, person_id))
    if draft is None:
        draft = Draft(task_id=task_id, person_id=person_id, revision=0, payload={}, updated=0)
        db.add(draft)
    if draft.revision != revision:
        raise Refused("This item is open in another tab, which saved later.")
    draft.revision, draft.payload, draft.updated = revision + 1, payload, time.time()
    _renew(db, *given, time.time())
    return draft.revision


def submit(
    db: Db,
    answer_id: str,
    task_id: int,
    person_id: str,
    kind: str,
    payload: dict[str, Any],
    *,
    effort: dict[str, Any] | None = None,
    seconds: float | None = None,
    now: float | None = None,
    work: Work | None = None,
) -> Answer:
    """Append an answer; the same id again returns the stored one. A later answer to a task supersedes the earlier.

    work: the task as it was read in this transaction; read here when not given.
    """
    now = time.time() if now is None else now
    stored = db.scalar(select(Answer).filter_by(id=answer_id))
    if stored is not None:
        if (stored.task_id, stored.person_id) != (task_id, person_id):
            raise Refused("An answer with this number exists already.")
        return stored
    work = work or work_on(db, task_id, person_id)
    if kind not in (work.task.kind, "skip"):
        raise Refused(f"This item asks for {work.task.kind}.")
    if work.task.part == "test" and getattr(admission_of(db, work.project.id, person_id), "state", "") != "open":
        raise Refused("Your screening was handed in.")
    db.refresh(work.task, with_for_update=LOCKED)  # on PostgreSQL others may count `filled` now
    before, task = last_answer(db, task_id, person_id), work.task  # not work's: another tab may have answered meanwhile
    if before is not None and before.id == answer_id:
        return before
    counted = before is not None and before.kind != "skip" and not before.extra
    extra = kind != "skip" and not counted and not task.is_gold and task.filled >= task.overlap
    answer = Answer(
        id=answer_id,
        project_id=task.project_id,
        task_id=task_id,
        person_id=person_id,
        kind=kind,
        payload=payload,
        shown=shown_record(work),
        effort=effort or {},
        seconds=None if seconds is None else round(min(max(seconds, 0.0), now - work.assignment.leased), 1),
        extra=extra,
        created=now,
        supersedes=before.id if before else None,
    )
    db.add(answer)
    if not task.is_gold:
        task.filled += int(kind != "skip" and not extra) - int(counted)
        task.open = task.filled < task.overlap
    work.assignment.state = "skipped" if kind == "skip" else "answered"
    if work.draft is not None:
        db.delete(work.draft)
    db.flush()
    return answer


def shown_record(work: Work) -> dict[str, Any]:
    """What the labeler saw: the order of completions, and which shared a card."""
    if not work.cards:
        return {}
    order = [place for card in work.cards for place in card]
    merged = [card for card in work.cards if len(card) > 1]
    return {"order": order, "layout": "cards", **({"merged": merged} if merged else {})}


def history(db: Db, project_id: str, person_id: str, limit: int = 50) -> list[Answer]:
    """A person's latest answers, one for each task, newest first. What was said in a chat is on no list of theirs."""
    given = exists().where(Assignment.task_id == Answer.task_id, Assignment.person_id == person_id)
    return list(db.scalars(_latest(select(Answer).where(given), project_id, person_id, limit)))


def answered(db: Db, project_id: str, person_id: str, limit: int = 200) -> list[int]:
    """The tasks of a person's latest answers, newest first."""
    return list(db.scalars(_latest(select(Answer.task_id), project_id, person_id, limit)))


def _latest(query: Any, project_id: str, person_id: str, limit: int) -> Any:
    later = aliased(Answer)
    superseded = exists().where(later.supersedes == Answer.id)
    query = query.where(Answer.project_id == project_id, Answer.person_id == person_id, ~superseded)
    return query.order_by(Answer.number.desc()).limit(limit)


def my_count(db: Db, project: Project, person_id: str) -> tuple[int, int]:
    """Items that this person has done, and those with the ones they may still get."""
    screened = must_screen(db, project, person_id)
    plain = and_(Task.is_gold, Task.part == "test") if screened else and_(Task.is_gold.is_(False), Task.open.is_(True))
    mine = select(func.count(), func.count(case((plain, 1)))).select_from(Assignment)
    mine = mine.join(Task, Task.id == Assignment.task_id).where(Task.project_id == project.id)
    mine = mine.where(Assignment.person_id == person_id, Assignment.state != "leased")
    mine = mine.where(Task.part == ("test" if screened else ""))
    done, done_and_open = db.execute(mine).one()
    every = select(func.count()).select_from(Task).where(Task.project_id == project.id, plain)
    name = (project.id, "tests" if screened else "open")
    still_open = now_and_then(db, name, lambda: db.scalar(every) or 0, lambda found: found)
    return done, done + max(still_open - done_and_open, 0)


def set_overlap(db: Db, project: Project, overlap: int) -> int:
    """Let so many people answer each item that is there, too: finished ones open again, or close. How many changed."""
    asked = or_(Task.filled == 0, exists().where(Assignment.task_id == Task.id))  # not what was said in a chat
    items = (Task.project_id == project.id, Task.is_gold.is_(False), Task.overlap != overlap, asked)
    changed = update(Task).where(*items).values(overlap=overlap, open=Task.filled < overlap)
    return db.execute(changed, execution_options={"synchronize_session": False}).rowcount  # type: ignore[attr-defined]


def set_priorities(db: Db, project: Project, priorities: dict[str, float]) -> int:
    """Items of these prompts come in this order (high first), for example by a reward model's uncertainty."""
    tasks = db.execute(select(Task.id, Task.prompt_id).where(Task.project_id == project.id)).tuples()
    changed = [{"id": number, "behind": -priorities[name]} for number, name in tasks if name in priorities]
    if not changed:
        raise UserError(
            "no item has these prompts", where=f"project {project.id}", mend="give prompt ids of the project"
        )
    db.execute(update(Task), changed)
    return len(changed)


def read_priorities(path: Path) -> dict[str, float]:
    """Rows of {"prompt_id": …, "priority": …}."""
    found: dict[str, float] = {}
    for number, row in read_rows(path):
        name, value = row.get("prompt_id"), row.get("priority")
        numeric = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not isinstance(name, str) or not numeric:
            raise UserError(
                "is no priority", where=f"{path}, row {number}", mend='give {"prompt_id": "…", "priority": 0.7}'
            )
        found[name] = float(value)  # type: ignore[arg-type]
    return found
