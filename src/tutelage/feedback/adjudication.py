"""A lead settles items on which labelers differ, having ordered the answers before seeing what others said."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as Db

from tutelage.feedback.export import current_answers, settlements
from tutelage.feedback.projects import change_project
from tutelage.feedback.quality import Ranks, kendall_tau, orders, read_rankings, weights_of, with_rest
from tutelage.feedback.queue import Refused
from tutelage.feedback.schema import Answer, Project, Settlement, Task
from tutelage.feedback.statistics import FAST

CAUSES = {
    "unclear": "the prompt is unclear: leave the item out",
    "guideline": "the instructions leave a gap: mend them",
    "slip": "somebody slipped",
    "taste": "a matter of taste: keep all votes",
}


@dataclass(frozen=True)
class Contested:
    """An item that several ranked. tau: mean Kendall's tau-b of each two rankings."""

    task: int
    prompt: str
    tau: float
    labelers: int


def contested(db: Db, project: Project, most: int = 50) -> list[Contested]:
    """Items that two or more ranked and nobody settled, the lowest agreement first; perfect agreement is left out."""
    from tutelage.feedback.schema import Prompt

    groups: dict[int, list[Ranks]] = defaultdict(list)
    for one in read_rankings(db, project):
        groups[one.item].append(one.ranks)
    settled = settlements(db, project)
    found: list[tuple[float, int, int]] = []
    for item, group in groups.items():
        if item in settled or len(group) < 2:
            continue
        tau = kendall_tau([group])
        if tau < 1:  # nan, where all is tied, is not
            found.append((tau, item, len(group)))
    rows = []
    for tau, item, labelers in sorted(found)[:most]:
        prompt = db.get_one(Prompt, (project.id, db.get_one(Task, item).prompt_id))
        rows.append(Contested(item, prompt.messages[-1]["content"], tau, labelers))
    return rows


def causes(db: Db, project: Project) -> dict[str, int]:
    return dict(Counter(one.cause or "" for one in settlements(db, project).values()).most_common())


def begun(db: Db, project: Project, task_id: int, person_id: str) -> Settlement | None:
    """This lead's last work on the item, settled or not."""
    query = select(Settlement).filter_by(project_id=project.id, task_id=task_id, person_id=person_id)
    return db.scalar(query.order_by(Settlement.number.desc()).limit(1))


def order_first(db: Db, project: Project, task_id: int, person_id: str, ranks: Ranks) -> Settlement:
    """Keep the lead's own order; what others said is shown after it."""
    task = db.get(Task, task_id)
    if task is None or task.project_id != project.id or task.kind != "rank" or task.is_gold:
        raise Refused("This item cannot be settled.")
    now = time.time()
    row = Settlement(project_id=project.id, task_id=task_id, person_id=person_id, own=ranks, ordered=now, note="")
    db.add(row)
    db.flush()
    return row


def votes(db: Db, project: Project, task_id: int) -> list[Answer]:
    """The rankings of an item, in the order in which they came."""
    return [answer for answer, _ in current_answers(db, project, task_id=task_id) if answer.kind == "rank"]


def consensus(rankings: Sequence[Ranks], weights: Sequence[float] | None = None) -> Ranks:
    """Dense ranks by weighted Copeland scores: half a point for each completion that no majority puts before or behind.

    Completions that nobody ranked stay unranked.
    """
    weights = [1.0] * len(rankings) if weights is None else weights
    places = len(rankings[0])
    margin: dict[tuple[int, int], float] = defaultdict(float)
    for ranks, weight in zip(rankings, weights, strict=True):
        for pair, order in orders(ranks).items():
            margin[pair] += weight * order
    seen = [any(ranks[i] is not None for ranks in rankings) for i in range(places)]
    points = [0.0] * places
    for (i, j), value in margin.items():
        points[i] += 1.0 if value > 0 else 0.5 if value == 0 else 0.0
        points[j] += 1.0 if value < 0 else 0.5 if value == 0 else 0.0
    levels = sorted({points[i] for i in range(places) if seen[i]}, reverse=True)
    return [levels.index(points[i]) + 1 if seen[i] else None for i in range(places)]


def proposed(db: Db, project: Project, given: Sequence[Answer]) -> Ranks:
    """The consensus of votes, each by its labeler's weight."""
    weights = weights_of(read_rankings(db, project))
    return consensus([with_rest(a.payload) for a in given], [weights.get(a.person_id, 1.0) for a in given])


def settle(db: Db, project: Project, task_id: int, person_id: str, ranks: Ranks, cause: str, note: str) -> Settlement:
    """The decision. A gap in the instructions is mended by the note, which they get as a new line."""
    row = begun(db, project, task_id, person_id)
    if row is None or row.cause is not None:
        raise Refused("Order the answers before you see what others said.")
    if cause not in CAUSES:
        raise Refused("Say why labelers differed.")
    if cause == "guideline":
        if not note:
            raise Refused("Write the sentence that the instructions lack.")
        change_project(project, instructions=f"{project.instructions}\n{note}".strip())
    decision = Settlement(  # a row of its own: settlements are append-only
        project_id=project.id,
        task_id=task_id,
        person_id=person_id,
        own=row.own,
        ordered=row.ordered,
        ranks=ranks,
        cause=cause,
        note=note,
        settled=time.time(),
    )
    db.add(decision)
    db.flush()
    return decision


def shown_votes(given: Sequence[Answer], names: dict[str, str] | None) -> list[dict[str, Any]]:
    """Votes as the page shows them; without names they are P1, P2, … fast: under a third of the others' median time."""
    return [
        {
            "name": names[one.person_id] if names else f"P{number}",
            "ranks": with_rest(one.payload),
            "all_bad": bool(one.payload.get("all_bad")),
            "seconds": one.seconds,
            "fast": _fast(one, given),
            "note": one.payload.get("note") or "",
        }
        for number, one in enumerate(given, 1)
    ]


def _fast(one: Answer, given: Sequence[Answer]) -> bool:
    others = [other.seconds for other in given if other is not one and other.seconds is not None]
    return one.seconds is not None and bool(others) and one.seconds < FAST * median(others)
