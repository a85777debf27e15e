"""A run is a folder; everything in it is written whole or not at all.

    config.yaml  metrics.jsonl  samples.jsonl  checkpoints/step-N/{model,state}  checkpoints/latest  summary.json

A checkpoint is written beside its final name and renamed when complete, so that a process killed at
any moment leaves the last complete one in place. Resuming drops what the logs hold past it.
"""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

import yaml

from tutelage.errors import UserError
from tutelage.runs.files import (
    append_rows,
    naming_full_disk,
    point_link,
    remove_folder,
    sync_file,
    sync_folder,
    sync_tree,
    write_json,
    write_text,
)
from tutelage.runs.lock import lock_folder
from tutelage.runs.manifest import damage, write_manifest

# What may differ between a run and its resumption: these change when it stops, what it prints, whether it may
# start or how it fits into memory, not what it computes.
HARMLESS = frozenset({"resume", "json", "max_steps", "out", "dry_run", "save_every", "micro_tokens", "force"}) | {
    *("parallel", "activation_checkpointing", "device", "stall_seconds", "spike", "rollbacks")
}
POSITION = ("start_step", "last_row", "seconds_before")
LOGS = ("metrics.jsonl", "samples.jsonl")
FAILED = "failed.json"  # why a run ended before its end, other than by being stopped; gone once it is resumed
STRICT = "TUTELAGE_STRICT_METRICS"  # set in the tests: a metric that is not registered is then an error


