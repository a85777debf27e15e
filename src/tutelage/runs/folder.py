"""A run is a folder; everything in it is written whole or not at all.

    config.yaml  metrics.jsonl  samples.jsonl  checkpoints/step-N/{model,state}  checkpoints/latest  summary.json

A checkpoint is written beside its final name and renamed when complete, so that a process killed at
any moment leaves the last complete one in place. Resuming drops what the logs hold past it.
"""

import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self

import yaml

from tutelage.errors import UserError
from tutelage.runs.checkpoints import STATE, fault_of, load_state, read_manifest, save_state, write_manifest
from tutelage.runs.files import (
    DiskFullError,
    append_text,
    atomic_write_json,
    atomic_write_text,
    naming_full_disk,
    parse_row,
    point_link,
    read_jsonl_rows,
    remove_folder,
    replace_folder,
    restore_folders,
    sync_file,
    sync_tree,
)
from tutelage.runs.metrics import check_names

__all__ = [
    "DiskFullError",
    "NotFiniteError",
    "Run",
    "atomic_write_json",
    "atomic_write_text",
    "finished",
    "read_jsonl_rows",
]

# What may differ between a run and its resumption: these change when it stops, what it prints or how it fits
# in memory, not what it computes.
HARMLESS_KEYS = frozenset({"resume", "json", "max_steps", "out", "dry_run", "save_every", "micro_tokens", "force"})
LOGS = ("metrics.jsonl", "samples.jsonl")
STAGE_LINE = "# stage: "
STRICT = "TUTELAGE_STRICT_METRICS"  # set in the tests: an unregistered metric is then an error


class NotFiniteError(FloatingPointError):
    """A metric became NaN or infinite; nothing was written. `message` names it and its step."""

    def __init__(self, stage: str, step: int, name: str, value: float):
        self.stage, self.step, self.name, self.value = stage, step, name, value
        self.message = f"{stage}, step {step}: {name} is {value}; lower the learning rate or check the data"
        super().__init__(self.message)


