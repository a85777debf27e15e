"""Lab lessons as the page runs them: each attempt is a process of its own, in a folder of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.runs.files import read_json, read_log, write_json
from tutelage.runs.lock import holder
from tutelage.studies.lab import check_guesses, settings_of
from tutelage.studies.schema import Scenario, find, load_scenario
from tutelage.workbench.watching import ON_POLICY

LOG = "log.txt"
ASKED = "attempt.json"  # what the attempt was begun with, to begin it again
STOP = "stop"  # there once somebody asked the attempt to stop


@dataclass(frozen=True)
class Attempt:
    """state: running, stopping, stopped, failed, done."""

    name: str
    path: Path
    state: str
    guess: dict[str, Any]
    lesson: dict[str, Any] | None
    said: list[str]
    live: dict[str, list[tuple[float, float]]]

    @property
    def is_running(self) -> bool:
        return self.state in ("running", "stopping")

    @property
    def can_resume(self) -> bool:
        return self.state in ("stopped", "failed") and (self.path / ASKED).exists()


class Lessons:
    """`root` is the lab's folder below the runs; the attempts of all lessons share the stages in it."""

    def __init__(self, root: Path):
        self.root = root
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def scenario(self, name: str) -> Scenario:
        if not re.fullmatch(r"[a-z0-9-]{1,40}", name):
            raise UserError("there is no such lesson", mend="look at the list")
        return load_scenario(find("lab", name))

    def start(
        self, scenario: Scenario, guesses: Mapping[str, Any], sure: int | None, knobs: Mapping[str, Any], seeds: int
    ) -> str:
        """Check everything, then begin; returns the attempt's name."""
        check_guesses(scenario, guesses, sure)
        settings_of(scenario, knobs, fast=False)
        if not 1 <= seeds <= 5:
            raise UserError(f"{seeds} seeds", mend="give 1 to 5")
        self._require_none_runs()
        name = f"{scenario.scenario}-{time.strftime('%Y%m%d-%H%M%S')}"
        (self.root / name).mkdir(parents=True)
        asked = {
            "scenario": scenario.scenario,
            "guesses": {**guesses},
            "sure": sure,
            "knobs": {**knobs},
            "seeds": seeds,
        }
        write_json(self.root / name / ASKED, asked)
        self._begin(name, asked)
        return name

    def resume(self, name: str) -> None:
        """Go on with an attempt that ended before its end: what is done is not done again."""
        found = self.attempt(name)
        asked = read_json(found.path / ASKED)
        if not found.can_resume or asked is None:
            raise UserError(f"the attempt is {found.state}", mend="only a stopped or failed one can go on")
        self._require_none_runs()
        (found.path / STOP).unlink(missing_ok=True)
        self._begin(name, asked)

    def stop(self, name: str) -> None:
        """Ask the process to stop after its step, with a checkpoint."""
        found = self.attempt(name)
        pid = self._pid(name)
        if pid is None:
            raise UserError(f"the attempt is {found.state}", mend="load the page again")
        (found.path / STOP).touch()
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGTERM)

    def _begin(self, name: str, asked: Mapping[str, Any]) -> None:
        """In a process of its own that outlives the server."""
        folder = self.root / name
        words = [sys.executable, "-m", "tutelage", "lab", asked["scenario"], "--out", str(folder)]
        words += ["--seeds", str(asked["seeds"])]
        words += ["--sure", str(asked["sure"])] if asked["sure"] is not None else []
        for option, given in (("--predict", asked["guesses"]), ("--set", asked["knobs"])):
            words += [option, *(f"{key}={value}" for key, value in given.items())] if given else []
        with open(folder / LOG, "ab") as log:
            self.processes[name] = subprocess.Popen(
                words, stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def _pid(self, name: str) -> int | None:
        """The process of an attempt: ours, or one that an earlier server began."""
        process = self.processes.get(name)
        if process is not None and process.poll() is None:
            return process.pid
        return holder(self.root / name)

    def _require_none_runs(self) -> None:
        if (running := self.running()) is not None:
            mend = "stop it, or wait until it ends: two would share the processor"
            raise UserError("a lesson is running already", where=running, mend=mend)

    def running(self) -> str | None:
        """The attempt that runs."""
        found = (log.parent.name for log in self.root.glob(f"*/{LOG}"))
        return next((name for name in found if self._pid(name) is not None), None)

    def attempt(self, name: str) -> Attempt:
        path = self.root / name
        if not re.fullmatch(r"[a-z0-9-]{1,80}", name) or not (path / LOG).exists():
            raise UserError("there is no such attempt", mend="begin one")
        lesson = read_json(path / "lesson.json")
        text = (path / LOG).read_text(encoding="utf-8", errors="replace")
        said = [line for line in re.split(r"[\r\n]+", text) if line.strip()][-6:]
        asked_to_stop = (path / STOP).exists()
        if lesson is not None:
            state = "done"
        elif self._pid(name) is not None:
            state = "stopping" if asked_to_stop else "running"
        else:  # one that was stopped from elsewhere says so itself, and how to go on
            by_signal = any(line.startswith("stopped") for line in said[-2:])
            state = "stopped" if asked_to_stop or by_signal else "failed"
        guess = read_json(path / "guess.json") or {"guesses": {}, "sure": None}
        return Attempt(name, path, state, guess, lesson, said, self._live(text) if lesson is None else {})

    def _live(self, text: str) -> dict[str, list[tuple[float, float]]]:
        """Reward and KL of the on-policy stage that the log named last."""
        stages = re.findall(rf"→ ((?:{'|'.join(ON_POLICY)})[\w.-]*)", text)
        rows = read_log(self.root / "stages" / stages[-1] / "metrics.jsonl") if stages else []
        found = {}
        for metric in ("objective/scores", "objective/kl", "response_length/mean"):
            points = [(float(r["step"]), float(r[metric])) for r in rows if metric in r]
            if points:
                found[metric] = points
        return found

    def attempts(self, scenario: str) -> list[Attempt]:
        """The newest first."""
        names = sorted((p.parent.name for p in self.root.glob(f"{scenario}-[0-9]*/{LOG}")), reverse=True)
        return [self.attempt(name) for name in names]
