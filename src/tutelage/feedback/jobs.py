"""The queue of jobs in the store: put in, claimed with a lease by one worker at a time, kept alive, ended, told.

A worker that is killed stops renewing its lease; when that has ended another one takes the job. Whatever a worker
writes for a job it writes in a transaction that first makes sure that the job is still its own (`mine`).
"""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import delete, extract, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as Db

from tutelage.feedback.queue import Refused
from tutelage.feedback.schema import Job
from tutelage.feedback.store import Store

LEASE_SECONDS = 30.0  # seconds after which a job whose worker says nothing is another's
ATTEMPTS = 3  # begun so often, and then failed
PAUSE = 10.0  # seconds before the second attempt; three times as long before each further one
OPEN = ("waiting", "running")
SHOWN = 30  # jobs that a page tells of
KINDS = {
    "round": "a round",
    "sample": "fresh answers to the project's prompts",
    "label": "AI or simulated labelers",
    "quality": "quality figures",
}


class Lost(Exception):
    """The job is no longer this worker's: it was stopped, or its lease ended and another one took it."""


@dataclass(frozen=True)
class Claim:
    """A job that is this worker's for as long as its lease is renewed. attempt: counts from 1."""

    id: int
    kind: str
    project_id: str
    settings: dict[str, Any]
    folder: Path
    at: Path
    worker: str
    attempt: int

    @property
    def last(self) -> bool:
        """Whether nobody tries again when this attempt fails."""
        return self.attempt >= ATTEMPTS


def moment(db: Db) -> float:
    """Seconds by the clock that all workers share: PostgreSQL's own, or for a file this machine's."""
    if db.get_bind().dialect.name == "postgresql":
        return float(db.scalar(select(extract("epoch", func.clock_timestamp()))) or 0.0)
    return time.time()


def put(
    db: Db,
    kind: str,
    project_id: str,
    settings: dict[str, Any],
    *,
    folder: Path | None = None,
    at: Path | None = None,
) -> Job | None:
    """A job for the next worker; None where there is one already, of those of which there may be one.

    folder: made here, and where there is none any worker may do the job; at: this process's folder when not given.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    if kind == "quality":  # they come by themselves, for as long as there are answers: the figures are what is kept
        db.execute(delete(Job).where(Job.project_id == project_id, Job.kind == kind, Job.state == "done"))
    now = moment(db)
    row = Job(
        project_id=project_id,
        kind=kind,
        settings=settings,
        folder=str(folder.resolve()) if folder else "",
        at=str((at or Path.cwd()).resolve()) if folder else "",
        alone=name_of(kind, project_id),
        state="waiting",
        attempts=0,
        worker="",
        until=now,
        said="",
        result={},
        created=now,
    )
    with contextlib.suppress(IntegrityError), db.begin_nested():
        db.add(row)
    return row if row.id is not None and row in db else None


def open_job(db: Db, alone: str, *, locked: bool = False) -> Job | None:
    """The job of that name that waits or runs; locked until the transaction ends."""
    query = select(Job).filter_by(alone=alone)
    return db.scalar(query.with_for_update() if locked else query)


def claim(store: Store, worker: str, kinds: Sequence[str], job_id: int | None = None) -> Claim | None:
    """The oldest job that is ready, or the one asked for; None where there is none that this worker can do."""
    with store.read() as db:  # most looks find nothing: no write lock for those
        ready = _ready(moment(db)).where(Job.kind.in_(kinds)).order_by(Job.id)
        if job_id is not None:
            ready = ready.where(Job.id == job_id)
        found = [row.id for row in db.scalars(ready) if _is_here(row)]
    for one in found:
        with store.write() as db:
            now = moment(db)
            # PostgreSQL locks the row, past those that others lock; SQLite has one writer from BEGIN IMMEDIATE on.
            row = db.scalar(_ready(now).where(Job.id == one).with_for_update(skip_locked=True))
            if row is None:
                continue
            if row.attempts >= ATTEMPTS:
                _close(row, "failed", f"given up: {row.attempts} workers died of it, the last one {row.worker}", now)
                continue
            return _taken(row, worker, now)
    return None


def take(db: Db, row: Job, worker: str) -> Claim:
    """A job that this transaction has put in, for the worker itself."""
    return _taken(row, worker, moment(db))


def _taken(row: Job, worker: str, now: float) -> Claim:
    row.state, row.worker, row.attempts = "running", worker, row.attempts + 1
    row.until, row.began = now + LEASE_SECONDS, now
    folder, at = Path(row.folder), Path(row.at)
    return Claim(row.id, row.kind, row.project_id, dict(row.settings), folder, at, worker, row.attempts)


def _ready(now: float) -> Any:
    """Jobs that wait and may be begun, and those that a worker left without a word."""
    return select(Job).where(Job.state.in_(OPEN), Job.until <= now)


def _is_here(row: Job) -> bool:
    return all(os.path.isdir(path) for path in (row.folder, row.at) if path)


def renew(store: Store, claim: Claim) -> bool:
    """Says that the worker lives; False where the job is no longer its own."""
    with store.write() as db:
        mine = _mine(claim).values(until=moment(db) + LEASE_SECONDS)
        return bool(db.execute(mine).rowcount)  # type: ignore[attr-defined]


def _mine(claim: Claim) -> Any:
    return update(Job).where(
        Job.id == claim.id, Job.state == "running", Job.worker == claim.worker, Job.attempts == claim.attempt
    )


def mine(db: Db, claim: Claim) -> Job:
    """The job's row, locked until the transaction ends, or Lost: nobody else can claim it while this one writes."""
    row = db.scalar(select(Job).where(Job.id == claim.id).with_for_update().execution_options(populate_existing=True))
    if row is None or (row.state, row.worker, row.attempts) != ("running", claim.worker, claim.attempt):
        raise Lost
    return row


