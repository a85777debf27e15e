"""Runs rounds step by step. Each step is a `tutelage` command of its own, so that a stop loses one step's work at most."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tutelage.configs.rounds import PROJECT
from tutelage.data.formats import write_jsonl
from tutelage.errors import UserError
from tutelage.feedback.projects import find_project, import_records, read_samples
from tutelage.feedback.round_prompts import chosen_prompts
from tutelage.feedback.rounds import (
    ACTIVE,
    PROGRESS,
    RoundSettings,
    environment,
    following,
    labels,
    last_round,
    settings_of,
    shares,
    start_round,
)
from tutelage.feedback.schema import Round
from tutelage.feedback.store import COMMAND_LINE, Store, audit
from tutelage.records import Completion, Prompt

POLL = 1.0  # seconds between looks at the store


class Stopped(Exception):
    """Somebody stopped the round."""


def run_rounds(
    store: Store, project_id: str, settings: RoundSettings, out: Path, *, rounds: int = 1, wait: bool = False
) -> list[dict[str, Any]]:
    """Go on with the open round, or begin one; then `rounds - 1` more. Returns what is known of each.

    Who starts a round from the page is in the audit log already, and the process that goes on with it adds nothing.
    """
    told = []
    for number in range(rounds):
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
        folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> dict[str, Any]:
        steps: dict[str, Callable[[], str]] = {
            "sampling": self.sample,
            "labeling": self.label,
            "training": self.train,
        }
        state = self.look().state
        try:
            while state in steps:
                following_state = steps[state]()
                if following_state == state:  # people are at work
                    break
                self.change(state=following_state)
                state = following_state
        except Stopped:
            state = "stopped"
        except UserError as error:
            self.change(state="failed", said=str(error), stopped_at=state)
            raise
        with self.store.read() as db:
            row = db.get_one(Round, (self.project_id, self.number))
            labeled, needed = labels(db, row)
        return {"round": self.number, "state": row.state, "labels": f"{labeled} of {needed}", **row.result}

    def look(self) -> Round:
        """The round as it stands; says that this process lives."""
        with self.store.write() as db:
            row = db.get_one(Round, (self.project_id, self.number))
            row.beat = time.time()
            return row

    def change(self, **values: Any) -> None:
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
                [sys.executable, "-m", "tutelage", *words],
                env={**environment(self.store), "TUTELAGE_PROGRESS": os.path.abspath(told)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
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
        self.change(items=done.tasks, left_out=len(done.left_out))
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
