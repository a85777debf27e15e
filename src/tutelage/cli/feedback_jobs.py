"""`tutelage feedback jobs`, `work` and `figures`: the queue of a store, and processes that do what is in it."""

import os
import signal
from dataclasses import dataclass
from typing import Any

from tutelage.cli.feedback_store import StoreOptions, note, open_store
from tutelage.errors import UserError

YIELDING = 10  # how far a process stands back for those beside it


@dataclass(kw_only=True)
class JobsOptions(StoreOptions):
    """List the jobs of a store, the newest first; or stop one, or begin one again that failed or was stopped."""

    project: str | None = None
    """Of this project only."""
    stop: int | None = None
    """The number of a job that is to end."""
    again: int | None = None
    """The number of a job to begin again, with all its attempts."""


@dataclass(kw_only=True)
class WorkOptions(StoreOptions):
    """Do a store's jobs until SIGTERM or Ctrl-C, beside its servers, which do them too. A round and fresh answers are
    done where their folder is; the others anywhere."""

    once: bool = False
    """End when nothing is left to do."""


@dataclass(kw_only=True)
class FiguresOptions(StoreOptions):
    """Work out now the quality figures that a project's pages show. The server does it by itself, this way, in a process
    that takes only the time that the pages leave."""

    project: str


def jobs(options: JobsOptions) -> dict[str, Any]:
    from tutelage.feedback import jobs, rounds
    from tutelage.feedback.projects import find_project
    from tutelage.feedback.queue import Refused

    if options.stop is not None and options.again is not None:
        raise UserError("asks for both", where="options --stop and --again", mend="give one of them")
    store, number = open_store(options), options.stop if options.stop is not None else options.again
    if number is not None:
        try:
            with store.write() as db:
                row = jobs.job_of(db, number, options.project)
                rounds.change_job(db, row, "stop" if options.stop is not None else "again")
                note(db, "job: stop" if options.stop is not None else "job: again", f"{row.project_id}: {row.id}")
        except Refused as error:
            raise UserError(str(error), where=f"job {number}", mend="see `tutelage feedback jobs`") from error
    with store.read() as db:
        now = jobs.moment(db)
        if options.project is not None:
            find_project(db, options.project)
        found = [_told(row, jobs.standing(row, now)) for row in jobs.listed(db, options.project)]
    if options.json or not found:
        return {"jobs": found or ([] if options.json else "none yet")}
    return {f"job {row.pop('job')}": ", ".join(f"{name} {value}" for name, value in row.items()) for row in found}


def _told(row: Any, standing: str) -> dict[str, Any]:
    told = {"job": row.id, "project": row.project_id, "kind": row.kind, "state": standing, "attempts": row.attempts}
    return {**told, **({"worker": row.worker} if row.worker else {}), **({"said": row.said} if row.said else {})}


def figures(options: FiguresOptions) -> dict[str, Any]:
    from tutelage.feedback import figures

    if hasattr(os, "nice"):
        os.nice(YIELDING)
    store = open_store(options)
    number, found, took = figures.work_out(store, options.project)
    with store.write() as db:
        figures.keep(db, options.project, number, found, took)
    return {"project": options.project, "up_to_answer": number, "seconds": round(took, 2)}


def work(options: WorkOptions) -> dict[str, Any] | None:
    from tutelage.feedback import rounds
    from tutelage.feedback.jobs_run import LANES, Worker

    store = open_store(options)
    worker = Worker(store)
    if options.once:
        done = 0
        kinds = [kind for lane in LANES for kind in lane]
        rounds.wake(store)
        while worker.once(kinds):
            done += 1
            rounds.wake(store)
        return {"done": done}
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.ending.set())
    worker.start()
    worker.ending.wait()
    worker.stop()
    return None
