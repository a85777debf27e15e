"""Runs rounds step by step. Each step is a `tutelage` command of its own, so that a stop loses one step's work at most."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar

from sqlalchemy import func, select

from tutelage.configs.rounds import PROJECT
from tutelage.data.formats import write_jsonl
from tutelage.errors import UserError
from tutelage.feedback import rounds
from tutelage.feedback.projects import find_project, import_records, read_samples
from tutelage.feedback.round_prompts import chosen_prompts
from tutelage.feedback.rounds import (
    ACTIVE,
    PROGRESS,
    RoundSettings,
    environment,
    following,
    hold,
    labels,
    last_round,
    settings_of,
    shares,
    start_round,
    waiting,
)
from tutelage.feedback.schema import Round, Task
from tutelage.feedback.store import COMMAND_LINE, Store, StoreUnavailable, audit
from tutelage.records import Completion, Prompt

T = TypeVar("T")
POLL = 1.0  # seconds between looks at the store
HANDOVER = 5.0  # seconds in which a process that was stopped, or lost its parent, lets the round go
PATIENCE = 900.0  # seconds that the store may be away


class Stopped(Exception):
    """Somebody stopped the round."""


def patiently(work: Callable[[], T]) -> T:
    """What `work` returns, tried again while the database is restarted or its disk is full."""
    last = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except StoreUnavailable as error:
            if time.monotonic() > last:
                raise
            print(f"the store: {error}; tries again", file=sys.stderr, flush=True)
            time.sleep(POLL)


def run_rounds(
    store: Store, project_id: str, settings: RoundSettings, out: Path, *, count: int = 1, wait: bool = False
) -> list[dict[str, Any]]:
    """Go on with the open round, or begin one; then `count - 1` more. Returns what is known of each.

    Who starts a round from the page is in the audit log already, and the process that goes on with it adds nothing.
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
        finished = _Runner(store, project_id, row.number, Path(row.folder), settings_of(row), wait).run()
        told.append(finished)
        if finished["state"] != "done":
            break
    return told


class _Runner:
    def __init__(self, store: Store, project_id: str, number: int, folder: Path, settings: RoundSettings, wait: bool):
        self.store, self.project_id, self.number = store, project_id, number
        self.folder, self.settings, self.wait = folder, settings, wait
        self.lock: IO[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> dict[str, Any]:
        """The steps that are left; none where another process is at them."""
        if self._hold():
            assert self.lock is not None
            with self.lock:
                self._steps()
        return patiently(self._told)

    def _hold(self) -> bool:
        """Whether this process runs the round. Waits for a step that outlived its process; leaves the round to a
        process that gives signs of life."""
        seen, begun = None, time.monotonic()
        while (lock := hold(self.folder)) is None:
            row = patiently(self._read)
            beats = seen is not None and row.beat != seen
            if row.state not in ACTIVE or beats:
                return False
            if time.monotonic() > begun + HANDOVER:
                seen = row.beat
            time.sleep(POLL)
        self.lock = lock
        return True

    def _steps(self) -> None:
        steps: dict[str, Callable[[], str]] = {
            "sampling": self.sample,
            "labeling": self.label,
            "training": self.train,
        }
        state = patiently(self._begin)
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
            self.change(state="failed", said=str(error), stopped_at=state)
            raise
        except KeyboardInterrupt:  # somebody who is there; a signal to end finds the round taken up again
            self.change(state="stopped", stopped_at=state)
            raise

    def _begin(self) -> str:
        """The step that the round is at; says whether a server takes it up when this process was killed."""
        with self.store.write() as db:
            row = db.get_one(Round, (self.project_id, self.number))
            row.beat, row.result = time.time(), waiting(row.result, self.wait)
            return row.state

    def _read(self) -> Round:
        with self.store.read() as db:
            return db.get_one(Round, (self.project_id, self.number))

    def _told(self) -> dict[str, Any]:
        with self.store.read() as db:
            row = db.get_one(Round, (self.project_id, self.number))
            labeled, needed = labels(db, row)
        known = waiting(row.result, False)
        return {"round": self.number, "state": row.state, "labels": f"{labeled} of {needed}", **known}

    def look(self) -> Round:
        """The round as it stands; says that this process lives."""

        def beat() -> Round:
            with self.store.write() as db:
                row = db.get_one(Round, (self.project_id, self.number))
                row.beat = time.time()
                return row

        return patiently(beat)

    def change(self, **values: Any) -> None:
        patiently(lambda: self._change(**values))

    def _change(self, **values: Any) -> None:
        with self.store.write() as db:
            row = db.get_one(Round, (self.project_id, self.number))
            if row.state not in ACTIVE:
                raise Stopped
            row.beat = time.time()
            row.state = values.pop("state", row.state)
            row.said = values.pop("said", row.said)
            if values:
                row.result = {**row.result, **values}

    def command(self, *words: str) -> None:
        """A step; UserError with its last words where it fails."""
        shown = ["tutelage", *words]
        print(f"round {self.number}: {' '.join(shown)}", file=sys.stderr, flush=True)
        log, told = self.folder / "log.txt", self.folder / PROGRESS
        told.unlink(missing_ok=True)
        with log.open("ab") as file:
            process = subprocess.Popen(
                [*rounds.COMMAND, *words],
                env={**environment(self.store), "TUTELAGE_PROGRESS": os.path.abspath(told)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=(self.lock.fileno(),) if self.lock else (),  # held until the step has ended, too
                preexec_fn=_end_with_parent(),
            )
            try:
                while process.poll() is None:
                    if self.look().state not in ACTIVE:
                        raise Stopped
                    try:
                        process.wait(POLL)
                    except subprocess.TimeoutExpired:
                        continue
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if process.returncode:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = next((line for line in reversed(said) if line.strip()), "no word")
            raise UserError(f"failed: {last}", where=f"round {self.number}, {words[0]}", mend=f"see {log}; then go on")

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
            drawn += [replace(one, id=f"r{self.number}-{i}-{one.id}", text=_storable(one.text)) for one in completions]
        with self.store.write() as db:
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


def _storable(text: str) -> str:
    """A young model draws any byte; a zero is one that no database of text takes."""
    return text.replace("\x00", "\ufffd")


def _end_with_parent() -> Callable[[], None] | None:
    """For a step: on Linux it gets SIGTERM (training saves a checkpoint) when the process that started it is killed."""
    if sys.platform != "linux":
        return None
    library, parent, set_death_signal = ctypes.CDLL(None), os.getpid(), 1

    def ask() -> None:
        library.prctl(set_death_signal, int(signal.SIGTERM))
        if os.getppid() != parent:  # it was killed meanwhile
            os._exit(1)

    return ask
