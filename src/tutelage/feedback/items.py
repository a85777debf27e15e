"""A project's items for a lead to look through: what was written and judged, what was skipped and why.

Orders of answers are left out: a lead who settles an item orders it before seeing what others said.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import String, and_, cast, exists, func, select
from sqlalchemy.orm import Session as Db
from sqlalchemy.orm import aliased

from tutelage.feedback import schema
from tutelage.feedback.answers import SKIP_REASONS
from tutelage.feedback.schema import Answer, Person, Project, Task

SHOWN = {
    "all": "all items",
    "open": "not finished yet",
    "skipped": "skipped by somebody",
    "written": "written answers",
    "judged": "judged steps",
    "gold": "gold items",
}
PAGE = 25
WORDS = {1: "right", 0: "neutral", -1: "wrong"}
LONGEST = 2_000  # characters of a text that the list shows


@dataclass(frozen=True)
class Said:
    """What one person answered; ranked items have none of these."""

    who: str
    text: str


@dataclass(frozen=True)
class Item:
    task: Task
    prompt: str
    said: list[Said]


def find_items(db: Db, project: Project, show: str = "all", words: str = "", page: int = 1) -> tuple[list[Item], bool]:
    """One page of items in their order, and whether there are more. words: stand in the prompt."""
    same = and_(schema.Prompt.project_id == Task.project_id, schema.Prompt.id == Task.prompt_id)
    query = select(Task, schema.Prompt.messages).join(schema.Prompt, same)
    query = query.where(Task.project_id == project.id, Task.part == "", *_filters(show))
    if words:
        stored = json.dumps(words.lower())[1:-1]  # as the column holds text: other letters than ASCII are escaped
        query = query.where(func.lower(cast(schema.Prompt.messages, String)).contains(stored, autoescape=True))
    rows = db.execute(query.order_by(Task.id).offset(PAGE * (page - 1)).limit(PAGE + 1)).tuples().all()
    said = _said(db, [task.id for task, _ in rows[:PAGE]])
    found = [Item(task, messages[-1]["content"][:LONGEST], said[task.id]) for task, messages in rows[:PAGE]]
    return found, len(rows) > PAGE


def _filters(show: str) -> list[Any]:
    if show == "open":
        return [Task.is_gold.is_(False), Task.open]
    if show == "gold":
        return [Task.is_gold]
    kind = {"skipped": "skip", "written": "demonstrate", "judged": "steps"}.get(show)
    if kind is None:
        return []
    later = aliased(Answer)
    return [
        exists().where(Answer.task_id == Task.id, Answer.kind == kind, ~exists().where(later.supersedes == Answer.id))
    ]


def _said(db: Db, tasks: Sequence[int]) -> dict[int, list[Said]]:
    query = select(Answer, Person.name, schema.Prompt.messages).join(Person, Person.id == Answer.person_id)
    query = query.join(Task, Task.id == Answer.task_id)
    same = and_(schema.Prompt.project_id == Task.project_id, schema.Prompt.id == Task.prompt_id)
    rows = db.execute(query.join(schema.Prompt, same).where(Answer.task_id.in_(tasks)).order_by(Answer.number)).all()
    superseded = {answer.supersedes for answer, _, _ in rows}
    found: dict[int, list[Said]] = defaultdict(list)
    for answer, name, asked in rows:
        if answer.id not in superseded and (text := _told(answer, len(asked))):
            found[answer.task_id].append(Said(name, text[:LONGEST]))
    return found


def _told(answer: Answer, asked: int) -> str:
    """asked: the number of the prompt's turns."""
    payload = answer.payload
    if answer.kind == "skip":
        return f"skipped: {skip_words(payload['reason'])}"
    if answer.kind == "demonstrate":
        turns = payload["messages"][asked:]
        return "\n\n".join(
            turn["content"] if len(turns) == 1 else f"{turn['role']}: {turn['content']}" for turn in turns
        )
    if answer.kind == "steps":
        return " ".join(WORDS[label] for label in payload["labels"])
    return ("thumb up" if payload["label"] else "thumb down") if answer.kind == "thumb" else ""


def skip_words(reason: str) -> str:
    return SKIP_REASONS.get(reason, "taken back")


def skip_reasons(db: Db, project: Project) -> dict[str, int]:
    """How often items were skipped for which reason, in words, the most frequent first; corrected ones do not count."""
    later = aliased(Answer)
    query = select(Answer.payload).join(Task, Task.id == Answer.task_id)
    query = query.where(Answer.project_id == project.id, Answer.kind == "skip", Task.part == "")
    counts: dict[str, int] = defaultdict(int)
    for payload in db.scalars(query.where(~exists().where(later.supersedes == Answer.id))):
        counts[skip_words(payload["reason"])] += 1
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))
