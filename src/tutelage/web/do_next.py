"""What a lead can do now in a project, the most pressing first: each with its reason and the place where it is done."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Db

from tutelage.feedback import rounds
from tutelage.feedback.export import settlements
from tutelage.feedback.schema import Admission, Project, Round
from tutelage.feedback.statistics import Labeler, Progress

LOW = 0.4  # Kendall's tau of an item under which its prompt or its labels are worth a look
SHOWN = 5  # items of the lowest agreement that the page names


@dataclass(frozen=True)
class Step:
    said: str
    act: str
    path: str


def open_items(db: Db, project: Project, lowest: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the lowest agreement that no lead has settled."""
    settled = settlements(db, project)
    return [row for row in lowest if row["item"] not in settled]


def next_steps(
    db: Db, project: Project, progress: Progress, lowest: Sequence[dict[str, Any]], labelers: Collection[Labeler]
) -> list[Step]:
    """lowest: the open items of the lowest agreement, with their tau."""
    page = f"/projects/{project.id}"
    if not progress.items:
        return [Step("No item yet", "Add items", "#add")]
    steps = []
    left = progress.needed - progress.answers
    waiting = select(func.count()).select_from(Admission).filter_by(project_id=project.id, state="handed in")
    if count := db.scalar(waiting):
        steps.append(Step(f"{_people(count)} to be let in", "Read the screening", f"{page}/screening"))
    if project.paused and left > 0:
        steps.append(Step(f"Paused with {left} answers to go", "Resume", "#pause"))
    if low := sum(row["tau"] < LOW for row in lowest):
        words = f"{low} item{'s' * (low > 1)} on which labelers agree under {LOW}"
        steps.append(Step(words, "Adjudicate", f"{page}/adjudicate"))
    steps += [
        Step(f"{one.name} takes less than a third of the others' time", "Look", "#people")
        for one in labelers
        if "fast" in one.remark
    ]
    steps += _about_rounds(rounds.last_round(db, project), left, f"{page}/rounds")
    if not progress.answers and not progress.leased and not project.paused:
        steps.append(Step("Nobody has begun", "Invite people", "/people"))
    return steps


def _people(count: int) -> str:
    return "1 person waits" if count == 1 else f"{count} people wait"


def _about_rounds(last: Round | None, left: int, path: str) -> list[Step]:
    if last is not None and last.state in ("failed", "stopped"):
        return [Step(f"Round {last.number} {last.state}", "Go on with it", path)]
    if left <= 0 and (last is None or last.state == "done"):
        return [Step("Every item has its answers", f"Start round {last.number + 1 if last else 1}", path)]
    return []