def end(db: Db, claim: Claim, state: str, said: str = "", result: dict[str, Any] | None = None) -> None:
    """Done or failed, for good."""
    row = mine(db, claim)
    row.result = result or {}
    _close(row, state, said, moment(db))


def again(db: Db, claim: Claim, said: str) -> bool:
    """An attempt failed: the job waits for the next, or (False) has failed."""
    if claim.last:
        end(db, claim, "failed", said)
        return False
    row = mine(db, claim)
    row.state, row.said = "waiting", said
    row.until = moment(db) + PAUSE * 3 ** (claim.attempt - 1)
    return True


def give_back(db: Db, claim: Claim) -> None:
    """A worker that ends in good order: another one goes on at once, and the attempt counts for nothing."""
    row = mine(db, claim)
    row.state, row.attempts, row.until = "waiting", row.attempts - 1, moment(db)


def stop(db: Db, row: Job) -> None:
    """The worker that has it finds out when it renews its lease, or writes."""
    if row.state not in OPEN:
        raise Refused("The job is over.")
    _close(row, "stopped", "", moment(db))


def retry(db: Db, row: Job) -> Job | None:
    """A failed or stopped job anew, with all its attempts; None where another one of its kind is open."""
    if row.state in OPEN or row.state == "done":
        raise Refused("Only a failed or stopped job can be begun again.")
    folder = Path(row.folder) if row.folder else None
    return put(db, row.kind, row.project_id, row.settings, folder=folder, at=Path(row.at or "."))


def name_of(kind: str, project_id: str) -> str | None:
    """What may be open once: a project's round, and its figures. Labelers and samples may be at work side by side."""
    return f"{kind} {project_id}" if kind in ("round", "quality") else None


def _close(row: Job, state: str, said: str, now: float) -> None:
    row.state, row.said, row.alone, row.ended = state, said, None, now


def job_of(db: Db, job_id: int, project_id: str | None = None) -> Job:
    known = 0 < job_id < 2**53  # what any database takes as a number
    row = db.scalar(select(Job).where(Job.id == job_id).with_for_update()) if known else None
    if row is None or project_id not in (None, row.project_id):
        raise Refused("There is no such job.")
    return row


def listed(db: Db, project_id: str | None = None, most: int = SHOWN) -> list[Job]:
    """The newest first."""
    query = select(Job).order_by(Job.id.desc()).limit(most)
    return list(db.scalars(query if project_id is None else query.filter_by(project_id=project_id)))


def standing(row: Job, now: float) -> str:
    """A job's state as people read it."""
    if row.state == "waiting":
        return "waits" if row.until <= now else f"tried again in {max(1, round(row.until - now))} s"
    if row.state == "running" and row.until <= now:
        return "its worker is gone; another takes it"
    return row.state
