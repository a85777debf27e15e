"""Constitutions: the principles that a critic is asked to judge by, each a versioned YAML file."""

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tutelage.errors import UserError, did_you_mean

REQUESTS = ("critique", "revision", "choice")
PRINCIPLE_KEYS = ("id", *REQUESTS, "weight")
EXAMPLE_KEYS = ("prompt", "response", "critique_request", "critique", "revision_request", "revision")
SHIPPED = ("general", "world")


@dataclass(frozen=True)
class Principle:
    """What is asked of a critic: to find fault, to write anew, to choose. Drawn in proportion to its weight."""

    id: str
    critique: str
    revision: str
    choice: str
    weight: float = 1.0


@dataclass(frozen=True)
class Constitution:
    """examples: worked critiques (keys: EXAMPLE_KEYS) that stand before each question, for a critic not taught to."""

    name: str
    principles: tuple[Principle, ...]
    examples: tuple[dict[str, str], ...] = ()

    def draw(self, rng: Random) -> Principle:
        return rng.choices(self.principles, [p.weight for p in self.principles])[0]


class _Once(yaml.SafeLoader):
    """YAML in which no key stands twice: PyYAML keeps the last alone, and principles would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} stands twice", problem_mark=node.value[place][0].start_mark
                )
        return super().construct_mapping(node, deep)


def load_constitution(name: str) -> Constitution:
    """One that comes with the program (`general`, `world`), or a YAML file; a UserError names the principle at fault."""
    path = Path(__file__).parent / f"{name}.yaml" if name in SHIPPED else Path(name).expanduser()
    where = str(name)
    if not path.is_file():
        mend = f"give a YAML file, or one of: {', '.join(SHIPPED)}"
        raise UserError(f"there is no constitution {name!r}{did_you_mean(name, list(SHIPPED))}", mend=mend)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Once)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mend = "mend the line it names"
        raise UserError(f"is not YAML ({' '.join(str(error).split())})", where=where, mend=mend) from error
    if not isinstance(content, dict) or not isinstance(content.get("principles"), list) or not content["principles"]:
        raise UserError("has no principles", where=where, mend="list them under the key principles")
    _only(content, ("version", "name", "principles", "examples"), where)
    if content.get("version", 1) != 1:
        raise UserError(f"version {content['version']!r} is not known", where=where, mend="write version: 1")
    principles = [_principle(entry, f"{where}, principle {i}") for i, entry in enumerate(content["principles"], 1)]
    _no_repeats(principles, where)
    found = content.get("examples") or []
    if not isinstance(found, list):
        raise UserError(
            "its examples are no list", where=f"{where}, key examples", mend="write a list, or leave it out"
        )
    examples = [_example(entry, f"{where}, example {i}") for i, entry in enumerate(found, 1)]
    return Constitution(str(content.get("name", path.stem)), tuple(principles), tuple(examples))


def _only(entry: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            near = did_you_mean(str(key), list(known))
            raise UserError(f"unknown key {key!r}{near}", where=where, mend=f"use: {', '.join(known)}")


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise UserError(f"its {key} is {value!r}, not text", where=f"{where}, key {key}", mend="put it in quotes")
    if value is None or not value.strip():
        raise UserError(f"its {key} is empty", where=f"{where}, key {key}", mend="write it, or take the entry out")
    return " ".join(value.split())


def _principle(entry: Any, where: str) -> Principle:
    if not isinstance(entry, dict):
        raise UserError("is empty", where=where, mend=f"give it the keys {', '.join(PRINCIPLE_KEYS)}")
    _only(entry, PRINCIPLE_KEYS, where)
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise UserError(f"weight {weight!r} cannot be used", where=f"{where}, key weight", mend="a number above zero")
    name, critique, revision, choice = (_text(entry, key, where) for key in ("id", *REQUESTS))
    return Principle(name, critique, revision, choice, float(weight))


def _no_repeats(principles: list[Principle], where: str) -> None:
    for number, one in enumerate(principles, 1):
        for earlier, other in enumerate(principles[: number - 1], 1):
            same_words = all(getattr(one, k).casefold() == getattr(other, k).casefold() for k in REQUESTS)
            if one.id == other.id or same_words:
                raise UserError(
                    f"repeats principle {earlier} ({other.id})",
                    where=f"{where}, principle {number} ({one.id})",
                    mend="take one of them out; to have it drawn more often, raise its weight",
                )


def _example(entry: Any, where: str) -> dict[str, str]:
    if not isinstance(entry, dict):
        raise UserError("is empty", where=where, mend=f"give it the keys {', '.join(EXAMPLE_KEYS)}")
    _only(entry, EXAMPLE_KEYS, where)
    return {key: _text(entry, key, where) for key in EXAMPLE_KEYS}
