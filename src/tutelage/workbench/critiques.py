"""What critics wrote, as the pages show it: rows of revisions.jsonl (`tutelage cai`) and verdicts.jsonl (`cai-label`)."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.runs.files import read_log

KINDS = {"revisions.jsonl": "tutelage.revision/1", "verdicts.jsonl": "tutelage.verdict/1"}
DEEPEST = 5
PAGE = 20  # rows shown at once
Row = dict[str, Any]


@dataclass(frozen=True)
class File:
    """name: its folder below that of the runs; kind: revisions or verdicts."""

    name: str
    path: Path

    @property
    def kind(self) -> str:
        return self.path.stem


def find_critiques(root: Path) -> list[File]:
    """Every file of a critic's rows, the last written first."""
    found = [File(path.parent.relative_to(root).as_posix(), path) for path in _files(root, DEEPEST)]
    return sorted(found, key=lambda one: -one.path.stat().st_mtime)


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """Checkpoints are not looked into. The judges of comparisons write a verdicts.jsonl too, of another schema."""
    if not folder.is_dir():
        return
    yield from (folder / name for name, schema in KINDS.items() if _begins(folder / name, schema))
    for inner in sorted(folder.iterdir()) if depth else []:
        if inner.is_dir() and not inner.name.startswith(".") and inner.name != "checkpoints":
            yield from _files(inner, depth - 1)


def _begins(path: Path, schema: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            return json.loads(file.readline()).get("schema") == schema
    except (OSError, ValueError, AttributeError):
        return False


def files_in(folder: Path) -> list[str]:
    """Which kinds of a critic's rows a run's folder has."""
    return [Path(file).stem for file, schema in KINDS.items() if _begins(folder / file, schema)]


def critiques(root: Path, name: str, kind: str = "") -> File:
    """The file of a folder (of the kind that is asked for, where there are both)."""
    folder = root / name
    inside = folder.resolve().is_relative_to(root.resolve()) and ".." not in Path(name).parts
    for file, schema in KINDS.items() if inside else ():
        if kind in ("", Path(file).stem) and _begins(folder / file, schema):
            return File(name, folder / file)
    raise UserError("there are no critiques or verdicts", mend="look at the list of critiques")


@dataclass(frozen=True)
class Shown:
    """A page of rows, what they were picked from, and how many there are of each principle, round and outcome."""

    rows: list[Row]
    matching: int
    total: int
    first: int
    counts: dict[str, Counter[str]]


def picked(file: File, wanted: dict[str, str], first: int) -> Shown:
    """Rows in which each of principle, round and outcome is as wanted ("" for any), a page from `first` on.

    A verdict that was asked for again stands once, as it came last.
    """
    rows = list({row.get("id"): row for row in read_log(file.path)}.values())
    keys = {"principle": "principle", "round": "round", "outcome": "problem"}
    counts: dict[str, Counter[str]] = {key: Counter() for key in keys}
    found = []
    for row in rows:
        words = {key: str(row.get(field) or ("kept" if key == "outcome" else "")) for key, field in keys.items()}
        for key, word in words.items():
            counts[key][word] += 1
        if all(not wanted.get(key) or wanted[key] == word for key, word in words.items()):
            found.append(row)
    first = max(0, min(first, max(0, len(found) - 1) // PAGE * PAGE))
    return Shown(found[first : first + PAGE], len(found), len(rows), first, counts)
