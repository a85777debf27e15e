"""Feedback on single answers, from the chat page and from programs: thumbs and edits, kept like other answers."""

import hashlib
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as Db

from tutelage.errors import UserError
from tutelage.feedback import schema
from tutelage.feedback.projects import create_project
from tutelage.feedback.schema import Answer, Project, Task
from tutelage.records import Message

PROJECT = "Chat"  # where feedback goes that names no project


def feedback_project(db: Db) -> Project:
    """The project of chat feedback; made when first needed. Its tasks are closed: nobody is asked to do them."""
    return db.get(Project, PROJECT.lower()) or create_project(db, PROJECT)


def give_feedback(
    db: Db,
    person_id: str,
    messages: Sequence[Message],
    completion: str,
    *,
    thumb: bool | None = None,
    edit: str | None = None,
    model: str | None = None,
    id: str | None = None,
) -> str:
    """Store a thumb (up is True), or a better answer, to the last turn of a conversation; returns the answer's id.

    Sending the same under the same `id` twice stores once; something else under it is refused. A thumb becomes a
    `Thumb` record (KTO), an edit a `Demonstration`.
    """
    if (thumb is None) == (edit is None):
        raise UserError("has no thumb and no edit, or both", where="feedback", mend="send one of them")
    if edit is not None and not edit.strip():
        raise UserError("is empty", where="field edit", mend="write the better answer")
    name = id or uuid.uuid4().hex
    kind = "thumb" if edit is None else "demonstrate"
    payload: dict[str, Any] = (
        {"label": thumb} if edit is None else {"messages": [*messages, {"role": "assistant", "content": edit.strip()}]}
    )
    digest = hashlib.blake2b(json.dumps([*messages], sort_keys=True).encode(), digest_size=8).hexdigest()
    shown = hashlib.blake2b(f"{model}\x1f{completion}".encode(), digest_size=8).hexdigest()
    place = f"chat-{digest}-{shown}"
    if (known := db.scalar(select(Answer).filter_by(id=name))) is not None:
        same = (known.person_id, known.kind, known.payload) == (person_id, kind, payload)
        if not same or known.shown.get("completions") != [place]:
            raise UserError("names another answer already", where="field id", mend="give each answer an id of its own")
        return known.id
    project = feedback_project(db)
    prompt = db.get(schema.Prompt, (project.id, f"chat-{digest}"))
    if prompt is None:
        prompt = schema.Prompt(project_id=project.id, id=f"chat-{digest}", messages=[*messages], source="chat")
        db.add(prompt)
        db.flush()
    if db.get(schema.Completion, (project.id, place)) is None:
        db.add(
            schema.Completion(
                project_id=project.id, id=place, prompt_id=prompt.id, text=completion, model=model, finish="stop"
            )
        )
    task = Task(
        project_id=project.id,
        prompt_id=prompt.id,
        kind=kind,
        completions=[place],
        steps=None,
        gold=None,
        filled=1,
        open=False,
        key=f"{kind} {name}"[:64],
    )
    db.add(task)
    db.flush()
    db.add(_answer(project, task, person_id, name, kind, payload))
    db.flush()
    return name


def undo_feedback(db: Db, person_id: str, id: str) -> None:
    """Take one's own feedback back: a skip supersedes it, so that it is no longer exported."""
    given = db.scalar(select(Answer).filter_by(id=id, person_id=person_id))
    if given is None or given.kind not in ("thumb", "demonstrate"):
        raise UserError("there is no such feedback of yours", mend="look at the id")
    if db.scalar(select(Answer).filter_by(supersedes=given.id)) is None:
        task, project = db.get_one(Task, given.task_id), db.get_one(Project, given.project_id)
        row = _answer(project, task, person_id, uuid.uuid4().hex, "skip", {"reason": "undone"})
        row.supersedes = given.id
        db.add(row)


def _answer(project: Project, task: Task, person_id: str, id: str, kind: str, payload: dict[str, Any]) -> Answer:
    return Answer(
        id=id,
        project_id=project.id,
        task_id=task.id,
        person_id=person_id,
        kind=kind,
        payload=payload,
        shown={"completions": task.completions},
        effort={},
        seconds=None,
        created=time.time(),
    )
