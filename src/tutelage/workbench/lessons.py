"""Lab lessons as the page runs them: each attempt is a process of its own, in a folder of its own."""

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.runs.files import read_json, read_log
from tutelage.studies.lab import check_guesses, settings_of
from tutelage.studies.schema import Scenario, find, load_scenario

LOG = "log.txt"


@dataclass(frozen=True)
class Attempt:
    """state: running, failed, done."""

    name: str
    path: Path
    state: str
    guess: dict[str, Any]
    lesson: dict[str, Any] | None
    said: list[str]
    live: dict[str, list[tuple[float, float]]]


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
        if any(process.poll() is None for process in self.processes.values()):
            raise UserError("a lesson is running already", mend="wait until it ends: two would share the processor")
        name = f"{scenario.scenario}-{time.strftime('%Y%m%d-%H%M%S')}"
        folder = self.root / name
        folder.mkdir(parents=True)
        words = [
            sys.executable,
            "-m",
            "tutelage",
            "lab",
            scenario.scenario,
            "--out",
            str(folder),
            "--seeds",
            str(seeds),
        ]
        words += ["--sure", str(sure)] if sure is not None else []
        for option, given in (("--predict", guesses), ("--set", knobs)):
            words += [option, *(f"{key}={value}" for key, value in given.items())] if given else []
        with open(folder / LOG, "wb") as log:
            self.processes[name] = subprocess.Popen(
                words, stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL
            )
        return name

    def attempt(self, name: str) -> Attempt:
        path = self.root / name
        if not re.fullmatch(r"[a-z0-9-]{1,80}", name) or not (path / LOG).exists():
            raise UserError("there is no such attempt", mend="begin one")
        lesson, process = read_json(path / "lesson.json"), self.processes.get(name)
        running = lesson is None and process is not None and process.poll() is None
        text = (path / LOG).read_text(encoding="utf-8", errors="replace")
        said = [line for line in re.split(r"[\r\n]+", text) if line.strip()][-6:]
        state = "done" if lesson is not None else "running" if running else "failed"
        guess = read_json(path / "guess.json") or {"guesses": {}, "sure": None}
        return Attempt(name, path, state, guess, lesson, said, self._live(text) if running else {})

    def _live(self, text: str) -> dict[str, list[tuple[float, float]]]:
        """Reward and KL of the on-policy stage that the log named last."""
        stages = re.findall(r"→ (ppo[\w.-]*)", text)
        rows = read_log(self.root / "stages" / stages[-1] / "metrics.jsonl") if stages else []
        found = {}
        for metric in ("objective/scores", "objective/kl", "response_length/mean"):
            points = [(float(r["step"]), float(r[metric])) for r in rows if metric in r]
            if points:
                found[metric] = points
        return found

    def attempts(self, scenario: str) -> list[str]:
        """The newest first."""
        return sorted((p.parent.name for p in self.root.glob(f"{scenario}-[0-9]*/{LOG}")), reverse=True)
