"""Where a checkpoint came from: hashes of what went in and of what came out."""

import hashlib
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from tutelage.runs.folder import write_json

HASHED = {".safetensors", ".json", ".jinja", ".bin"}


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


def write_lineage(run: Path, *, inputs: dict[str, Path | str | None], output: Path) -> None:
    """lineage.json: a hash for each input that is a file or folder, its name otherwise."""

    def describe(source: Path | str) -> dict[str, str]:
        path = Path(source)
        if path.is_dir():
            return {"path": str(source), "sha256": folder_hash(path)}
        return {"path": str(source), "sha256": file_hash(path)} if path.is_file() else {"name": str(source)}

    described = {name: describe(source) for name, source in inputs.items() if source is not None}
    checkpoint = {"path": str(output.relative_to(run)), "sha256": folder_hash(output)}
    write_json(run / "lineage.json", {"inputs": described, "checkpoint": checkpoint, "environment": environment()})
