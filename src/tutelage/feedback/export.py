"""Answers as the records that the stages train on; one folder that `--data` takes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as Db

from tutelage.data.formats import write_jsonl
from tutelage.errors import UserError
from tutelage.feedback import schema
from tutelage.feedback.at_size import in_parts
from tutelage.feedback.schema import Answer, Project, Settlement, Task
from tutelage.records import Comparison, Demonstration, Skip, StepLabel, Thumb


@dataclass
class Exported:
    """Records of a project. `unranked` holds comparisons that order no two answers, and so train nothing."""

    comparisons: list[Comparison]
    demonstrations: list[Demonstration]
    steps: list[StepLabel]
    skips: list[Skip]
    unranked: list[Comparison]
    thumbs: list[Thumb]


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def current_answers(
    db: Db,
    project: Project,
    *,
    gold: bool = False,
    part: str = "",
    person_id: str | None = None,
    task_id: int | None = None,
) -> Iterator[tuple[Answer, Task]]:
    """Answers that no later one supersedes, by task and then in the order they came."""
    query = select(Answer, Task).join(Task, Task.id == Answer.task_id).where(Answer.project_id == project.id)
    if person_id is not None:
        query = query.where(Answer.person_id == person_id)
    if task_id is not None:
        query = query.where(Answer.task_id == task_id)
    rows = db.execute(query.where(Task.is_gold.is_(gold), Task.part == part).order_by(Task.id, Answer.number)).all()
    superseded = {answer.supersedes for answer, _ in rows}
    for answer, task in rows:
        if answer.id not in superseded:
            yield answer, task


def export_records(db: Db, project: Project, weights: dict[str, float] | None = None) -> Exported:
    """All current answers but those to gold items; `weights` by labeler go into `Comparison.weight`."""
    answers = list(current_answers(db, project))
    prompts, texts = _asked_about(db, project, [task for _, task in answers])
    found = Exported([], [], [], [], [], [])
    settled = settlements(db, project)
    done: set[int] = set()
    for answer, task in answers:
        prompt, payload = prompts[task.prompt_id], answer.payload
        common: dict[str, Any] = {"id": answer.id, "prompt_id": prompt.id, "labeler": answer.person_id}
        common["created"] = stamp(answer.created)
        if answer.kind == "skip":
            found.skips.append(Skip(reason=payload["reason"], **common))
        elif answer.kind == "demonstrate":
            found.demonstrations.append(Demonstration(messages=payload["messages"], **common))
        elif answer.kind == "steps":
            labels = payload["labels"]  # steps past a first error are unlabeled, and are left out
            steps = (task.steps or [])[: len(labels)]
            found.steps.append(StepLabel(steps=steps, labels=labels, messages=prompt.messages, **common))
        elif answer.kind == "thumb":
            text = texts[task.completions[0]]
            thumb = Thumb(messages=prompt.messages, completion=text, label=payload["label"], **common)
            found.thumbs.append(thumb)
        else:
            one = Comparison(
                completion_ids=task.completions,
                ranks=payload["ranks"],
                messages=prompt.messages,
                completions=[texts[name] for name in task.completions],
                rest_below=payload.get("rest_below") or None,
                all_bad=payload.get("all_bad") or None,
                seconds=answer.seconds,
                ratings=payload.get("ratings"),
                flags=payload.get("flags"),
                category=payload.get("category") or prompt.category,
                note=payload.get("note") or None,
                shown=answer.shown,
                effort=answer.effort or None,
                supersedes=answer.supersedes,
                weight=None if weights is None else round(weights.get(answer.person_id, 1.0), 4),
                **common,
            )
            decision = settled.get(task.id)
            if decision is not None and decision.cause != "taste":
                if task.id in done:
                    continue
                done.add(task.id)
                one = _settled(one, decision, weights is not None)
                if decision.cause == "unclear":
                    found.unranked.append(one)
                    continue
            (found.comparisons if orders_a_pair(one) else found.unranked).append(one)
    return found


def _asked_about(db: Db, project: Project, tasks: list[Task]) -> tuple[dict[str, schema.Prompt], dict[str, str]]:
    """The prompts and the texts of completions of these items, by their ids: what nobody answered is not read."""
    prompts: dict[str, schema.Prompt] = {}
    for some in in_parts(task.prompt_id for task in tasks):
        query = select(schema.Prompt).where(schema.Prompt.project_id == project.id, schema.Prompt.id.in_(some))
        prompts |= {one.id: one for one in db.scalars(query)}
    texts: dict[str, str] = {}
    for some in in_parts(name for task in tasks for name in task.completions):
        asked = select(schema.Completion.id, schema.Completion.text).filter_by(project_id=project.id)
        texts.update(db.execute(asked.where(schema.Completion.id.in_(some))).tuples().all())
    return prompts, texts


def settlements(db: Db, project: Project) -> dict[int, Settlement]:
    """The last decision about each item that has one."""
    query = select(Settlement).filter_by(project_id=project.id).where(Settlement.cause.is_not(None))
    return {one.task_id: one for one in db.scalars(query.order_by(Settlement.number))}


def _settled(one: Comparison, decision: Settlement, weighted: bool) -> Comparison:
    """One comparison, the lead's, in place of all votes on an item."""
    return Comparison(
        id=f"settled-{decision.number}",
        prompt_id=one.prompt_id,
        completion_ids=one.completion_ids,
        ranks=decision.ranks or [],
        messages=one.messages,
        completions=one.completions,
        category=one.category,
        labeler=decision.person_id,
        created=stamp(decision.settled or decision.ordered),
        note=decision.note or None,
        weight=1.0 if weighted else None,
    )


