"""Runs as the pages show them: state, curves, samples by step, departures from defaults, differences, lineage."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from tutelage.configs import STAGES, TrainingConfig
from tutelage.errors import UserError
from tutelage.runs.files import read_json, read_log
from tutelage.runs.folder import FAILED
from tutelage.runs.lock import holder
from tutelage.runs.metrics import DRAWN_FIRST, METRICS

MOST_POINTS = 400
STALLED = 240  # seconds without a step
PACE = 20  # steps that the time left is told from
DEEPEST = 5
SAMPLES = 12
ON_POLICY = ("ppo", "rloo", "grpo", "online-dpo")
NOT_DRAWN = {"step", "seconds", "num_tokens", "episode", "epoch"}
NEITHER = {"objective/kl", "eval/kl", "grad_norm"}  # small is no aim by itself
KINDS = dict.fromkeys(("model", "reference", "policy", "base"), "model") | dict.fromkeys(
    ("reward_model", "critic", "judge"), "judge"
)
JUDGING = ("reward", "prm")  # stages that make judges
OWN = {"out", "resume", "json", "dry_run"}  # options that say nothing about what a run computes


@dataclass(frozen=True)
class RunView:
    """A run's folder, read. state: waiting, running, stalled, stopped, failed, finished.

    age: seconds since something was written; left: seconds that a running one still needs; saved: the last checkpoint's
    step; reason: why it failed.
    """

    name: str
    path: Path
    stage: str
    config: dict[str, Any]
    state: str
    steps: int
    total: int | None
    age: float
    left: float | None = None
    saved: int = 0
    reason: str = ""

    @property
    def can_resume(self) -> bool:
        return self.state in ("stopped", "failed") and issubclass(STAGES.get(self.stage, object), TrainingConfig)


def find_runs(root: Path) -> list[RunView]:
    """Every run below the folder, the last written first."""
    found: list[RunView] = []

    def look(folder: Path, depth: int) -> None:
        if (folder / "config.yaml").exists():
            found.append(read_run(root, folder.relative_to(root).as_posix()))
        elif depth:
            for inner in folder.iterdir():
                if inner.is_dir() and not inner.name.startswith("."):
                    look(inner, depth - 1)

    if root.is_dir():
        look(root, DEEPEST)
    return sorted(found, key=lambda run: run.age)


def read_run(root: Path, name: str) -> RunView:
    path = root / name
    inside = path.resolve().is_relative_to(root.resolve())
    if not inside or ".." in Path(name).parts or not (path / "config.yaml").is_file():
        raise UserError("there is no such run", mend="look at the list of runs")
    config = _config(path)
    rows = read_log(path / "metrics.jsonl")
    steps = int(rows[-1].get("step", 0)) if rows else 0
    written = max((p.stat().st_mtime for p in (path / "metrics.jsonl", path / "config.yaml") if p.exists()), default=0)
    summary, failure = read_json(path / "summary.json"), read_json(path / FAILED)
    age = max(0.0, time.time() - written)
    if summary is not None:
        state = "finished"
    elif holder(path):
        state = "stalled" if age > STALLED else "running" if rows else "waiting"
    else:
        state = "stopped" if failure is None else "failed"
    stage = str(config.pop("stage", "?"))
    total = (summary or {}).get("steps") or config.get("max_steps")
    left = _left(rows, total) if state == "running" else None
    reason = str(failure.get("reason", "")) if failure is not None and state == "failed" else ""
    return RunView(name, path, stage, config, state, steps, total, age, left, _saved(path), reason)


def _left(rows: Sequence[Mapping[str, Any]], total: int | None) -> float | None:
    """Seconds to the last step at the pace of the last ones; None where that is not known."""
    last = [row for row in rows[-PACE:] if isinstance(row.get("seconds"), int | float) and row.get("step")]
    if total is None or len(last) < 2 or last[-1]["step"] <= last[0]["step"]:
        return None
    pace = (last[-1]["seconds"] - last[0]["seconds"]) / (last[-1]["step"] - last[0]["step"])
    return max(0.0, pace * (total - last[-1]["step"]))


def _saved(path: Path) -> int:
    names = [folder.name.rpartition("-")[2] for folder in (path / "checkpoints").glob("step-*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def last_words(run: RunView) -> list[str]:
    """The end of what a resumption from the page said, where the run goes on no more."""
    log = run.path / "resumed.log"
    if run.state not in ("stopped", "failed") or not log.exists():
        return []
    text = log.read_text(encoding="utf-8", errors="replace")[-4000:]
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()][-4:]


def metrics_table(run: RunView) -> list[list[Any]]:
    """metrics.jsonl as a table: a column for each name, in the order in which they come; None where a step has none."""
    rows = read_log(run.path / "metrics.jsonl")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [names, *([row.get(name) for name in names] for row in rows)]


def _config(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def stop_run(run: RunView) -> str:
    """Ask the process that holds the run to stop after its step, with a checkpoint."""
    pid = holder(run.path)
    if pid is None:
        raise UserError("nobody is writing this run", mend="load the page again")
    os.kill(pid, signal.SIGTERM)
    return "It stops after this step, with a checkpoint; you can resume it."


def resume_run(run: RunView) -> str:
    """Go on with a stopped run, in a process of its own that outlives the server."""
    if not run.can_resume:
        raise UserError(f"the run is {run.state}", mend="only a stopped or failed training run can be resumed")
    words = [sys.executable, "-m", "tutelage", run.stage, "--config", str(run.path / "config.yaml"), "--resume"]
    words += ["--out", str(run.path)]
    with open(run.path / "resumed.log", "ab") as log:
        subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    return "It goes on where it was stopped; the first step may take a minute."


@dataclass(frozen=True)
class Series:
    metric: str
    points: list[tuple[float, float]]
    sentence: str


def curves(run: RunView) -> list[Series]:
    """Every metric of a run against its steps, the important ones first; thinned to at most 400 points."""
    rows = read_log(run.path / "metrics.jsonl")
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, int | float)))
    names = [name for name in names if name not in NOT_DRAWN and not name.startswith("time/")]
    names.sort(key=lambda name: DRAWN_FIRST.index(name) if name in DRAWN_FIRST else len(DRAWN_FIRST))
    found = []
    for name in names:
        points = [(float(r["step"]), float(r[name])) for r in rows if isinstance(r.get(name), int | float)]
        if points:
            judged = name not in NEITHER and not (name == "loss" and run.stage in ON_POLICY)
            found.append(Series(name, thinned(points), _sentence(name, points, judged)))
    return found


def thinned(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """The lowest and the highest point of each of most/2 stretches: no spike is lost."""
    if len(points) <= most:
        return list(points)
    size = -(-len(points) // (most // 2))
    kept = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        low, high = min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])
        kept += sorted({low, high})
    return kept


UNITS = {metric.name: (metric.unit, metric.better, metric.formula) for metric in METRICS}


def _sentence(name: str, points: Sequence[tuple[float, float]], judged: bool) -> str:
    """How it moved, and (where it is `judged`) whether that is the good direction."""
    unit, better, _ = UNITS.get(name, ("", None, ""))
    tail = max(1, len(points) // 20)
    first = sum(y for _, y in points[:tail]) / tail
    last = sum(y for _, y in points[-tail:]) / tail
    moved = "rose" if last > first else "fell" if last < first else "stayed"
    good = ""
    if judged and better in ("up", "down") and last != first:
        good = ": as it should" if (better == "up") == (last > first) else ": it should go the other way"
    return f"{name} {moved} {first:.3g} → {last:.3g}{'' if unit in ('', '1') else f' {unit}'}{good}"


def samples(run: RunView, step: int | None = None) -> tuple[list[int], int | None, list[dict[str, Any]]]:
    """The steps that have samples, the one shown (the last unless given), and its answers beside the first step's."""
    rows = read_log(run.path / "samples.jsonl")
    steps = sorted({row["step"] for row in rows if "step" in row})
    if not steps:
        return [], None, []
    at = step if step in steps else steps[-1]
    first = {row.get("prompt_id"): row for row in rows if row["step"] == steps[0]}
    shown = [{**row, "first": first.get(row.get("prompt_id"), {}).get("text", "")} for row in rows if row["step"] == at]
    return steps, at, shown[:SAMPLES]


