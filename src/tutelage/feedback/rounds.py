"""Rounds of a project: what one is to do, where it stands, and the job that does it.

A round is a row, and a job of the store's queue while there is work. A lock in the round's folder, which the system
opens when a step has ended, however it ended, keeps a worker from what a step of the last one still does there.
"""

import fcntl
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Db

from tutelage.configs.rounds import RoundSettings
from tutelage.feedback import jobs
from tutelage.feedback.queue import Refused
from tutelage.feedback.schema import Job, Project, Round, Task
from tutelage.feedback.steps import LOG, PROGRESS, tail
from tutelage.feedback.store import Store

ACTIVE = ("sampling", "labeling", "training")
RECIPES = {"reward-round": "a reward model", "ppo-round": "a reward model, then the policy by PPO"}


@dataclass(frozen=True)
class Doing:
    """How far a step is. left: seconds, None where nothing was finished yet."""

    label: str
    done: int
    total: int
    unit: str
    left: float | None

    @property
    def time_left(self) -> str:
        if self.left is None:
            return ""
        minutes = math.ceil(self.left / 60)
        return "less than a minute left" if minutes <= 1 else f"about {minutes} minutes left"


@dataclass(frozen=True)
class Standing:
    """A round as the page and the command tell it. alive: it goes on by itself; waits: for a worker."""

    number: int
    state: str
    labeled: int
    needed: int
    alive: bool
    enough: bool
    result: dict[str, Any]
    settings: RoundSettings
    log: str
    said: str
    doing: Doing | None = None
    waits: bool = False

    @property
    def share(self) -> float:
        return min(1.0, self.labeled / self.needed) if self.needed else 0.0


def start_round(db: Db, project: Project, settings: RoundSettings, out: Path, *, waits: bool = False) -> Round:
    """A new round; refused while another one is under way. waits: as `waiting` says."""
    now = time.time()
    last = last_round(db, project)
    if last is not None and last.state != "done":
        raise Refused(f"Round {last.number} is not done: go on with it first.")
    number = 1 if last is None else last.number + 1
    folder = out.expanduser().resolve() / project.id / str(number)
    row = Round(
        project_id=project.id,
        number=number,
        settings={**asdict(settings), "model": list(settings.model), "ensemble": list(settings.ensemble)},
        state="sampling",
        folder=str(folder),
        result=waiting({}, waits),
        created=now,
    )
    db.add(row)
    db.flush()
    return row


def waiting(result: dict[str, Any], waits: bool) -> dict[str, Any]:
    """A round's results, with the folder (`at`) where its steps start when people have labeled it, or without.

    Such a round goes on by itself then; one that its caller goes on with does not.
    """
    rest = {name: value for name, value in result.items() if name != "at"}
    return {**rest, "at": os.getcwd()} if waits else rest


def last_round(db: Db, project: Project) -> Round | None:
    return db.scalar(select(Round).filter_by(project_id=project.id).order_by(Round.number.desc()).limit(1))


def settings_of(row: Round) -> RoundSettings:
    return RoundSettings(**row.settings)


def following(row: Round) -> RoundSettings:
    """The next round's settings: the same, with the policy that this one trained."""
    settings = settings_of(row)
    policy = row.result.get("policy")
    return RoundSettings(**{**asdict(settings), "model": (policy,), "base": ""}) if policy else settings


def labels(db: Db, row: Round) -> tuple[int, int]:
    """(answers so far, answers needed) of the round's items."""
    query = select(func.sum(Task.filled), func.sum(Task.overlap)).where(
        Task.project_id == row.project_id, Task.round == row.number, Task.is_gold.is_(False)
    )
    filled, needed = db.execute(query).one()
    return int(filled or 0), int(needed or 0)


def standings(db: Db, project: Project, now: float) -> list[Standing]:
    """All rounds, the newest first."""
    found = []
    for row in db.scalars(select(Round).filter_by(project_id=project.id).order_by(Round.number.desc())):
        labeled, needed = labels(db, row)
        job = jobs.open_job(db, _alone(row)) if row.state in ACTIVE else None
        works = job is not None and job.state == "running" and job.until > now
        by_itself = row.state == "labeling" and "at" in row.result
        found.append(
            Standing(
                row.number,
                row.state,
                labeled,
                needed,
                job is not None or by_itself,
                row.enough,
                row.result,
                settings_of(row),
                tail(Path(row.folder) / LOG) if row.state in ("failed", "stopped") else "",
                row.said,
                doing_of(row) if works else None,
                job is not None and not works,
            )
        )
    return found