def soften(found: Exported, labels: dict[int, dict[tuple[int, int], float]], tasks: dict[str, int]) -> None:
    """In place of votes, two comparisons a pair, one for each order, weighted by how likely it is.

    Their losses add up to the cross-entropy with a soft label, -p log σ(r_i - r_j) - (1 - p) log σ(r_j - r_i), twice,
    so that the mean weight is 1. labels: of `quality.soft_labels`. tasks: the item of each comparison, by its id.
    What a lead settled stays one comparison.
    """
    kept: list[Comparison] = []
    done: set[int] = set()
    for one in found.comparisons:
        item = tasks.get(one.id)
        if item is None:
            kept.append(replace(one, weight=1.0))
        elif item not in done:
            done.add(item)
            kept += [
                replace(
                    one,
                    id=f"soft-{item}-{first}-{second}",
                    completion_ids=[one.completion_ids[first], one.completion_ids[second]],
                    completions=[(one.completions or [])[first], (one.completions or [])[second]],
                    ranks=[1, 2],
                    weight=round(2 * share, 4),
                    **_EMPTIED,
                )
                for pair, chance in labels.get(item, {}).items()
                for (first, second), share in ((pair, chance), (pair[::-1], 1 - chance))
                if share >= 0.001
            ]
    found.comparisons = kept


# what one labeler's ranking has of its own
_EMPTIED: dict[str, Any] = dict.fromkeys(
    ("labeler", "seconds", "ratings", "flags", "shown", "effort", "supersedes", "note", "rest_below", "all_bad")
)


def orders_a_pair(one: Comparison) -> bool:
    ranked = [rank for rank in one.ranks if rank is not None]
    return len(ranked) >= 2 or bool(ranked and one.rest_below and len(ranked) < len(one.ranks))


def export_folder(
    db: Db,
    project: Project,
    out: Path,
    weights: dict[str, float] | None = None,
    soft: dict[int, dict[tuple[int, int], float]] | None = None,
) -> dict[str, int]:
    """Write what `--data OUT` reads (comparisons, demonstrations, thumbs and steps.jsonl), and the rest below OUT/labels."""
    found = export_records(db, project, weights)
    if soft is not None:
        soften(found, soft, {answer.id: task.id for answer, task in current_answers(db, project)})
    files: dict[str, list[Any]] = {
        "comparisons.jsonl": found.comparisons,
        "demonstrations.jsonl": found.demonstrations,
        "thumbs.jsonl": found.thumbs,
        "steps.jsonl": found.steps,
        "labels/skips.jsonl": found.skips,
        "labels/unranked.jsonl": found.unranked,
    }
    counts = {name.rpartition("/")[2].removesuffix(".jsonl"): len(rows) for name, rows in files.items()}
    if not any(counts.values()):
        raise UserError("has no answers yet", where=f"project {project.id}", mend="label first")
    for name, rows in files.items():
        if rows:
            write_jsonl(out / name, rows)
        else:
            (out / name).unlink(missing_ok=True)
    (out / "README.md").write_text(_card(project, counts, weights is not None, soft is not None), encoding="utf-8")
    return counts


def _card(project: Project, counts: dict[str, int], weighted: bool, soft: bool) -> str:
    rows = "\n".join(f"| {name} | {count} |" for name, count in counts.items())
    weights = "`weight` is the labeler's weight in the reward loss (estimated by Dawid and Skene's model).\n" * weighted
    weights += "Each pair stands in both orders, weighted by the chance of each given all votes (soft labels).\n" * soft
    return f"""---
tags: [preference, human-feedback, tutelage]
---
# {project.name}

People's answers, one JSON object a line. Corrections replaced what they supersede; answers to gold items are left out.
Where a lead settled an item, the decision stands in place of the votes.

| records | count |
|---|---|
{rows}

{weights}Train on it: `tutelage reward --data {project.id}`, `tutelage sft --data {project.id}`, `tutelage prm --data {project.id}` (steps).
"""
