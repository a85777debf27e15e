"""A stored comparison: the same prompts to several models, each answer as it came, and what people said of it.

    comparison.json  answers.jsonl  scores.jsonl  verdicts.jsonl  votes.jsonl

The folder is named by a hash of everything that the answers depend on, so that a link names its content. The logs
are only appended to; a later row of the same cell wins.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.evaluation.comparison import detectable_difference
from tutelage.evaluation.ratings import Game, ratings
from tutelage.evaluation.refusal import refusal_class
from tutelage.records import Comparison as ComparisonRecord
from tutelage.records import Prompt
from tutelage.runs.files import append_rows, read_json, read_log, write_json

ANSWERED = ("done", "cut")
MOST_PROMPTS, MOST_COLUMNS = 200, 9
SELF_NAMING = re.compile(
    r"\b(?:chatgpt|gpt-?[345]\w*|openai|anthropic|claude|gemini|deepmind|mistral|llama-?\d*|qwen\d*|deepseek|grok)\b",
    re.IGNORECASE,
)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Column:
    """A model: identity is a hash of its weights or of its file; an endpoint only has its name."""

    name: str
    spec: str
    kind: str  # local, endpoint, outputs
    identity: str
    run: str | None = None


@dataclass
class Cell:
    """One answer. state: queued, running, done, cut (at the longest length), failed, missing (not in the file)."""

    state: str = "queued"
    text: str = ""
    reason: str = ""
    date: str = ""
    reward: float | None = None
    tokens: list[str] = field(default_factory=list)
    prefix_rewards: list[float] = field(default_factory=list)

    @property
    def words(self) -> int:
        return len(self.text.split())

    @property
    def refusal(self) -> str:
        return refusal_class(self.text)


@dataclass(frozen=True)
class Settings:
    max_tokens: int = 128
    temperature: float = 0.7
    seed: int = 0
    reward: str = ""
    reward_identity: str = ""
    judges: tuple[str, ...] = ()
    blind: bool = False


class Comparison:
    """All methods may be called from any thread. `changed` is notified, and `revision` grows, with every change."""

    def __init__(self, folder: Path, columns: list[Column], prompts: list[Prompt], settings: Settings, created: str):
        self.folder, self.columns, self.prompts = folder, columns, prompts
        self.settings, self.created = settings, created
        self.cells = {(p, c): Cell() for p in range(len(prompts)) for c in range(len(columns))}
        self.verdicts: dict[tuple[int, int, int, str], dict[str, Any]] = {}
        self.votes: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        self.revision = 0
        self.rated: tuple[int, dict[Any, dict[str, dict[str, Any]]]] = (-1, {})  # a revision's standings, by rows
        self.touched: dict[int, int] = {}  # prompt -> the revision that last changed its row

    @property
    def id(self) -> str:
        return self.folder.name

    # --- on disk ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, root: Path, columns: list[Column], prompts: list[Prompt], settings: Settings) -> "Comparison":
        """A new comparison, or the one that has the same content."""
        _check(columns, prompts)
        name = content_hash(columns, prompts, settings)
        if (root / name / "comparison.json").exists():
            return cls.load(root / name)
        (root / name).mkdir(parents=True, exist_ok=True)
        made = cls(root / name, columns, prompts, settings, now())
        row = {
            "created": made.created,
            "columns": [vars(one) for one in columns],
            "settings": {**vars(settings), "judges": list(settings.judges)},
            "prompts": [one.to_json() for one in prompts],
        }
        write_json(root / name / "comparison.json", row)
        return made

    @classmethod
    def load(cls, folder: Path) -> "Comparison":
        row = read_json(folder / "comparison.json")
        if row is None:
            raise UserError("there is no such comparison", mend="make it again, or ask for the whole folder")
        settings = Settings(**{**row["settings"], "judges": tuple(row["settings"]["judges"])})
        prompts = [Prompt.from_json(one) for one in row["prompts"]]
        made = cls(folder, [Column(**one) for one in row["columns"]], prompts, settings, row["created"])
        for name in ("answers", "scores"):
            for one in read_log(folder / f"{name}.jsonl"):
                made._take(one)
        for one in read_log(folder / "verdicts.jsonl"):
            made.verdicts[one["prompt"], one["a"], one["b"], one["judge"]] = one
        made.votes = read_log(folder / "votes.jsonl")
        return made

    def _take(self, row: Mapping[str, Any]) -> None:
        cell = self.cells[row["prompt"], row["column"]]
        for name, value in row.items():
            if name not in ("prompt", "column"):
                setattr(cell, name, value)

    def _tell(self, prompt: int) -> None:
        with self.changed:
            self.revision += 1
            self.touched[prompt] = self.revision
            self.changed.notify_all()

    # --- filling ---------------------------------------------------------------------------------------------------

    def put(self, prompt: int, column: int, *, log: str | None = "answers", **values: Any) -> None:
        """Change a cell; `log` names the file that keeps it (None: only for now)."""
        row = {"prompt": prompt, "column": column, **values}
        with self.changed:
            if log:
                append_rows(self.folder / f"{log}.jsonl", [row])
            self._take(row)
        self._tell(prompt)

    def judge(self, prompt: int, a: int, b: int, judge: str, **verdict: Any) -> None:
        row = {"prompt": prompt, "a": a, "b": b, "judge": judge, **verdict}
        with self.changed:
            append_rows(self.folder / "verdicts.jsonl", [row])
            self.verdicts[prompt, a, b, judge] = row
        self._tell(prompt)

    def to_judge(self, judge: str) -> list[tuple[int, int, int]]:
        """Pairs (prompt, a, b) of whole rows that this judge has given no verdict on, or that its calls failed on."""
        return [
            (p, a, b)
            for p in range(len(self.prompts))
            if self.complete(p)
            for a, b in combinations(self.answered(p), 2)
            if self.verdicts.get((p, a, b, judge), {"problem": "failed"})["problem"] == "failed"
        ]

    def may_judge(self, judge: str) -> int:
        """How many pairs this judge will be asked about once all answers are there."""
        most = 0
        for p in range(len(self.prompts)):
            there = [c for c in range(len(self.columns)) if self.cells[p, c].state != "missing"]
            said = [self.verdicts.get((p, a, b, judge), {"problem": "failed"}) for a, b in combinations(there, 2)]
            most += sum(verdict["problem"] == "failed" for verdict in said)
        return most

    def lost(self) -> dict[str, dict[str, int]]:
        """By judge, how many of its verdicts are none: what it said could not be read (unparsable), or its calls failed."""
        found: dict[str, dict[str, int]] = {}
        for (*_, judge), verdict in list(self.verdicts.items()):
            if verdict["points"] is None:
                counts = found.setdefault(judge, {"unparsable": 0, "failed": 0})
                counts[verdict["problem"]] = counts.get(verdict["problem"], 0) + 1
        return found

    def waiting(self, column: int) -> list[int]:
        """Prompts that this column still has to answer, failed ones too."""
        states = ("queued", "running", "failed")
        return [p for p in range(len(self.prompts)) if self.cells[p, column].state in states]

    def complete(self, prompt: int) -> bool:
        """Whether nothing more will come to this row by itself."""
        return all(self.cells[prompt, c].state not in ("queued", "running") for c in range(len(self.columns)))

    def counts(self) -> dict[str, int]:
        states = [cell.state for cell in self.cells.values()]
        return {name: states.count(name) for name in ("done", "cut", "failed", "missing", "queued", "running")}

    # --- votes -----------------------------------------------------------------------------------------------------

    def answered(self, prompt: int) -> list[int]:
        return [c for c in range(len(self.columns)) if self.cells[prompt, c].state in ANSWERED]

    def self_naming(self, prompt: int) -> list[int]:
        """Columns whose answer says which model it is: its vendor's name, or its own name here."""
        own = [re.compile(rf"\b{re.escape(one.name)}\b", re.IGNORECASE) for one in self.columns]
        found = []
        for c in self.answered(prompt):
            text = self.cells[prompt, c].text
            asked = " ".join(m["content"] for m in self.prompts[prompt].messages)
            if (SELF_NAMING.search(text) and not SELF_NAMING.search(asked)) or own[c].search(text):
                found.append(c)
        return found

    def revealed(self, person: str, prompt: int) -> bool:
        """Whether a person knows which model said what in this row."""
        mine = (v for v in self.votes if v["person"] == person)
        return not self.settings.blind or any(v["prompt"] == prompt for v in mine)

    def vote(self, person: str, prompt: int, ranks: Sequence[int | None]) -> dict[str, Any]:
        """Store a ranking by columns; it is rated if the person could not know who said what, and it is the first."""
        if not self.complete(prompt):
            raise UserError("this row is not complete yet", mend="wait until all answers are there")
        known = self.revealed(person, prompt)
        why = "names shown" if not self.settings.blind else "after the reveal" if known else ""
        row = {
            "prompt": prompt,
            "ranks": [*ranks],
            "person": person,
            "created": now(),
            "rated": not why,
            "why": why,
            "self_naming": self.self_naming(prompt),
        }
        with self.changed:
            append_rows(self.folder / "votes.jsonl", [row])
            self.votes.append(row)
        self._tell(prompt)
        return row

    def reveal(self, person: str, prompt: int) -> None:
        """Show who said what without a vote; later votes of this person on the row are unrated."""
        if not self.revealed(person, prompt):
            row = {"prompt": prompt, "ranks": [], "person": person, "created": now(), "rated": False, "why": "revealed"}
            with self.changed:
                append_rows(self.folder / "votes.jsonl", [row])
                self.votes.append(row)
            self._tell(prompt)

    # --- what it comes to ------------------------------------------------------------------------------------------

    def seen(self, person: str) -> frozenset[int]:
        """The rows of which a person knows which model said what."""
        return frozenset(p for p in range(len(self.prompts)) if self.revealed(person, p))

    def games(self, seen: frozenset[int] | None = None) -> dict[str, list[Game]]:
        """Verdicts on pairs of models: of people, of the reward model, of each judge. Never pooled. seen: rows to count."""
        found: dict[str, list[Game]] = {}
        rows = seen if seen is not None else frozenset(range(len(self.prompts)))
        for vote in self.votes:
            if not vote["rated"] or vote["prompt"] not in rows:
                continue
            places = [
                c for c, rank in enumerate(vote["ranks"]) if rank is not None and c not in vote.get("self_naming", ())
            ]
            for a, b in combinations(places, 2):
                points = _points(-vote["ranks"][a], -vote["ranks"][b])
                found.setdefault("people", []).append(self._game(vote["prompt"], a, b, points))
        for prompt in sorted(rows):
            scored = [c for c in self.answered(prompt) if self.cells[prompt, c].reward is not None]
            for a, b in combinations(scored, 2):
                points = _points(self.cells[prompt, a].reward, self.cells[prompt, b].reward)  # type: ignore[arg-type]
                found.setdefault("reward model", []).append(self._game(prompt, a, b, points))
        for (prompt, a, b, judge), verdict in list(self.verdicts.items()):
            if verdict["points"] is not None and prompt in rows:
                found.setdefault(judge, []).append(self._game(prompt, a, b, verdict["points"]))
        return found

    def _game(self, prompt: int, a: int, b: int, points: float) -> Game:
        lengths = len(self.cells[prompt, a].text), len(self.cells[prompt, b].text)
        return Game(self.columns[a].name, self.columns[b].name, points, prompt, lengths)

    def standings(self, seen: frozenset[int] | None = None) -> dict[str, dict[str, Any]]:
        """Ratings by each kind of judge, with a sentence on what they can tell; worked out once for a revision.

        seen: the rows to count, all where it is None.
        """
        revision, known = self.rated
        if revision != self.revision:
            revision, known = self.revision, {}
            self.rated = revision, known
        if seen not in known:
            found: dict[str, dict[str, Any]] = {}
            for judge, games in self.games(seen).items():
                rows = ratings(games)
                found[judge] = {"rows": rows, "verdicts": len(games), "sentence": _sentence(rows, games)}
            known[seen] = found
        return known[seen]

    def unrated(self) -> int:
        return sum(not v["rated"] and v["why"] != "revealed" for v in self.votes)

    def records(self) -> list[ComparisonRecord]:
        """The rated votes as records that the reward model trains on."""
        rows = []
        for number, vote in enumerate(self.votes):
            prompt, named = vote["prompt"], vote.get("self_naming", ())
            places = [c for c in self.answered(prompt) if c not in named]
            if not vote["rated"] or sum(vote["ranks"][c] is not None for c in places) < 2:
                continue
            asked = self.prompts[prompt]
            rows.append(
                ComparisonRecord(
                    id=f"{self.id}-{number}",
                    prompt_id=asked.id,
                    completion_ids=[f"{asked.id}-{self.columns[c].name}" for c in places],
                    ranks=dense([vote["ranks"][c] for c in places]),
                    messages=asked.messages,
                    completions=[self.cells[prompt, c].text for c in places],
                    labeler=vote["person"],
                    created=vote["created"],
                    category=asked.category,
                )
            )
        return rows


