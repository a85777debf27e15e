"""Projects, and prompts and completions into them: all of a file or nothing, and the same file again adds nothing."""

import hashlib
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session as Db

from tutelage.errors import UserError, did_you_mean
from tutelage.feedback import schema
from tutelage.feedback.ranking import LETTERS
from tutelage.feedback.reading import Places, read_file, refuse
from tutelage.feedback.schema import Project, Task
from tutelage.records import Comparison, Completion, Prompt, Record

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


def create_project(db: Db, name: str, **settings: Any) -> Project:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
    if not slug:
        raise UserError("needs a letter or a digit", where="project name", mend="name it, for example, round-1")
    if db.get(Project, slug):
        raise UserError(f"there is a project {slug!r} already", where="project name", mend="use another name")
    project = Project(id=slug, name=name.strip()[:120], created=time.time())
    db.add(project)
    change_project(project, **settings)
    db.flush()
    return project


def find_project(db: Db, name: str) -> Project:
    project = db.get(Project, name) if name.isprintable() else None
    if project is None:
        known = list(db.scalars(select(Project.id)))
        raise UserError(
            f"there is no project {name!r}{did_you_mean(name, known)}",
            mend=f"use one of: {', '.join(known)}" if known else "make one first",
        )
    return project


def change_project(project: Project, **settings: Any) -> None:
    """Set columns of the project; numbers within their limits."""
    limits = {
        "overlap": (1, 50),
        "lease_seconds": (60, 86_400),
        "gold_every": (0, 1000),
        "max_tokens": (8, 1_000_000),
        "seed": (0, 2**31 - 1),
    }
    for name, value in settings.items():
        if name in limits and not limits[name][0] <= value <= limits[name][1]:
            low, high = limits[name]
            raise UserError(f"{value} cannot be used", where=name, mend=f"give a number from {low} to {high}")
        if name == "answers_as" and value not in schema.ANSWERS_AS:
            raise UserError(f"{value!r} cannot be used", where=name, mend=f"use {' or '.join(schema.ANSWERS_AS)}")
        if name == "rating" and value not in schema.RATINGS:
            raise UserError(f"{value!r} cannot be used", where=name, mend=f"use one of: {', '.join(schema.RATINGS)}")
        setattr(project, name, value)


def import_file(
    db: Db,
    project: Project,
    path: Path,
    kind: str = "rank",
    *,
    gold: bool = False,
    answers: bool = False,
    labeler: str = "",
) -> Imported:
    """Prompts and completions, or comparisons: all of the file, or BadRows that names every bad row.

    gold: its comparisons become gold items. answers: they become answers of the labelers that they name, or of
    `labeler` where they name none.
    """
    found = read_file(path)
    done = Imported(left_out=found.left_out, faults=found.faults, places=found.places, where=str(path))
    if gold or answers:
        if not found.comparisons and not done.faults:
            raise UserError(
                "holds no comparisons", where=str(path), mend="gold items and answers are comparisons with their ranks"
            )
        if answers:
            from tutelage.feedback.imported_answers import import_answers

            return import_answers(db, project, found.comparisons, labeler, done)
        return import_gold(db, project, found.comparisons, done)
    if kind in ("rank", "steps"):
        mend = "import them with --gold (their order is known) or --answers (a labeler gave it)"
        done.faults += [
            UserError("is a ranking, not answers to label", where=found.place(one), mend=mend)
            for one in found.comparisons
        ]
    return import_records(db, project, found.prompts, found.completions, kind, done=done)


def import_records(
    db: Db,
    project: Project,
    prompts: Iterable[Prompt],
    completions: Iterable[Completion],
    kind: str = "rank",
    *,
    where: str = "import",
    number: int = 0,
    done: Imported | None = None,
) -> Imported:
    """Store the records, and make a task for each prompt (rank, demonstrate) or completion (steps).

    kind "prompts" makes no task: rounds ask about them.

    number: the round that they belong to. done: what was found in the file so far.
    """
    done = done or Imported(where=where)
    known = add_prompts(db, project, list(prompts), done)
    texts = add_completions(db, project, list(completions), known, done)
    refuse(done.faults, done.where)
    rows: list[dict[str, Any]] = []
    groups: dict[str, list[Completion]] = {}
    for completion in texts:
        groups.setdefault(completion.prompt_id, []).append(completion)
    if kind == "rank":
        for prompt_id, group in groups.items():
            for start in range(0, len(group), MOST):
                part = group[start : start + MOST]
                if len({c.text for c in part}) < 2:
                    done.left_out.append(f"prompt {prompt_id}: all its answers are equal")
                    continue
                rows.append(task_row(project, prompt_id, kind, [c.id for c in part], number=number))
    elif kind == "steps":
        for completion in texts:
            steps = [line.strip() for line in completion.text.splitlines() if line.strip()]
            if len(steps) < 2:
                done.left_out.append(f"completion {completion.id}: has fewer than two steps")
                continue
            rows.append(task_row(project, completion.prompt_id, kind, [completion.id], steps=steps))
    elif kind == "demonstrate":
        rows = [task_row(project, prompt_id, kind, []) for prompt_id in known]
    elif kind == "prompts":
        return done
    else:
        raise UserError(f"unknown kind of task {kind!r}", mend=f"use one of: {', '.join(schema.TASKS)}")
    add_tasks(db, project, rows, done)
    if not rows:
        raise UserError(
            f"gives no task to {kind}", where=done.where, mend="rank needs prompts with two or more completions"
        )
    return done


def import_gold(db: Db, project: Project, comparisons: Iterable[Comparison], done: Imported | None = None) -> Imported:
    """Comparisons with a known order become gold items."""
    done = done or Imported(where="gold items")
    rows, prompts, texts = [], {}, {}
    for one in comparisons:
        if not one.messages or not one.completions or len(set(one.completions)) < 2:
            done.left_out.append(f"comparison {one.id}: lacks two different texts")
            continue
        prompts[one.prompt_id] = Prompt(id=one.prompt_id, messages=one.messages, category=one.category)
        for name, text in zip(one.completion_ids, one.completions, strict=True):
            texts[name] = Completion(id=name, prompt_id=one.prompt_id, text=text)
        rows.append(task_row(project, one.prompt_id, "rank", one.completion_ids, gold={"ranks": one.ranks}))
    known = add_prompts(db, project, list(prompts.values()), done)
    add_completions(db, project, list(texts.values()), known, done)
    add_tasks(db, project, rows, done)
    return done


def read_samples(path: Path) -> tuple[list[Prompt], list[Completion]]:
    """What `tutelage sample` wrote."""
    found = read_file(path)
    refuse(found.faults, str(path))
    return found.prompts, found.completions


def add_prompts(db: Db, project: Project, prompts: list[Prompt], done: Imported) -> dict[str, bool]:
    """Store those that are new. Faults are noted in `done`; once there is one, nothing more is stored."""
    query = select(schema.Prompt.id, schema.Prompt.messages).filter_by(project_id=project.id)
    stored: dict[str, Any] = dict(db.execute(query).tuples().all())
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
    stored: dict[str, str] = dict(db.execute(query).tuples().all())
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
    stored = set(db.scalars(select(Task.key).filter_by(project_id=project.id)))
    new = {row["key"]: row for row in rows if row["key"] not in stored}
    if new:
        db.execute(insert(Task), list(new.values()))
    done.tasks += len(new)
