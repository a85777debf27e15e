"""What a checkpoint's files must be: sizes and hashes, so that a damaged one is known before it is loaded."""

import hashlib
import json
from pathlib import Path

from tutelage.runs.files import write_json

NAME = "manifest.json"


def write_manifest(folder: Path) -> None:
    """state/manifest.json of a whole checkpoint."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(folder / "state" / NAME, {path.relative_to(folder).as_posix(): _facts(path) for path in files})


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint in one clause, or None; one of an older version has no manifest."""
    path = folder / "state" / NAME
    if not path.exists():
        return None
    try:
        wanted = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return f"{NAME} is cut off"
    for name, (size, digest) in wanted.items():
        file = folder / name
        if not file.exists():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        if _facts(file)[1] != digest:
            return f"{name} has other contents than were written"
    return None


def _facts(path: Path) -> tuple[int, str]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.stat().st_size, digest
