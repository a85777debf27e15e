"""Rankings that were made elsewhere, stored as answers of the labelers who made them."""

import hashlib
import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as Db

from tutelage.errors import UserError
from tutelage.feedback import people
from tutelage.feedback.at_size import in_parts
from tutelage.feedback.intake import MOST, Imported, add_completions, add_prompts, add_tasks, task_row
from tutelage.feedback.ranking import CATEGORIES, shown_cards
from tutelage.feedback.reading import refuse
from tutelage.feedback.schema import Answer, Assignment, Project, Task
from tutelage.records import Comparison, Completion, Prompt

Named = tuple[Comparison, str]  # a ranking, and who made it


def import_answers(
    db: Db, project: Project, comparisons: Iterable[Comparison], labeler: str = "", done: Imported | None = None
) -> Imported:
    """Each becomes an answer to an item of its completions. The same file again adds nothing; another ranking of the
    same item by the same labeler supersedes the earlier.

    labeler: whose they are where a row names nobody. A labeler is an account that nobody signs in to.
    """
    done = done or Imported(where="answers")
    named = [(one, name) for one in comparisons if (name := _checked(one, labeler, done)) is not None]
    prompts = {one.prompt_id: _prompt(one) for one, _ in named}
    texts = {
        name: Completion(id=name, prompt_id=one.prompt_id, text=text)
        for one, _ in named
        for name, text in zip(one.completion_ids, one.completions or [], strict=True)
    }
    known = add_prompts(db, project, list(prompts.values()), done)
    add_completions(db, project, list(texts.values()), known, done)
    ids = _labelers(db, named, done)
    refuse(done.faults, done.where)
    rows = [task_row(project, one.prompt_id, "rank", one.completion_ids) for one, _ in named]
    add_tasks(db, project, rows, done)
    keys = [row["key"] for row in rows]
    # Locked: nobody fills a place of these items meanwhile (PostgreSQL; SQLite has one writer anyway).
    query = select(Task).filter_by(project_id=project.id, kind="rank").with_for_update()
    tasks = {one.key: one for some in in_parts(sorted(keys)) for one in db.scalars(query.where(Task.key.in_(some)))}
    _append(db, project, [(one, ids[name], tasks[key]) for (one, name), key in zip(named, keys, strict=True)], done)
    return done


def _checked(one: Comparison, labeler: str, done: Imported) -> str | None:
    """Who made the ranking; None where it cannot be an answer, which is noted."""
    if len(set(one.completions or [])) < 2:
        done.left_out.append(f"{done.places.get((one.schema_name, one.id), one.id)}: all its answers are equal")
        return None
    if len(one.completion_ids) > MOST:
        done.blame(one, f"ranks {len(one.completion_ids)} answers", f"rank {MOST} at most", "completions")
        return None
    name = " ".join((one.labeler or labeler).split())
    if not name:
        done.blame(one, "names no labeler", "add the field `labeler`, or say whose they are with --labeler", "labeler")
        return None
    return name


def _prompt(one: Comparison) -> Prompt:
    return Prompt(id=one.prompt_id, messages=one.messages or [], category=one.category)


def _labelers(db: Db, named: Iterable[Named], done: Imported) -> dict[str, str]:
    """The account of each name; a name that cannot be one is a fault of the row that has it first."""
    ids: dict[str, str] = {}
    for one, name in named:
        if name not in ids:
            try:
                ids[name] = people.program(db, name).id
            except UserError as error:
                ids[name] = ""
                done.blame(one, f"labeler {name!r}: {error.what}", error.mend or "", "labeler")
    return ids


def _append(db: Db, project: Project, given: list[tuple[Comparison, str, Task]], done: Imported) -> None:
    last: dict[tuple[int, str], Answer] = {}
    assignments: dict[tuple[int, str], Assignment] = {}
    for some in in_parts(task.id for _, _, task in given):
        answers = db.scalars(select(Answer).where(Answer.task_id.in_(some)).order_by(Answer.number))
        last |= {(row.task_id, row.person_id): row for row in answers}
        rows = db.scalars(select(Assignment).where(Assignment.task_id.in_(some)))
        assignments |= {(row.task_id, row.person_id): row for row in rows}
    stored: set[str] = set()
    for names in in_parts(_answer_id(project, one, person_id) for one, person_id, _ in given):
        stored |= set(db.scalars(select(Answer.id).where(Answer.id.in_(names))))
    for one, person_id, task in given:
        name = _answer_id(project, one, person_id)
        if name in stored:
            continue
        stored.add(name)
        place, created = (task.id, person_id), _when(one)
        before = last.get(place)
        counted = before is not None and before.kind != "skip" and not before.extra
        extra = not counted and task.filled >= task.overlap
        payload, shown = _as_answer(one, task)
        answer = Answer(
            id=name,
            project_id=project.id,
            task_id=task.id,
            person_id=person_id,
            kind="rank",
            payload=payload,
            shown=shown,
            effort=one.effort or {},
            seconds=one.seconds,
            extra=extra,
            created=created,
            supersedes=before.id if before else None,
        )
        db.add(answer)
        last[place] = answer
        task.filled += int(not extra) - int(counted)
        task.open = task.filled < task.overlap
        if place not in assignments:
            texts = dict(zip(one.completion_ids, one.completions or [], strict=True))
            cards = shown_cards([texts[name] for name in task.completions], project.seed, task.key, person_id)
            assignments[place] = Assignment(
                task_id=task.id, person_id=person_id, shown={"cards": cards}, leased=created, expires=created
            )
            db.add(assignments[place])
        assignments[place].state = "answered"
        done.answers += 1
    db.flush()


def _answer_id(project: Project, one: Comparison, person_id: str) -> str:
    content = json.dumps([project.id, person_id, one.id])
    return f"in-{hashlib.blake2b(content.encode(), digest_size=16).hexdigest()}"


def _as_answer(one: Comparison, task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
    """(payload, shown) with all that goes by completion in the order of the item's, which may be another."""
    free = {name: [i for i, other in enumerate(one.completion_ids) if other == name] for name in task.completions}
    source = [free[name].pop(0) for name in task.completions]

    def moved(values: list[Any] | None) -> list[Any] | None:
        return None if values is None else [values[i] for i in source]

    payload = {
        "ranks": moved(one.ranks),
        "rest_below": bool(one.rest_below),
        "all_bad": bool(one.all_bad),
        "ratings": moved(one.ratings),
        "flags": moved(one.flags),
        "category": one.category if one.category in CATEGORIES else None,
        "note": one.note or "",
    }
    order = (one.shown or {}).get("order")
    whole = isinstance(order, list) and all(isinstance(i, int) for i in order) and sorted(order) == sorted(source)
    return payload, {"order": [source.index(i) for i in order], "layout": "cards"} if whole and order else {}


def _when(one: Comparison) -> float:
    """When it was made, if the row says it; else now."""
    try:
        made = datetime.fromisoformat(one.created or "")
    except ValueError:
        return time.time()
    return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
