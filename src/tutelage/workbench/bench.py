"""What the pages share: the folder of runs, the models, and the comparisons that are open."""

import hashlib
import re
import threading
from collections.abc import Mapping
from pathlib import Path

from tutelage.data.outputs import read_outputs
from tutelage.data.sources import read_whole
from tutelage.errors import UserError
from tutelage.evaluation.battery import battery
from tutelage.records import Prompt
from tutelage.runs.files import read_json, write_json
from tutelage.workbench.comparisons import Column, Comparison
from tutelage.workbench.filling import Filling, reproducible
from tutelage.workbench.lessons import Lessons
from tutelage.workbench.models import Found, Models

IMPORT_KINDS = (".jsonl", ".jsonl.gz", ".json", ".parquet")
WORLD_BATTERY = {"harmful": 4, "benign_lookalike": 4, "opinion": 6, "instruction": 6}


class Workbench:
    """One for a server."""

    def __init__(self, runs: Path, dtype: str = "auto", device: str = "auto", served: Mapping[str, str] | None = None):
        self.runs, self.models = runs, Models(runs, dtype, device, served)
        self.opened: dict[str, Comparison] = {}
        self.fillings: dict[str, Filling] = {}
        self.lessons = Lessons(runs / "lab")
        self.checked: dict[tuple[str, str], bool] = {}
        self.lock = threading.Lock()

    # --- comparisons -----------------------------------------------------------------------------------------------

    @property
    def comparisons(self) -> Path:
        return self.runs / "compare"

    def comparison(self, name: str) -> Comparison:
        if not re.fullmatch(r"[0-9a-f]{24}", name):
            raise UserError("there is no such comparison", mend="check the address")
        with self.lock:
            if name not in self.opened:
                self.opened[name] = Comparison.load(self.comparisons / name)
            return self.opened[name]

    def stored(self) -> list[Comparison]:
        """The newest first."""
        folders = [p.parent for p in self.comparisons.glob("*/comparison.json")]
        found = [self.comparison(folder.name) for folder in folders if re.fullmatch(r"[0-9a-f]{24}", folder.name)]
        return sorted(found, key=lambda one: one.created, reverse=True)

    def filling(self, name: str) -> Filling | None:
        one = self.fillings.get(name)
        return one if one is not None and one.running else None

    def fill(self, one: Comparison) -> None:
        """Begin, or go on with, what is not answered; nothing where that runs already."""
        with self.lock:
            if self.filling(one.id) is None:
                self.fillings[one.id] = Filling(one, self.models)

    def reproducible(self, one: Column) -> bool:
        """Hashing weights takes a while: done once in a server's life."""
        key = one.spec, one.identity
        if key not in self.checked:
            self.checked[key] = reproducible(one)
        return self.checked[key]

    # --- what was brought in ---------------------------------------------------------------------------------------

    @property
    def imports(self) -> Path:
        return self.comparisons / "imports"

    def bring_in(self, name: str, content: bytes, kind: str) -> str:
        """Keep an uploaded file of outputs or prompts after reading it once; returns its name here."""
        ending = next((e for e in IMPORT_KINDS if name.lower().endswith(e)), None)
        if ending is None:
            raise UserError("the file is of no known kind", mend=f"give {', '.join(IMPORT_KINDS)}")
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name[: -len(ending)]).strip("-")[:40] or kind
        short = hashlib.blake2b(content, digest_size=4).hexdigest()
        path = self.imports / f"{stem}-{short}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        try:
            count = _outputs(path) if kind == "outputs" else len(_prompts(path))
        except UserError as error:
            path.unlink()
            said = [(text or "").replace(str(path), "the file") for text in (error.what, error.where)]
            raise UserError(said[0], where=said[1] or None, mend=error.mend) from error
        write_json(path.with_name(path.name + ".about"), {"kind": kind, "name": stem, "count": count})
        return path.name

    def brought_in(self, kind: str) -> list[tuple[Found, int]]:
        """Imported files of a kind, each with how many rows it holds."""
        found = []
        for about in sorted(self.imports.glob("*.about")):
            row = read_json(about) or {}
            if row.get("kind") == kind:
                path = about.with_suffix("")
                found.append((Found(row["name"], str(path), kind), int(row["count"])))
        return found

    def asked(self, typed: str, which: str, file: str) -> list[Prompt]:
        """The prompts of a comparison: typed (one a line), a battery, and those of an imported file."""
        found = [
            Prompt(
                id=f"typed-{hashlib.blake2b(line.encode(), digest_size=6).hexdigest()}",
                messages=[{"role": "user", "content": line}],
                source="typed",
            )
            for line in map(str.strip, typed.splitlines())
            if line
        ]
        if which == "world":
            found += world_battery()
        elif which == "general":
            found += battery()
        elif which:
            raise UserError(f"there is no battery {which!r}", mend="use world or general")
        if file:
            if file not in {one.spec for one, _ in self.brought_in("prompts")}:
                raise UserError("there is no such file of prompts", mend="bring it in first")
            found += _prompts(Path(file))
        return list({one.id: one for one in found}.values())


def _outputs(path: Path) -> int:
    """How many prompts a file answers; an answer may stand under the prompt's id and under its words."""
    return len({id(answer) for answer in read_outputs(path).values()})


def _prompts(path: Path) -> list[Prompt]:
    found = read_whole(str(path))[0].prompts
    if not found:
        raise UserError("holds no prompts", where=str(path), mend="give rows with prompt or messages")
    return found


def world_battery() -> list[Prompt]:
    """Held-out prompts of the embedded world, for models that know nothing else; the gold judge scores them."""
    from tutelage import world

    return [prompt for name, n in WORLD_BATTERY.items() for prompt in world.suite(name, "tune", n, seed=3)]