def doing_of(row: Round) -> Doing | None:
    """What the running step tells of itself; None before it does, and where it says nothing that can be read."""
    try:
        told = json.loads((Path(row.folder) / PROGRESS).read_text(encoding="utf-8"))
        label, unit = str(told["label"]), str(told["unit"])
        done, total, first, seconds = (float(told[name]) for name in ("done", "total", "first", "seconds"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    pace = (done - first) / seconds if seconds > 0 else 0.0
    part = label.removeprefix("samples-")
    if part != label and row.state == "sampling" and part.isdecimal():
        # One step samples of one model; the round's answers are those of all of them.
        counts = shares(settings_of(row))
        prompts = total / counts[int(part)] if int(part) < len(counts) else 0.0
        done, total = done + prompts * sum(counts[: int(part)]), prompts * sum(counts)
    return Doing(label, round(done), round(total), unit, (total - done) / pace if pace > 0 else None)


def shares(settings: RoundSettings) -> list[int]:
    """How many of a prompt's K answers each model gives."""
    return [len(range(i, settings.samples, len(settings.model))) for i in range(len(settings.model))]


def change_state(db: Db, project: Project, state: str) -> Round:
    """Stop what runs, or take a stopped, failed or left round up again where it was."""
    row = last_round(db, project)
    if row is None:
        raise Refused("There is no round.")
    if state == "stopped":
        job = jobs.open_job(db, _alone(row), locked=True)  # before the round, as its worker does, which may be writing
        db.refresh(row, with_for_update=True)
        if row.state not in ACTIVE:
            raise Refused("The round is not running.")
        row.result, row.state = {**row.result, "stopped_at": row.state}, "stopped"
        if job is not None:
            jobs.stop(db, job)
    elif state == "continue":
        if row.state in ("stopped", "failed"):
            row.state, row.said = row.result.get("stopped_at", "sampling"), ""
        elif row.state == "done":
            raise Refused("The round is done.")
        row.result = waiting(row.result, True)
        enqueue(db, row)
    elif state == "enough":
        if row.state != "labeling" or not labels(db, row)[0]:
            raise Refused("There is nothing to train on yet.")
        row.enough = True
        if "at" in row.result:
            enqueue(db, row)
    else:
        raise Refused("A round can be stopped, continued, or trained now.")
    return row


def _alone(row: Round) -> str:
    return f"round {row.project_id}"


def enqueue(db: Db, row: Round) -> Job | None:
    """A job that does what is to be done of the round; None where there is one."""
    at = Path(row.result["at"]) if "at" in row.result else None
    return jobs.put(db, "round", row.project_id, {"number": row.number}, folder=Path(row.folder), at=at)


def change_job(db: Db, row: Job, to: str) -> None:
    """Stop a job or, with "again", begin it again; a round's state goes along with its job's."""
    if row.kind == "round":
        change_state(db, db.get_one(Project, row.project_id), "stopped" if to == "stop" else "continue")
    elif to == "stop":
        jobs.stop(db, row)
    else:
        jobs.retry(db, row)


def wake(store: Store) -> list[str]:
    """Jobs for the rounds that go on by themselves and have all their labels; says which."""
    with store.read() as db:
        rows = [row for row in db.scalars(select(Round).filter_by(state="labeling")) if _is_labeled(db, row)]
    found = []
    for row in rows:
        with store.write() as db:
            now = db.get_one(Round, (row.project_id, row.number), with_for_update=True)
            if now.state == "labeling" and enqueue(db, now) is not None:
                found.append(f"round {row.number} of {row.project_id}")
    return found


def _is_labeled(db: Db, row: Round) -> bool:
    if "at" not in row.result or jobs.open_job(db, _alone(row)) is not None:
        return False
    labeled, needed = labels(db, row)
    return row.enough or (0 < needed <= labeled)


def locked(folder: Path) -> IO[bytes] | None:
    """The round's lock, for as long as the file, or a child's copy of it, is open; None where another process has it."""
    file = (folder / ".runner").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
