"""Prompts, completions and tasks into a project: what is new is stored, and the same again adds nothing."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session as Db

from tutelage.errors import UserError
from tutelage.feedback import schema
from tutelage.feedback.at_size import in_parts
from tutelage.feedback.ranking import LETTERS
from tutelage.feedback.reading import Places, refuse
from tutelage.feedback.schema import Project, Task
from tutelage.records import Completion, Prompt, Record

MOST = len(LETTERS)


@dataclass
class Imported:
    """What an import added, and what it left out with the reason."""

    prompts: int = 0
    completions: int = 0
    tasks: int = 0
    answers: int = 0
    left_out: list[str] = field(default_factory=list)
    faults: list[UserError] = field(default_factory=list)  # one is enough to refuse all of it
    places: Places = field(default_factory=dict)
    where: str = "import"

    def blame(self, record: Record, what: str, mend: str, name: str = "") -> None:
        """Note a fault of a record at the row that it stands in."""
        kind = record.schema_name.partition("/")[0].rpartition(".")[2]
        where = self.places.get((record.schema_name, record.id), f"{self.where}, {kind} {record.id}")
        self.faults.append(UserError(what, where=f"{where}, field {name}" if name else where, mend=mend))


def add_prompts(db: Db, project: Project, prompts: list[Prompt], done: Imported) -> dict[str, bool]:
    """Store those that are new. Faults are noted in `done`; once there is one, nothing more is stored."""
    query = select(schema.Prompt.id, schema.Prompt.messages).filter_by(project_id=project.id)
    stored: dict[str, Any] = {}
    for some in in_parts(_ids(prompts)):
        stored.update(db.execute(query.where(schema.Prompt.id.in_(some))).tuples().all())
    named: dict[str, bool] = {}
    rows = []
    for one in prompts:
        named[one.id] = True
        if not _sound(one, _PROMPT, 128, done) or not _are_messages(one, done):
            continue
        if one.id in stored and stored[one.id] != one.messages:
            done.blame(one, f"prompt {one.id} differs from the stored one", "give it another id")
        if one.id not in stored:
            fields = {"category": one.category, "source": one.source, "user_id": one.user_id, "split": one.split}
            rows.append({"project_id": project.id, "id": one.id, "messages": one.messages, **fields})
            stored[one.id] = one.messages
    if rows and not done.faults:
        db.execute(insert(schema.Prompt), rows)
    done.prompts += len(rows)
    return named


def _are_messages(one: Prompt, done: Imported) -> bool:
    messages: Any = one.messages
    whole = isinstance(messages, list) and messages
    sound = whole and all(
        isinstance(m, dict) and isinstance(m.get("content"), str) and isinstance(m.get("role"), str) for m in messages
    )
    if not sound:
        done.blame(one, "messages are not turns of a conversation", "give role and content for each")
    elif any("\x00" in m["content"] for m in messages):
        done.blame(one, "holds a character that cannot be stored (NUL)", "take it out", "messages")
    else:
        return True
    return False


def add_completions(
    db: Db, project: Project, completions: list[Completion], known: dict[str, bool], done: Imported
) -> list[Completion]:
    """Store those that are new; as `add_prompts`."""
    query = select(schema.Completion.id, schema.Completion.text).filter_by(project_id=project.id)
    stored: dict[str, str] = {}
    for some in in_parts(_ids(completions)):
        stored.update(db.execute(query.where(schema.Completion.id.in_(some))).tuples().all())
    rows = []
    for one in completions:
        if not _sound(one, _COMPLETION, 160, done):
            continue
        if one.prompt_id not in known:
            done.blame(one, f"completion {one.id} has no prompt {one.prompt_id}", "give its prompt too")
        if one.id in stored and stored[one.id] != one.text:
            done.blame(one, f"completion {one.id} differs from the stored one", "give it another id")
        if one.id not in stored:
            rows.append({"project_id": project.id, **{k: getattr(one, k) for k in _COMPLETION}})
            stored[one.id] = one.text
    if rows and not done.faults:
        db.execute(insert(schema.Completion), rows)
    done.completions += len(rows)
    return completions


def _ids(records: Sequence[Record]) -> list[str]:
    """Those that can be asked for; of the others a fault is noted."""
    return [one.id for one in records if isinstance(one.id, str) and "\x00" not in one.id]


TEXT, MAYBE = (str,), (str, type(None))
_PROMPT = {"id": TEXT, "category": MAYBE, "source": MAYBE, "user_id": MAYBE, "split": MAYBE}
_COMPLETION = {
    "id": TEXT,
    "prompt_id": TEXT,
    "text": TEXT,
    "model": MAYBE,
    "sampling": (dict, type(None)),
    "logprob_sum": (int, float, type(None)),
    "finish": TEXT,
}


def _sound(record: Prompt | Completion, types: dict[str, tuple[type, ...]], longest: int, done: Imported) -> bool:
    for name, allowed in types.items():
        value = getattr(record, name)
        if not isinstance(value, allowed) or (isinstance(value, str) and "\x00" in value):
            done.blame(record, f"{name} cannot be used", "give text, or leave it out", name)
            return False
    if not 0 < len(record.id) <= longest:
        done.blame(record, "the id is too long, or empty", f"use up to {longest} characters")
        return False
    return True


def task_row(
    project: Project,
    prompt_id: str,
    kind: str,
    completions: list[str],
    *,
    steps: list[str] | None = None,
    gold: dict[str, Any] | None = None,
    part: str = "",
    number: int = 0,
) -> dict[str, Any]:
    identity = json.dumps([kind, prompt_id, sorted(completions), gold is not None, *([part] if part else [])])
    return {
        "project_id": project.id,
        "prompt_id": prompt_id,
        "kind": kind,
        "completions": completions,
        "steps": steps,
        "gold": gold,
        "is_gold": gold is not None,
        "behind": 0.0,
        "overlap": project.overlap,
        "filled": 0,
        "open": True,
        "part": part,
        "round": number,
        "key": hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
    }


def add_tasks(db: Db, project: Project, rows: list[dict[str, Any]], done: Imported) -> None:
    """Store those that are new; raises where a fault was noted before."""
    refuse(done.faults, done.where)
    query = select(Task.key).filter_by(project_id=project.id)
    keys = in_parts(row["key"] for row in rows)
    stored = {key for some in keys for key in db.scalars(query.where(Task.key.in_(some)))}
    new = {row["key"]: row for row in rows if row["key"] not in stored}
    if new:
        db.execute(insert(Task), list(new.values()))
    done.tasks += len(new)