def departures(run: RunView) -> tuple[list[tuple[str, Any, Any]], list[tuple[str, Any]]]:
    """(option, value, default) of what differs from the defaults, and the other options."""
    cls = STAGES.get(run.stage)
    defaults = {f.name: f.default for f in fields(cls)} if cls else {}
    differing, same = [], []
    for name, value in run.config.items():
        if name in OWN:
            continue
        default = defaults.get(name)
        plain = list(default) if isinstance(default, tuple) else default
        if name in defaults and value == plain:
            same.append((name, value))
        else:
            differing.append((name, value, plain))
    return differing, same


def differences(one: RunView, other: RunView) -> list[tuple[str, Any, Any]]:
    """(option, one's value, the other's) of the options that differ; None where a run has no such option."""
    names = [name for name in {"stage": None, **one.config, **other.config} if name not in OWN]
    ours, theirs = ({"stage": run.stage, **run.config} for run in (one, other))
    return [(name, ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)]


@dataclass(frozen=True)
class Source:
    """Something that a run is made of. kind: data, model or judge; run: its name below the folder of runs."""

    kind: str
    name: str
    sha256: str
    run: str | None = None
    inputs: tuple[tuple[str, int], ...] = ()  # (role, place in the list)


def lineage(run: RunView, root: Path) -> list[Source]:
    """From this run (first) back to the base: each run, checkpoint and file once, with what went into it.

    Empty while the run goes on: its lineage is written at its end.
    """
    found: list[Source] = []
    places: dict[str, int] = {}

    def visit(folder: Path, role: str) -> int | None:
        key = str(folder.resolve())
        if key in places:
            return places[key]
        row = read_json(folder / "lineage.json")
        if row is None:
            return None
        places[key] = place = len(found)
        inside = folder.resolve().is_relative_to(root.resolve())
        name = folder.resolve().relative_to(root.resolve()).as_posix() if inside else None
        found.append(Source("", "", ""))  # its place; filled when its inputs are known
        inputs = tuple((part, take(folder, part, one)) for part, one in row["inputs"].items())
        kind = "judge" if _config(folder).get("stage") in JUDGING else _kind(role)
        found[place] = Source(kind, name or folder.resolve().name, row["checkpoint"]["sha256"][:16], name, inputs)
        return place

    def take(folder: Path, role: str, one: Mapping[str, str]) -> int:
        if "lineage" in one and (made := visit((folder / one["lineage"]).parent, role)) is not None:
            return made
        key = one.get("sha256") or f"{_kind(role)} {one.get('name') or one.get('path', '')}"
        if key not in places:
            places[key] = len(found)
            path = one.get("path", "")
            name = one.get("name") or (path if _kind(role) == "data" else _model_name(path))
            found.append(Source(_kind(role), name, one.get("sha256", "")[:16]))
        return places[key]

    visit(run.path, "model")
    return found


def _kind(role: str) -> str:
    """Of an input by its role in lineage.json."""
    return KINDS.get(role, "data")


def _model_name(path: str) -> str:
    """A checkpoint's folder without the parts that every run has."""
    parts = [part for part in Path(path).parts if part != ".."]
    return "/".join(parts[-2:]) or path
