"""Where a checkpoint came from: hashes of what went in and of what came out, and the chain back to the base."""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tutelage.runs.files import atomic_write_json

# tutelage.json names paths and versions: two equal models would differ by it.
_SKIPPED = {"tutelage.json", "README.md"}
_HASHED = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}
_PACKAGES = ("tutelage", "torch", "transformers", "tokenizers", "numpy")


def file_hash(path: str | Path) -> str:
    """sha256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(path: str | Path) -> str:
    """sha256 over names and contents of a checkpoint's weights, tokenizer and configuration, in order of name."""
    folder = Path(path)
    digest = hashlib.sha256()
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix in _HASHED and p.name not in _SKIPPED]
    for file in sorted(files, key=lambda p: p.relative_to(folder).as_posix()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file_hash(file)}\n".encode())
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Python, the packages that decide numbers, and the machine's kind; nothing that names the machine."""
    versions: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    machine = {"platform": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count()}
    return {"python": sys.version.split()[0], **versions, **machine}


def write_lineage(
    run_path: str | Path, inputs: Mapping[str, Path | str | None], output: Mapping[str, Path | str] | Path | str
) -> dict[str, Any]:
    """Write lineage.json into a run and return it.

    inputs: role -> file, folder, or the name of something that is neither ("world"); None is left out.
    output: a file or folder in the run (its role is then "model"), or role -> file or folder.
    `parents` lists those inputs that a run wrote, with where that run's own lineage.json stands. Paths are
    relative to the run, so that a folder of runs can be moved.
    """
    run = Path(run_path).resolve()
    results = output if isinstance(output, Mapping) else {"model": output}
    described = {role: _describe(source, run) for role, source in inputs.items() if source is not None}
    parents = []
    for role, source in inputs.items():
        parent = _run_of(Path(source)) if source is not None and Path(source).exists() else None
        if parent is not None and parent != run:
            parents.append({"input": role, **described[role], "lineage": _relative(parent / "lineage.json", run)})
    lineage = {
        "inputs": described,
        "outputs": {role: _describe(path, run) for role, path in results.items()},
        "parents": parents,
        "environment": environment(),
    }
    atomic_write_json(run / "lineage.json", lineage)
    return lineage


def read_lineage_chain(checkpoint: str | Path) -> list[dict[str, Any]]:
    """The lineage of a checkpoint (or run) and of all its ancestors, nearest first, each once.

    Each is the content of a lineage.json with `run`, the folder it stands in. An ancestor whose file is gone is
    {"run": ..., "missing": True}. Empty for a model that no run wrote.
    """
    first = _run_of(Path(checkpoint))
    waiting, chain, seen = ([first] if first else []), [], set()
    while waiting:
        run = waiting.pop(0)
        if run in seen:
            continue
        seen.add(run)
        try:
            lineage = json.loads((run / "lineage.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            chain.append({"run": str(run), "missing": True})
            continue
        chain.append({"run": str(run), **lineage})
        waiting += [(run / parent["lineage"]).resolve().parent for parent in lineage["parents"]]
    return chain


def _run_of(path: Path) -> Path | None:
    """The run folder that a path is or lies in (at most checkpoints/step-N/model deep), or None."""
    path = path.resolve()
    return next((p for p in [path, *path.parents[:3]] if (p / "lineage.json").is_file()), None)


def _describe(source: Path | str, run: Path) -> dict[str, str]:
    path = Path(source)
    if path.is_dir():
        return {"path": _relative(path, run), "sha256": folder_hash(path)}
    return {"path": _relative(path, run), "sha256": file_hash(path)} if path.is_file() else {"name": str(source)}


def _relative(path: Path, run: Path) -> str:
    return Path(os.path.relpath(path.resolve(), run)).as_posix()
