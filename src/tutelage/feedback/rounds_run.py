"""Runs rounds step by step. Each step is a `tutelage` command of its own, so that a stop loses one step's work at most."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Db

from tutelage.configs.rounds import PROJECT
from tutelage.data.formats import write_jsonl
from tutelage.errors import UserError
from tutelage.feedback import jobs
from tutelage.feedback.imports import import_records, read_samples
from tutelage.feedback.jobs import Claim, Lost
from tutelage.feedback.lease import POLL, Lease, patiently, worker_name
from tutelage.feedback.projects import find_project
from tutelage.feedback.round_prompts import chosen_prompts
from tutelage.feedback.rounds import (
    ACTIVE,
    RoundSettings,
    enqueue,
    following,
    labels,
    last_round,
    locked,
    settings_of,
    shares,
    start_round,
    waiting,
)
from tutelage.feedback.schema import Round, Task
from tutelage.feedback.steps import StepFailed, run_step
from tutelage.feedback.store import COMMAND_LINE, Store, audit
from tutelage.records import Completion, Prompt


class Stopped(Exception):
    """Somebody stopped the round."""


def run_rounds(
    store: Store, project_id: str, settings: RoundSettings, out: Path, *, count: int = 1, wait: bool = False
) -> list[dict[str, Any]]:
    """Go on with the open round, or begin one; then `count - 1` more. Returns what is known of each.

    This process is the worker of the round's job; where it is killed, another worker of the store takes the job.
    """
    told = []
    for number in range(count):
        with store.write() as db:
            project = find_project(db, project_id)
            row = last_round(db, project)
            if row is None or row.state == "done":
                again = row is not None and (number > 0 or settings == RoundSettings())
                row = start_round(db, project, following(row) if again and row else settings, out)
                audit(db, COMMAND_LINE, "start round", f"{project_id}: {row.number}")
            elif row.state in ("stopped", "failed"):
                row.state = row.result.get("stopped_at", "sampling")
                audit(db, COMMAND_LINE, "round: continue", f"{project_id}: {row.number}")
            made = enqueue(db, row)
            claim = jobs.take(db, made, worker_name()) if made is not None else None
            other = jobs.open_job(db, f"round {project_id}")
        if claim is None and other is not None:
            claim = _claimed(store, other.id)
        if claim is not None:
            _in_the_foreground(store, claim, row, wait)
        told.append(patiently(lambda row=row: _told(store, row)))  # type: ignore[misc]
        if told[-1]["state"] != "done":
            break
    return told


def _claimed(store: Store, job_id: int) -> Claim | None:
    """The job, once its lease has ended; None where a worker lives that renews it."""
    seen = None
    while (claim := jobs.claim(store, worker_name(), ("round",), job_id)) is None:
        with store.read() as db:
            row = jobs.job_of(db, job_id)
        if row.state not in jobs.OPEN or (seen is not None and row.until != seen):
            return None
        seen = row.until
        time.sleep(POLL)
    return claim


def _in_the_foreground(store: Store, claim: Claim, row: Round, wait: bool) -> None:
    """Whoever sees the failure tries again: it is the round's, and no other worker's."""
    with Lease(store, claim) as lease:
        state, said = "done", ""
        try:
            with lease.write() as db:
                here = db.get_one(Round, (row.project_id, row.number))
                here.result = waiting(here.result, wait)
            Runner(lease, row, wait).run()
        except Lost:
            return
        except UserError as error:
            state, said = "failed", str(error)
            raise
        except BaseException:
            state = "stopped"
            raise
        finally:
            patiently(lambda: _ended(store, claim, state, said))


def _ended(store: Store, claim: Claim, state: str, said: str) -> None:
    try:
        with store.write() as db:
            jobs.end(db, claim, state, said)
    except Lost:
        return


def _told(store: Store, row: Round) -> dict[str, Any]:
    with store.read() as db:
        row = db.get_one(Round, (row.project_id, row.number))
        labeled, needed = labels(db, row)
    known = waiting(row.result, False)
    return {"round": row.number, "state": row.state, "labels": f"{labeled} of {needed}", **known}


def do_round(lease: Lease) -> dict[str, Any]:
    """The job of a round: the steps until people are asked, or those after that."""
    claim = lease.claim
    with lease.store.read() as db:
        row = db.get_one(Round, (claim.project_id, claim.settings["number"]))
    Runner(lease, row, wait=False, again=not claim.last).run()
    return {"round": row.number}


class Runner:
    def __init__(self, lease: Lease, row: Round, wait: bool, *, again: bool = False):
        """wait: for people. again: whether a step that failed for a reason that may pass is tried again by the queue."""
        self.lease, self.store, self.wait, self.again = lease, lease.store, wait, again
        self.project_id, self.number, self.settings = row.project_id, row.number, settings_of(row)
        self.folder = Path(row.folder)
        self.lock: IO[bytes] | None = None

    def run(self) -> None:
        """The steps that are left. Waits for a step that outlived its worker."""
        while (lock := locked(self.folder)) is None:
            if patiently(self.look).state not in ACTIVE:
                return
            time.sleep(POLL)
        self.lock = lock
        with lock:
            self._steps()

    def _steps(self) -> None:
        steps: dict[str, Callable[[], str]] = {
            "sampling": self.sample,
            "labeling": self.label,
            "training": self.train,
        }
        state = patiently(self.look).state
        try:
            while state in steps:
                following_state = patiently(steps[state])
                if following_state == state:  # people are at work
                    break
                self.change(state=following_state)
                state = following_state
        except Stopped:
            return
        except UserError as error:
            if not (self.again and isinstance(error, StepFailed)):
                self.change(state="failed", said=str(error), stopped_at=state)
            raise
        except KeyboardInterrupt:  # somebody who is there; a signal to end finds the round taken up again
            self.change(state="stopped", stopped_at=state)
            raise

    def look(self) -> Round:
        """The round as it stands; Lost or Ending where this worker is to leave it."""
        self.lease.check()
        with self.store.read() as db:
            return db.get_one(Round, (self.project_id, self.number))

    @contextmanager
    def write(self) -> Iterator[tuple[Db, Round]]:
        """A transaction of the worker that has the round; Stopped where somebody stopped it."""
        try:
            with self.lease.write() as db:
                row = db.get_one(Round, (self.project_id, self.number), with_for_update=True)
                if row.state not in ACTIVE:
                    raise Stopped
                yield db, row
        except Lost:
            with self.store.read() as db:
                if db.get_one(Round, (self.project_id, self.number)).state not in ACTIVE:
                    raise Stopped from None
            raise

    def change(self, **values: Any) -> None:
        patiently(lambda: self._change(**values))

    def _change(self, **values: Any) -> None:
        with self.write() as (_, row):
            row.state = values.pop("state", row.state)
            row.said = values.pop("said", row.said)
            if values:
                row.result = {**row.result, **values}

    def check(self) -> None:
        if patiently(self.look).state not in ACTIVE:
            raise Stopped

    def command(self, *words: str) -> None:
        """A step; UserError with its last words where it fails."""
        name, at = f"round {self.number}", self.lease.claim.at
        run_step(self.store, words, self.folder, self.check, name=name, at=at, lock=self.lock)

    def sample(self) -> str:
        """K answers a prompt, shared among the models; all of them into the queue, or none."""
        s = self.settings
        drawn: list[Completion] = []
        prompts: dict[str, Prompt] = {}
        asked_of = self.prompts()
        for i, (model, count) in enumerate(zip(s.model, shares(s), strict=True)):
            file = self.folder / f"samples-{i}.jsonl"
            if not file.exists():
                words = ["sample", "--model", model, *asked_of, "--prompts", str(s.prompts)]
                words += ["--samples", str(count), "--max-new-tokens", str(s.max_new_tokens)]
                words += ["--temperature", str(s.temperature), "--seed", str(self.number), "--out", str(file)]
                self.command(*words)
            asked, completions = read_samples(file)
            prompts |= {one.id: one for one in asked}
            drawn += [replace(one, id=f"r{self.number}-{i}-{one.id}", text=storable(one.text)) for one in completions]
        with self.write() as (db, _):
            project = find_project(db, self.project_id)
            done = import_records(
                db, project, prompts.values(), drawn, where=f"round {self.number}", number=self.number
            )
            mine = select(func.count()).where(Task.project_id == project.id, Task.round == self.number)
            items = db.scalar(mine)  # all of them, where a process was killed after it had brought them in
        self.change(items=items, left_out=len(done.left_out))
        if s.ensemble:
            self.command("feedback", "prioritize", "--project", self.project_id, "--reward-models", *s.ensemble)
        return "labeling"

    def prompts(self) -> list[str]:
        """The words that say which prompts: of the project's own, those that were chosen when the round began."""
        if self.settings.data != PROJECT:
            return ["--data", self.settings.data]
        file = self.folder / "prompts.jsonl"
        if not file.exists():
            with self.store.read() as db:
                found = chosen_prompts(db, find_project(db, self.project_id), self.settings.prompts)
            write_jsonl(file, found)
        return ["--data", str(file), "--split", "all"]

    def label(self) -> str:
        """ "labeling" where answers are missing and nobody waits for them."""
        if self.settings.by:
            self.command("label", "--by", self.settings.by, "--project", self.project_id)
            self._labeled_something()
        while True:
            row = self.look()
            if row.state not in ACTIVE:
                raise Stopped
            with self.store.read() as db:
                labeled, needed = labels(db, row)
            if labeled >= needed or row.enough:
                return "training"
            if not self.wait:
                return "labeling"
            time.sleep(POLL)

    def _labeled_something(self) -> None:
        """Else a round would wait for ever: the world's labelers, say, skip what is not the world's."""
        row = self.look()
        with self.store.read() as db:
            labeled, _ = labels(db, row)
        if not labeled:
            what = f"{self.settings.by} labeled none of the round's answers"
            raise UserError(what, where="the round's labelers", mend="choose others, or people, for these prompts")

    def train(self) -> str:
        """The recipe on the project's answers, those of earlier rounds too."""
        out = self.folder / "run"
        words = ["run", self.settings.recipe, "--model", self.settings.start, "--out", str(out)]
        words += ["--data", f"feedback:{self.project_id}"]
        if (out / "recipe.yaml").exists():
            words.append("--resume")
        self.command(*words)
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        card = report.get("reward_model") or {}
        stages = {one["name"]: one["checkpoint"] for one in report["stages"]}
        policies = [path for name, path in stages.items() if not name.startswith(("reward", "eval", "sample", "label"))]
        self.change(
            accuracy=card.get("accuracy"),
            accuracy_ci95=card.get("ci95"),
            comparisons=(report.get("data") or {}).get("comparisons"),
            reward_model=stages.get("reward"),
            policy=policies[-1] if policies else None,
            report=str(out / "report.html"),
        )
        return "done"


def storable(text: str) -> str:
    """A young model draws any byte; a zero is one that no database of text takes."""
    return text.replace("\x00", "\ufffd")