class Run:
    """One stage's folder. `start_step` is the number of steps already done (0 for a new run).

    In a step, `log` comes before `save`: a resumed run keeps the rows up to its checkpoint's step.
    """

    def __init__(self, path: Path, stage: str):
        self.path, self.stage = path, stage
        self.start_step = 0
        self.last_row: dict[str, Any] = {}
        self._seconds_before = 0.0
        self._started = time.perf_counter()
        self._lock: IO[bytes] | None = None

    @classmethod
    def open(cls, out: str | Path, *, stage: str, config: dict[str, Any], resume: bool) -> Self:
        """A new run, or with resume the one in `out` (a new one if nothing is there).

        Raises UserError where `out` holds a run and resume is not given, where it cannot be written, where the
        stored options differ, where no checkpoint is complete, and where another process is writing the run.
        """
        run = cls(Path(out).expanduser(), stage)
        if holds_run(run.path):
            if not resume:
                mend = "add --resume to go on, or choose another --out"
                raise UserError("holds a run already", where=str(run.path), mend=mend)
            run._reopen(_plain(config))
        else:
            run._create(_plain(config))
        return run

    # Opening

    def _create(self, config: dict[str, Any]) -> None:
        with self._writable():
            self.path.mkdir(parents=True, exist_ok=True)
            self._acquire()
            self._write_config(config)
            self._checkpoints.mkdir(exist_ok=True)

    def _reopen(self, config: dict[str, Any]) -> None:
        stored = self._stored_config()
        self._check_same(stored, config)
        with self._writable():
            self._acquire()
            self._checkpoints.mkdir(exist_ok=True)
            self._find_checkpoint()
            steps = config.get("max_steps")
            if steps is not None and steps < self.start_step:
                what = f"{self.start_step} steps are done already, more than --max-steps {steps}"
                raise UserError(what, where=str(self.path), mend="give a larger --max-steps, or choose another --out")
            if steps != stored.get("max_steps"):
                (self.path / "summary.json").unlink(missing_ok=True)  # there is more to do than there was
            if config != stored:
                self._write_config(config)
            for name in LOGS:
                rows = self._drop_after(name, self.start_step)
                if name == "metrics.jsonl" and rows:
                    self.last_row = rows[-1]
                    self._seconds_before = float(rows[-1].get("seconds", 0.0))
        self._started = time.perf_counter()

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """A folder that cannot be written is the user's to mend, a full disk apart."""
        try:
            with self._naming_full_disk(self.path):
                yield
        except OSError as error:
            what = f"cannot be written ({error.strerror})"
            raise UserError(what, where=str(self.path), mend="check permissions, or choose another --out") from error

    def _acquire(self) -> None:
        """Hold the run for this process; the system lets go when it ends, however it ends."""
        self._lock = open(self.path / ".lock", "ab")  # noqa: SIM115 (held as long as the run)
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            self._lock.close()
            mend = "wait until it ends, or choose another --out"
            raise UserError("another process is writing this run", where=str(self.path), mend=mend) from error
        except OSError:
            pass  # a file system without locks

    def _write_config(self, config: dict[str, Any]) -> None:
        values = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
        atomic_write_text(self.path / "config.yaml", f"{STAGE_LINE}{self.stage}\n{values}")

    def _stored_config(self) -> dict[str, Any]:
        path = self.path / "config.yaml"
        try:
            text = path.read_text(encoding="utf-8")
            stored = yaml.safe_load(text) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            what = f"cannot be read ({str(error).splitlines()[0]})"
            raise UserError(what, where=str(path), mend="restore the file, or choose another --out") from error
        stage = text.splitlines()[0].removeprefix(STAGE_LINE) if text.startswith(STAGE_LINE) else None
        if stage != self.stage or not isinstance(stored, dict):
            what = f"holds a run of {stage or 'something else'}, not of {self.stage}"
            raise UserError(what, where=str(self.path), mend="choose another --out")
        return stored

    def _check_same(self, stored: dict[str, Any], config: dict[str, Any]) -> None:
        absent = object()
        keys = [key for key in {**stored, **config} if key not in HARMLESS_KEYS]
        differing = [key for key in keys if stored.get(key, absent) != config.get(key, absent)]
        if differing:
            changes = ", ".join(f"{k}: {_shown(stored, k)} then, {_shown(config, k)} now" for k in differing)
            mend = "resume with the same options, or choose another --out"
            raise UserError(f"the run has other options ({changes})", where=str(self.path), mend=mend)

    def _find_checkpoint(self) -> None:
        """Clear what a killed process left, find the newest complete checkpoint, and make the links true again."""
        for leftover in [*self.path.glob(".*.tmp"), *self._checkpoints.glob(".*.tmp")]:
            leftover.unlink()
        for leftover in self._checkpoints.glob(".tmp-*"):
            shutil.rmtree(leftover)
        restore_folders(self._checkpoints)
        damaged = []
        for step in sorted(self._steps(), reverse=True):
            fault = fault_of(self._step_folder(step))
            if fault is None:
                self.start_step = step
                break
            damaged.append((self._step_folder(step), fault))
        if damaged and not self.start_step:
            folder, fault = damaged[0]
            raise UserError(f"the checkpoint is damaged: {fault}", where=str(folder), mend="choose another --out")
        for folder, _ in damaged:
            remove_folder(folder)
        if self.start_step:
            manifest = read_manifest(self._step_folder(self.start_step))
            self._point("latest", self.start_step)
            if manifest["best"]:
                self._point("best", self.start_step)
            self._prune(manifest["keep"])
        best = self._checkpoints / "best"
        if best.is_symlink() and not best.exists():
            best.unlink()

    def _drop_after(self, name: str, step: int) -> list[dict[str, Any]]:
        """Keep a log's rows up to the checkpoint; a half-written last line goes too. The rows kept."""
        path = self.path / name
        if not path.exists():
            return []
        lines = path.read_bytes().splitlines(keepends=True)
        rows = []
        for number, line in enumerate(lines, start=1):
            try:
                row = parse_row(line, path, number)
            except UserError:
                if number == len(lines) and not line.endswith(b"\n"):
                    continue
                raise
            rows.append((row, line))
        kept = [(row, line) for row, line in rows if row.get("step", 0) <= step]
        if len(kept) < len(lines):
            atomic_write_text(path, b"".join(line for _, line in kept).decode("utf-8"))
        return [row for row, _ in kept]

    # Writing

    def elapsed(self) -> float:
        """Seconds of work so far, earlier sittings included."""
        return self._seconds_before + time.perf_counter() - self._started

    def log(self, row: dict[str, Any]) -> None:
        """Append one step's metrics, with `seconds` so far unless given; it is in the file when this returns.

        Raises ValueError without a step, NotFiniteError (nothing written) for NaN or infinity, DiskFullError.
        """
        row = _numbers(row)
        step = row.get("step")
        if not isinstance(step, int):
            raise ValueError(f"a row of metrics needs an integer step, got {step!r}")
        if os.environ.get(STRICT):
            check_names(row)
        for name, value in _floats(row):
            if not math.isfinite(value):
                raise NotFiniteError(self.stage, step, name, value)
        self.last_row = {"step": step, "seconds": round(self.elapsed(), 3), **row}
        self._append("metrics.jsonl", [self.last_row])

    def add_samples(self, rows: list[dict[str, Any]]) -> None:
        """Append samples of the model's text, each with the `step` it comes from. Raises ValueError, DiskFullError."""
        if any(not isinstance(row.get("step"), int) for row in rows):
            raise ValueError("every sample needs an integer step")
        self._append("samples.jsonl", [_numbers(row) for row in rows])

    def save(
        self,
        step: int,
        write_model: Callable[[Path], None],
        state: dict[str, Any] | None,
        *,
        keep: int = 1,
        best: bool = False,
    ) -> Path:
        """Write checkpoints/step-N/{model,state}, point `latest` at it, drop all but the newest `keep` and `best`.

        write_model is given the (existing, empty) folder to fill. state: see checkpoints.save_state; None stores
        none. best marks it in the same move, so that a kill cannot part the two. Returns the model's folder.
        Raises DiskFullError; whatever fails, the checkpoints before are untouched and nothing half-written stays.
        """
        if step < 1 or keep < 1:
            raise ValueError(f"step and keep must be at least 1, got {step} and {keep}")
        temporary, final = self._checkpoints / f".tmp-step-{step}", self._step_folder(step)
        with self._naming_full_disk(final):
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                (temporary / "model").mkdir(parents=True)
                (temporary / "state").mkdir()
                write_model(temporary / "model")
                if state is not None:
                    save_state(temporary / "state" / STATE, state)
                write_manifest(temporary, best=best, keep=keep)
                sync_tree(temporary)
                self._sync_logs()
                replace_folder(temporary, final)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                restore_folders(self._checkpoints)
                raise
            self._point("latest", step)
            if best:
                self._point("best", step)
        self._prune(keep)
        return final / "model"

    def mark_best(self, step: int) -> None:
        """Point `best` at a saved step. Raises ValueError for one that is not there."""
        if not self._step_folder(step).is_dir():
            raise ValueError(f"there is no checkpoint of step {step} to mark as the best")
        with self._naming_full_disk(self._checkpoints / "best"):
            self._point("best", step)

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write summary.json, which says that the stage is complete, and return it.

        `stage`, `steps`, `seconds`, `tokens` and `checkpoint` (relative to the run) are filled in where not given.
        """
        latest = self.latest()
        done = {
            "stage": self.stage,
            "steps": self.last_row.get("step", self.start_step),
            "seconds": round(self.elapsed(), 3),
            "tokens": self.last_row.get("num_tokens", 0),
            "checkpoint": str(latest.relative_to(self.path.resolve())) if latest else None,
            **_numbers(summary),
        }
        with self._naming_full_disk(self.path / "summary.json"):
            self._sync_logs()
            atomic_write_json(self.path / "summary.json", done)
        return done

    # Reading

    def latest(self) -> Path | None:
        """The newest checkpoint's model, or None."""
        return self._target("latest")

    def best(self) -> Path | None:
        """The model of the step that was marked as the best, or None."""
        return self._target("best")

    def resume_model(self) -> Path | None:
        """The model to go on from, or None for a new run. Read it before the next save, which may drop it."""
        return self._step_folder(self.start_step) / "model" if self.start_step else None

    def load_state(self) -> dict[str, Any] | None:
        """The state to go on from, tensors on the CPU, or None for a new run or a checkpoint without state."""
        path = self._step_folder(self.start_step) / "state" / STATE
        return load_state(path) if self.start_step and path.exists() else None

    @property
    def finished(self) -> bool:
        """Whether the stage was completed, with the number of steps now asked for."""
        return self.summary() is not None

    def summary(self) -> dict[str, Any] | None:
        """What `finish` wrote, or None."""
        return finished(self.path)

    # Inside

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def _step_folder(self, step: int) -> Path:
        return self._checkpoints / f"step-{step}"

    def _steps(self) -> list[int]:
        names = [path.name.removeprefix("step-") for path in self._checkpoints.glob("step-*")]
        return sorted(int(name) for name in names if name.isdecimal())

    def _target(self, link: str) -> Path | None:
        path = self._checkpoints / link
        return path.resolve() if path.exists() else None

    def _point(self, link: str, step: int) -> None:
        point_link(self._checkpoints / link, self._step_folder(step) / "model")

    def _prune(self, keep: int) -> None:
        best = self.best()
        for step in self._steps()[:-keep]:
            if best is None or best.parent.name != f"step-{step}":
                remove_folder(self._step_folder(step))

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        with self._naming_full_disk(self.path / name):
            append_text(self.path / name, text)

    def _sync_logs(self) -> None:
        for name in LOGS:
            with suppress(FileNotFoundError):
                sync_file(self.path / name)

    def _naming_full_disk(self, path: Path) -> AbstractContextManager[None]:
        return naming_full_disk(path, self.latest)


def holds_run(path: Path) -> bool:
    """Whether a folder has anything of a run in it (an empty checkpoints/ is nothing)."""
    checkpoints = path / "checkpoints"
    has_checkpoints = checkpoints.is_dir() and any(checkpoints.iterdir())
    return has_checkpoints or (path / "config.yaml").exists() or (path / "metrics.jsonl").exists()


def finished(folder: str | Path) -> dict[str, Any] | None:
    """The summary of a completed stage, or None."""
    path = Path(folder) / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """As YAML gives it back: tuples become lists, paths become text."""
    return json.loads(json.dumps(config, default=str))


def _shown(config: dict[str, Any], key: str) -> str:
    return repr(config[key]) if key in config else "absent"


def _numbers(value: Any) -> Any:
    """Numpy and torch numbers become Python's, at any depth."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _floats(value: Any, name: str = "") -> list[tuple[str, float]]:
    if isinstance(value, float):
        return [(name, value)]
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _floats(item, f"{name}.{key}" if name else key)]
    if isinstance(value, list):
        return [found for i, item in enumerate(value) for found in _floats(item, f"{name}[{i}]")]
    return []
