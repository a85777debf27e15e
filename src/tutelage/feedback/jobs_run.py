"""Does the store's jobs: threads beside a server's pages, or a process of its own (`tutelage feedback work`)."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy.orm import Session as Db

from tutelage.data.formats import write_jsonl
from tutelage.errors import UserError
from tutelage.feedback import jobs, rounds
from tutelage.feedback.imports import import_records, read_samples
from tutelage.feedback.jobs import Lost
from tutelage.feedback.lease import Ending, Lease, patiently, worker_name
from tutelage.feedback.projects import find_project
from tutelage.feedback.round_prompts import chosen_prompts
from tutelage.feedback.rounds_run import do_round, storable
from tutelage.feedback.steps import StepFailed, run_step
from tutelage.feedback.store import Store, StoreUnavailable

IDLE = 1.0  # seconds between looks at the queue
WAKE = 5.0  # seconds between looks at the rounds that wait for labels
GRACE = 8.0  # seconds in which a step ends, with a checkpoint, when its worker does
LANES = (("quality",), ("round", "sample", "label"))  # so that figures need not wait for a training run


def _step(lease: Lease, *words: str) -> None:
    claim = lease.claim
    run_step(lease.store, words, claim.folder, lease.check, name=f"job {claim.id}", at=claim.at)


def do_sample(lease: Lease) -> dict[str, Any]:
    """Fresh answers of a model to the project's own prompts, into the queue: all of them, or none."""
    claim, wanted = lease.claim, lease.claim.settings
    asked, file = claim.folder / "prompts.jsonl", claim.folder / "samples.jsonl"
    if not asked.exists():
        with lease.store.read() as db:
            write_jsonl(asked, chosen_prompts(db, find_project(db, claim.project_id), wanted["prompts"]))
    if not file.exists():
        words = ["sample", "--model", wanted["model"], "--data", str(asked), "--split", "all"]
        words += ["--prompts", str(wanted["prompts"]), "--samples", str(wanted["samples"]), "--seed", str(claim.id)]
        words += ["--max-new-tokens", str(wanted["max_new_tokens"]), "--temperature", str(wanted["temperature"])]
        _step(lease, *words, "--out", str(file))
    prompts, drawn = read_samples(file)
    # Named for the folder: an attempt, or a job begun again, brings nothing in that is there.
    drawn = [replace(one, id=f"j{claim.folder.name}-{one.id}", text=storable(one.text)) for one in drawn]
    with lease.write() as db:
        done = import_records(db, find_project(db, claim.project_id), prompts, drawn, where=f"job {claim.id}")
    return {"items": done.tasks, "answers": done.completions}


def do_label(lease: Lease) -> dict[str, Any]:
    """AI or simulated labelers at the project's queue; what one has answered is not asked again."""
    _step(lease, "label", "--by", lease.claim.settings["by"], "--project", lease.claim.project_id)
    return {}


def do_quality(lease: Lease) -> dict[str, Any]:
    """In a process of its own: for seconds of resampling in this one every page would wait its turn."""
    claim = lease.claim
    with TemporaryDirectory() as folder:
        words = ("feedback", "figures", "--project", claim.project_id)
        run_step(lease.store, words, Path(folder), lease.check, name=f"job {claim.id}")
    return {}


DO: dict[str, Callable[[Lease], dict[str, Any]]] = {
    "round": do_round,
    "sample": do_sample,
    "label": do_label,
    "quality": do_quality,
}


def do(lease: Lease) -> None:
    """One job: to its end, back into the queue, or left to the worker that took it."""
    claim = lease.claim
    ending: Callable[[Db], object]
    try:
        ending = partial(jobs.end, claim=claim, state="done", result=DO[claim.kind](lease))
    except Lost:
        return
    except Ending:
        ending = partial(jobs.give_back, claim=claim)
    except StepFailed as error:
        ending = partial(jobs.again, claim=claim, said=str(error))
    except UserError as error:
        ending = partial(jobs.end, claim=claim, state="failed", said=str(error))
    except Exception as error:
        traceback.print_exc()
        ending = partial(jobs.again, claim=claim, said=f"{type(error).__name__}: {error}")

    def end() -> None:
        with lease.store.write() as db:
            ending(db)

    try:
        patiently(end)
    except Lost:
        return


class Worker:
    """Threads that look for jobs, one for each lane, until `stop`; what they have then goes back into the queue."""

    def __init__(self, store: Store, lanes: Sequence[Sequence[str]] = LANES):
        self.store, self.name = store, worker_name()
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._work, args=(lane,), daemon=True) for lane in lanes]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.ending.set()
        last = time.monotonic() + GRACE
        for thread in self.threads:
            thread.join(max(0.0, last - time.monotonic()))

    def _work(self, kinds: Sequence[str]) -> None:
        woken = 0.0
        while not self.ending.is_set():
            try:
                if "round" in kinds and time.monotonic() - woken > WAKE:
                    woken = time.monotonic()
                    rounds.wake(self.store)
                if self.once(kinds):
                    continue
            except StoreUnavailable:
                pass  # it is tried again
            except Exception:
                traceback.print_exc()
            self.ending.wait(IDLE)

    def once(self, kinds: Sequence[str]) -> bool:
        """Do the next job; False where none is ready."""
        claim = jobs.claim(self.store, self.name, kinds)
        if claim is None:
            return False
        print(f"job {claim.id} ({claim.kind} of {claim.project_id}), attempt {claim.attempt}", file=sys.stderr)
        with Lease(self.store, claim, self.ending) as lease:
            do(lease)
        return True


@contextmanager
def working(store: Store) -> Iterator[Worker]:
    """Jobs are done in the block, beside whatever else is done there."""
    worker = Worker(store)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
