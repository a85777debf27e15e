"""A run is a folder; everything in it is written whole or not at all.

    config.yaml  metrics.jsonl  samples.jsonl  checkpoints/step-N/{model,state}  checkpoints/latest  summary.json

A checkpoint is written beside its final name and renamed when complete, so that a process killed at
any moment leaves the last complete one in place. Resuming drops what the logs hold past it.
"""

import errno
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import yaml

from tutelage.errors import UserError

HARMLESS_KEYS = {
    "resume",
    "json",
    "max_steps",
    "out",
    "dry_run",
    "save_every",
}  # may differ between a run and its resumption


class DiskFullError(Exception):
    """The disk filled while a run was writing; the last complete checkpoint is untouched."""


@contextmanager
def _naming_full_disks(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"the disk is full: {path} could not be written; earlier checkpoints are good"
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a whole file or leave the old one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with _naming_full_disks(path):
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


class Run:
    """One stage's folder. `start_step` is the number of steps already done (0 for a new run)."""

    def __init__(self, path: Path, stage: str):
        self.path, self.stage = path, stage
        self.start_step = 0
        self.seconds_before = 0.0
        self.started = time.perf_counter()

    @classmethod
    def open(cls, out: str | Path, *, stage: str, config: dict[str, Any], resume: bool) -> Self:
        """A new run, or with resume the one in `out` (a new one if nothing is there)."""
        run = cls(Path(out).expanduser(), stage)
        exists = (run.path / "config.yaml").exists()
        if exists and not resume:
            raise UserError(
                "holds a run already",
                where=str(run.path),
                mend="add --resume to go on with it, or choose another --out",
            )
        try:
            (run.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot be written ({error.strerror})", where=str(run.path), mend="choose another --out"
            ) from error
        if exists:
            run._check_same(config)
            run._find_checkpoint()
        else:
            write_text(run.path / "config.yaml", yaml.safe_dump({"stage": stage, **_plain(config)}, sort_keys=False))
        run._drop_after(run.start_step)
        return run

    def _check_same(self, config: dict[str, Any]) -> None:
        stored = yaml.safe_load((self.path / "config.yaml").read_text()) or {}
        now = {"stage": self.stage, **_plain(config)}
        differing = [k for k in now if k not in HARMLESS_KEYS and stored.get(k) != now[k]]
        if differing:
            changes = ", ".join(f"{k}: {stored.get(k)!r} then, {now[k]!r} now" for k in differing)
            raise UserError(
                f"the run was made with other options ({changes})",
                where=str(self.path),
                mend="resume with the same options",
            )

    def _find_checkpoint(self) -> None:
        for leftover in (self.path / "checkpoints").glob(".tmp-*"):
            shutil.rmtree(leftover)
        steps = [int(p.name[5:]) for p in (self.path / "checkpoints").glob("step-*")]
        self.start_step = max(steps, default=0)

    def _drop_after(self, step: int) -> None:
        """Keep the rows of the logs up to the checkpoint; a half-written last line goes too."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            path = self.path / name
            if not path.exists():
                continue
            rows = []
            for line in path.read_text(encoding="utf-8").split("\n"):
                try:
                    row = json.loads(line)
                except ValueError:
                    break
                if row["step"] <= step:
                    rows.append(line)
            write_text(path, "".join(row + "\n" for row in rows))
            if name == "metrics.jsonl" and rows:
                self.seconds_before = json.loads(rows[-1])["seconds"]

    def elapsed(self) -> float:
        """Seconds of work so far, earlier sittings included."""
        return self.seconds_before + time.perf_counter() - self.started

    def log(self, row: dict[str, Any]) -> None:
        """Append one step's metrics. A number that is not finite stops the run and names the metric."""
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise FloatingPointError(
                    f"{self.stage}, step {row['step']}: {name} is {value}; lower the learning rate"
                )
        self._append("metrics.jsonl", [{"step": row["step"], "seconds": round(self.elapsed(), 4), **row}])

    def add_samples(self, rows: list[dict[str, Any]]) -> None:
        self._append("samples.jsonl", rows)

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        path = self.path / name
        with _naming_full_disks(path), open(path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def save(self, step: int, write_model: Callable[[Path], None], state: dict[str, Any] | None) -> Path:
        """Write checkpoints/step-N/{model,state}, point `latest` at it, drop older ones but `best`."""
        import torch

        folder = self.path / "checkpoints"
        temporary, final = folder / f".tmp-step-{step}", folder / f"step-{step}"
        with _naming_full_disks(final):
            try:
                shutil.rmtree(temporary, ignore_errors=True)
                (temporary / "state").mkdir(parents=True)
                write_model(temporary / "model")
                if state is not None:
                    torch.save(state, temporary / "state" / "state.pt")
                for file in temporary.rglob("*"):
                    if file.is_file():
                        _sync(file)
                if final.exists():
                    shutil.rmtree(final)
                os.rename(temporary, final)
            except RuntimeError as error:  # torch reports a full disk as a failed write
                shutil.rmtree(temporary, ignore_errors=True)
                if "write" in str(error) and "PytorchStreamWriter" in str(error):
                    raise OSError(errno.ENOSPC, "no space left") from error
                raise
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        self._point("latest", final / "model")
        self._prune(keep=final)
        return final / "model"

    def _point(self, name: str, target: Path) -> None:
        link, temporary = self.path / "checkpoints" / name, self.path / "checkpoints" / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.relative_to(link.parent))
        os.replace(temporary, link)

    def _prune(self, keep: Path) -> None:
        best = self.best()
        for old in (self.path / "checkpoints").glob("step-*"):
            if old != keep and (best is None or old.resolve() != best.parent.resolve()):
                shutil.rmtree(old)

    def mark_best(self, step: int) -> None:
        self._point("best", self.path / "checkpoints" / f"step-{step}" / "model")

    def best(self) -> Path | None:
        link = self.path / "checkpoints" / "best"
        return link.resolve() if link.exists() else None

    def resume_model(self) -> Path | None:
        """The model to go on from, or None for a new run."""
        return self.path / "checkpoints" / f"step-{self.start_step}" / "model" if self.start_step else None

    def load_state(self) -> dict[str, Any] | None:
        if not self.start_step:
            return None
        import torch

        path = self.path / "checkpoints" / f"step-{self.start_step}" / "state" / "state.pt"
        return torch.load(path, weights_only=True)

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write summary.json, which says that the stage is complete, and return it."""
        done = {"stage": self.stage, "seconds": round(self.elapsed(), 2), **summary}
        write_json(self.path / "summary.json", done)
        return done


def finished(folder: Path) -> dict[str, Any] | None:
    """The summary of a completed stage, or None."""
    path = folder / "summary.json"
    return json.loads(path.read_text()) if path.exists() else None


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(config, default=str))


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