def content_hash(columns: Sequence[Column], prompts: Sequence[Prompt], settings: Settings) -> str:
    """Over all that the answers and their judgments depend on: weights and templates, prompts, sampling, judges."""
    parts = [
        [[one.name, one.kind, one.identity] for one in columns],
        [[one.id, one.messages] for one in prompts],
        {**vars(settings), "reward": bool(settings.reward), "judges": list(settings.judges)},
    ]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=12).hexdigest()


def dense(ranks: Iterable[int | None]) -> list[int | None]:
    """Ranks renumbered from 1 without holes; None stays."""
    ranks = list(ranks)
    order = sorted({rank for rank in ranks if rank is not None})
    return [None if rank is None else order.index(rank) + 1 for rank in ranks]


def _points(a: float, b: float) -> float:
    return 1.0 if a > b else 0.5 if a == b else 0.0


def _sentence(rows: Sequence[Mapping[str, Any]], games: Sequence[Game]) -> str:
    """What the two best ratings can tell, and how many more verdicts would show a difference of five points."""
    first, second = rows[0], rows[1]
    if first["ci95"][0] > second["ci95"][1]:
        return f"{first['model']} is ahead of {second['model']}: their intervals do not meet."
    pair = [g for g in games if {g.a, g.b} == {first["model"], second["model"]}]
    ties = sum(g.points == 0.5 for g in pair) / len(pair) if pair else 0.0
    if ties == 1:
        return f"{first['model']} and {second['model']}: all {len(pair)} verdicts on the two are ties."
    needed = next((n for n in range(len(pair), 2000, 10) if detectable_difference(n, ties) <= 0.05), 2000)
    more = max(0, needed - len(pair))
    return f"{first['model']} and {second['model']}: too close to tell; about {more} more verdicts on the two would show 5 points."


def _check(columns: Sequence[Column], prompts: Sequence[Prompt]) -> None:
    names = [one.name for one in columns]
    if not 1 <= len(columns) <= MOST_COLUMNS:
        raise UserError(f"{len(columns)} models", where="models", mend=f"choose 1 to {MOST_COLUMNS}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two models are called {twice!r}", where="models", mend="choose it once")
    if not 1 <= len(prompts) <= MOST_PROMPTS:
        raise UserError(f"{len(prompts)} prompts", where="prompts", mend=f"give 1 to {MOST_PROMPTS}")