class Run:
    """One stage's folder. `start_step` is the number of steps already done (0 for a new run).

    In a step, `log` comes before `save`: a resumed run keeps the rows up to its checkpoint's step.
    """

    def __init__(self, path: Path, stage: str):
        self.path, self.stage = path, stage
        self.start_step = 0
        self.last_row: dict[str, Any] = {}
        self.seconds_before = 0.0
        self.started = time.perf_counter()
        self.lock: IO[bytes] | None = None
        self.writes = True

    @classmethod
    def following(cls, out: str | Path, stage: str, known: dict[str, Any]) -> Self:
        """The run that the main process has opened, in a process that writes nothing; known: the main's `position`."""
        run = cls(Path(out).expanduser(), stage)
        run.writes = False
        run.start_step, run.last_row, run.seconds_before = (known[name] for name in POSITION)
        return run

    @property
    def position(self) -> dict[str, Any]:
        """Where the run goes on."""
        return {name: getattr(self, name) for name in POSITION}

    @classmethod
    def open(
        cls, out: str | Path, *, stage: str, config: dict[str, Any], resume: bool, total: int | None = None
    ) -> Self:
        """A new run of `total` steps, or with resume the one in `out` (a new one if nothing is there)."""
        run = cls(Path(out).expanduser(), stage)
        exists = check_out(out, stage=stage, config=config, resume=resume)
        try:
            with naming_full_disk(run.path):
                run.checkpoints.mkdir(parents=True, exist_ok=True)
                run.lock = lock_folder(run.path)
                if exists:
                    run._find_checkpoint()
                    run._check_total(total)
                    run._drop_later_rows()
                    (run.path / FAILED).unlink(missing_ok=True)
                write_config(run.path, stage, config)
        except OSError as error:
            what = f"cannot be written ({error.strerror})"
            raise UserError(what, where=str(run.path), mend="choose another --out") from error
        run.started = time.perf_counter()
        return run

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def _find_checkpoint(self) -> None:
        """Clear what a killed process left, find the newest checkpoint, and make the links true again."""
        for leftover in self.checkpoints.glob(".tmp-*"):
            shutil.rmtree(leftover)
        steps = sorted(self._steps(), reverse=True)
        faults = {step: fault for step in steps if (fault := damage(self.checkpoints / f"step-{step}"))}
        if steps and len(faults) == len(steps):
            step, fault = next(iter(faults.items()))
            what = f"no checkpoint is whole (step {step}: {fault})"
            raise UserError(what, where=str(self.path), mend="begin anew with another --out")
        for step, fault in faults.items():
            print(
                f"{self.path}: the checkpoint of step {step} is damaged ({fault}) and is thrown away", file=sys.stderr
            )
            remove_folder(self.checkpoints / f"step-{step}")
        self.start_step = max(self._steps(), default=0)
        if self.start_step:
            self._link_and_prune()

    def _check_total(self, total: int | None) -> None:
        """A finished run that is to take more steps is not finished any longer; one cannot take fewer."""
        if total is None or total == self.start_step:
            return
        if total < self.start_step:
            what = f"has done {self.start_step} steps already, more than the {total} that are asked for"
            raise UserError(what, where=str(self.path), mend="give a larger --max-steps, or choose another --out")
        (self.path / "summary.json").unlink(missing_ok=True)

    def _drop_later_rows(self) -> None:
        """Keep the rows of the logs up to the checkpoint; a half-written last line goes too."""
        for name in LOGS:
            path = self.path / name
            if not path.exists():
                continue
            *lines, rest = path.read_bytes().split(b"\n")
            rows = [_parsed(line, path, number) for number, line in enumerate(lines, 1)]
            kept = [line for line, row in zip(lines, rows, strict=True) if row["step"] <= self.start_step]
            if rest or len(kept) < len(lines):
                write_text(path, b"".join(line + b"\n" for line in kept).decode())
            if name == "metrics.jsonl" and kept:
                self.last_row = json.loads(kept[-1])
                self.seconds_before = self.last_row["seconds"]

    def release(self) -> None:
        """Let another Run of this process have the folder."""
        if self.lock is not None:
            self.lock.close()

    def abandon(self) -> None:
        """Leave nothing of a run that came to no step, so that a user's mistake does not block the folder."""
        if self.writes and not self.start_step and not any((self.path / name).exists() for name in LOGS):
            for name in ("config.yaml", ".lock"):
                (self.path / name).unlink(missing_ok=True)
            for folder in (self.checkpoints, self.path):
                with suppress(OSError):  # the user's own files keep it
                    folder.rmdir()

    def note_failure(self, error: BaseException) -> None:
        """Leave in the folder why the run broke off; nothing where it could not be written, or was abandoned."""
        if self.writes and (self.path / "config.yaml").exists():
            reason = error.message if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            with suppress(OSError):
                write_json(self.path / FAILED, {"step": self.last_row.get("step", self.start_step), "reason": reason})

    def elapsed(self) -> float:
        """Seconds of work so far, earlier sittings included."""
        return self.seconds_before + time.perf_counter() - self.started

    def log(self, row: dict[str, Any]) -> None:
        """Append one step's metrics. A number that is not finite stops the run and names the metric."""
        if os.environ.get(STRICT):
            from tutelage.runs.metrics import check_names

            check_names(row, self.stage)
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                what = f"{self.stage}, step {row['step']}: {name} is {value}"
                raise FloatingPointError(f"{what}; lower the learning rate, and check the data")
        self.last_row = {"step": row["step"], "seconds": round(self.elapsed(), 4), **row}
        if self.writes:
            append_rows(self.path / "metrics.jsonl", [self.last_row])

    def add_samples(self, rows: list[dict[str, Any]]) -> None:
        """Append samples of the model's text, each with the `step` it comes from."""
        if self.writes:
            append_rows(self.path / "samples.jsonl", rows)

    def save(
        self,
        step: int,
        write_model: Callable[[Path], None],
        write_state: Callable[[Path], None] | None,
        *,
        best: bool = False,
    ) -> Path:
        """Write checkpoints/step-N/{model,state}, point `latest` at it, drop older ones but the one before and `best`.

        Each of the two fills a folder, and the processes that follow take part in it. `best` marks the step as the
        best so far in the same move, so that a kill cannot part the two. Whatever fails, the checkpoints before are
        untouched and nothing half-written stays.
        """
        temporary, final = self.checkpoints / f".tmp-step-{step}", self.checkpoints / f"step-{step}"
        if not self.writes:
            write_model(temporary / "model")
            if write_state is not None:
                write_state(temporary / "state")
            return final / "model"
        with naming_full_disk(final):
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                for part in ("model", "state"):
                    (temporary / part).mkdir(parents=True)
                write_model(temporary / "model")
                if write_state is not None:
                    write_state(temporary / "state")
                if best:
                    (temporary / "state" / "best").touch()
                write_manifest(temporary)
                sync_tree(temporary)
                for log in LOGS:
                    with suppress(FileNotFoundError):
                        sync_file(self.path / log)
                os.rename(temporary, final)
                sync_folder(self.checkpoints)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            self._link_and_prune()
        return final / "model"

    def _link_and_prune(self) -> None:
        """What follows from the newest checkpoint; done again when a run that was killed before is resumed."""
        newest = self.checkpoints / f"step-{max(self._steps())}"
        point_link(self.checkpoints / "latest", newest / "model")
        if (newest / "state" / "best").exists():
            point_link(self.checkpoints / "best", newest / "model")
        best, kept = self.best(), sorted(self._steps())[-2:]  # the one before is there if the newest is damaged
        for step in self._steps():
            old = self.checkpoints / f"step-{step}"
            if step not in kept and (best is None or old.resolve() != best.parent):
                remove_folder(old)

    def _steps(self) -> list[int]:
        names = [path.name.removeprefix("step-") for path in self.checkpoints.glob("step-*")]
        return [int(name) for name in names if name.isdecimal()]

    def best(self) -> Path | None:
        link = self.checkpoints / "best"
        return link.resolve() if link.exists() else None

    def resume_model(self) -> Path | None:
        """The model to go on from, or None for a new run."""
        return self.checkpoints / f"step-{self.start_step}" / "model" if self.start_step else None

    def resume_state(self) -> Path | None:
        """The folder with the state of the checkpoint to go on from, or None for a new run."""
        return self.checkpoints / f"step-{self.start_step}" / "state" if self.start_step else None

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write summary.json, which says that the stage is complete, and return it."""
        done = {"stage": self.stage, "seconds": round(self.elapsed(), 2), **summary}
        write_json(self.path / "summary.json", done)
        return done


def check_out(out: str | Path, *, stage: str, config: dict[str, Any], resume: bool) -> bool:
    """Whether `out` holds this very run, to go on with. A UserError where neither that nor a new run is possible.

    Writes nothing and loads nothing, so that a long preparation does not end in a refusal.
    """
    path = Path(out).expanduser()
    check_folder(path)
    if (path / "config.json").exists():
        raise UserError("is a model's folder", where=str(path), mend="choose another --out")
    if not (path / "config.yaml").exists():
        return False
    if not resume:
        mend = "add --resume to go on with it, or choose another --out"
        raise UserError("holds a run already", where=str(path), mend=mend)
    check_same(path, stage, config)
    return True


def check_folder(path: Path) -> None:
    """A UserError where a folder can be neither made nor written."""
    above = next((p for p in [path, *path.absolute().parents] if p.exists()), path)
    if not above.is_dir():
        raise UserError("is a file, not a folder", where=str(above), mend="choose another --out")
    if not os.access(above, os.W_OK):
        raise UserError("cannot be written", where=str(above), mend="choose another --out")


def write_config(folder: Path, stage: str, config: dict[str, Any]) -> None:
    """config.yaml: every effective value."""
    write_text(folder / "config.yaml", yaml.safe_dump({"stage": stage, **_plain(config)}, sort_keys=False))


def check_same(folder: Path, stage: str, config: dict[str, Any], harmless: frozenset[str] = HARMLESS) -> None:
    """A UserError that names the options which differ from those that the folder's config.yaml holds."""
    path = folder / "config.yaml"
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        what = f"cannot be read ({' '.join(str(error).split())})"
        raise UserError(what, where=str(path), mend="choose another --out") from error
    if not isinstance(stored, dict) or stored.get("stage") != stage:
        was = stored.get("stage") if isinstance(stored, dict) else None
        what = f"holds a run of {was or 'something else'}, not of {stage}"
        raise UserError(what, where=str(folder), mend="choose another --out")
    now = _plain(config)
    differing = [key for key in now if key not in harmless and stored.get(key) != now[key]]
    if differing:
        changes = ", ".join(f"{key}: {stored.get(key)!r} then, {now[key]!r} now" for key in differing)
        what = f"the run was made with other options ({changes})"
        raise UserError(what, where=str(folder), mend="resume with the same options, or choose another --out")


def finished(folder: Path) -> dict[str, Any] | None:
    """The summary of a completed stage, or None."""
    path = folder / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(config, default=str))


def _parsed(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            return row
        fault = "it has no step"
    except ValueError as error:
        fault = str(error)
    mend = "restore the file, or choose another --out"
    raise UserError(f"is no row of a log ({fault})", where=f"{path}, row {number}", mend=mend)
