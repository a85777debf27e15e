"""Files and records into a project: all of a file or nothing, and the same file again adds nothing."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session as Db

from tutelage.data.foreign import completion_id
from tutelage.errors import UserError
from tutelage.feedback import schema
from tutelage.feedback.imported_answers import import_answers
from tutelage.feedback.intake import MOST, Imported, add_completions, add_prompts, add_tasks, task_row
from tutelage.feedback.reading import read_file, refuse
from tutelage.feedback.schema import Project
from tutelage.records import Comparison, Completion, Prompt, StepLabel


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
            return import_answers(db, project, found.comparisons, labeler, done)
        return import_gold(db, project, found.comparisons, done)
    if kind in ("rank", "steps"):
        mend = "import them with --gold (their order is known) or --answers (a labeler gave it)"
        done.faults += [
            UserError("is a ranking, not answers to label", where=found.place(one), mend=mend)
            for one in found.comparisons
        ]
    if kind == "rank":
        done.faults += [
            UserError("is a solution whose steps were judged", where=found.place(one), mend="import it to judge steps")
            for one in found.solutions
        ]
    return import_records(db, project, found.prompts, found.completions, kind, solutions=found.solutions, done=done)


def import_records(
    db: Db,
    project: Project,
    prompts: Iterable[Prompt],
    completions: Iterable[Completion],
    kind: str = "rank",
    *,
    where: str = "import",
    number: int = 0,
    solutions: Iterable[StepLabel] = (),
    done: Imported | None = None,
) -> Imported:
    """Store the records, and make a task for each prompt (rank, demonstrate) or completion (steps).

    solutions: what was judged elsewhere, to be judged anew: their steps, without the labels (kind steps only).

    kind "prompts" makes no task: rounds ask about them.

    number: the round that they belong to. done: what was found in the file so far.
    """
    done = done or Imported(where=where)
    known = add_prompts(db, project, list(prompts), done)
    parted = _as_completions(solutions) if kind == "steps" else {}
    texts = add_completions(db, project, [*completions, *(one for one, _ in parted.values())], known, done)
    refuse(done.faults, done.where)
    rows: list[dict[str, Any]] = []
    groups: dict[str, list[Completion]] = {}
    for completion in texts:
        groups.setdefault(completion.prompt_id, []).append(completion)
    if kind == "rank":
        for prompt_id, group in groups.items():
            size = math.ceil(len(group) / math.ceil(len(group) / MOST))  # ten are two items of five, not nine and one
            for start in range(0, len(group), size):
                part = group[start : start + size]
                if len({c.text for c in part}) < 2:
                    done.left_out.append(f"prompt {prompt_id}: all its answers are equal")
                    continue
                rows.append(task_row(project, prompt_id, kind, [c.id for c in part], number=number))
    elif kind == "steps":
        for completion in texts:
            own = parted.get(completion.id)
            steps = own[1] if own else [line.strip() for line in completion.text.splitlines() if line.strip()]
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


def _as_completions(solutions: Iterable[StepLabel]) -> dict[str, tuple[Completion, list[str]]]:
    """The whole text and the steps of each solution, by the text's id."""
    found = {}
    for one in solutions:
        text = "\n".join(one.steps)
        name = completion_id(one.prompt_id, text)
        found[name] = Completion(id=name, prompt_id=one.prompt_id, text=text), one.steps
    return found


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
