"""Where a checkpoint came from: hashes of what went in and of what came out, and the runs before it."""

import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tutelage.runs.files import write_json

HASHED = {".safetensors", ".bin", ".json", ".jinja", ".txt", ".jsonl", ".parquet", ".gz"}


def file_hash(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(path: Path) -> str:
    """sha256 over names and contents of a checkpoint's weights, tokenizer and configuration."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.suffix in HASHED and p.name != "tutelage.json"):
        digest.update(f"{file.relative_to(path)}\0{file_hash(file)}\n".encode())
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in ("tutelage", "torch", "transformers", "numpy")}
    return {"python": sys.version.split()[0], "platform": platform.machine(), **versions}


def write_lineage(run: Path, *, inputs: Mapping[str, Path | str | None], output: Path) -> None:
    """lineage.json: a hash for each input that is a file or folder, its name otherwise.

    An input that a run wrote has `lineage`, where that run's own file stands: the chain goes back to the base.
    Paths are relative to the run, so that a folder of runs can be moved.
    """

    def relative(path: Path) -> str:
        return Path(os.path.relpath(path.resolve(), run.resolve())).as_posix()

    def describe(source: Path | str) -> dict[str, str]:
        path = Path(source)
        if not path.exists():
            return {"name": str(source)}
        described = {"path": relative(path), "sha256": folder_hash(path) if path.is_dir() else file_hash(path)}
        # A checkpoint lies at most checkpoints/step-N/model deep in its run.
        above = [folder / "lineage.json" for folder in (path.resolve(), *path.resolve().parents[:3])]
        parent = next((file for file in above if file.is_file() and file.parent != run.resolve()), None)
        return described | ({"lineage": relative(parent)} if parent else {})

    described = {name: describe(source) for name, source in inputs.items() if source is not None}
    checkpoint = {"path": relative(output), "sha256": folder_hash(output)}
    write_json(run / "lineage.json", {"inputs": described, "checkpoint": checkpoint, "environment": environment()})
