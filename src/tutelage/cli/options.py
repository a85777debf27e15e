"""Options from a dataclass, a YAML file and the command line, in that order."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from tutelage.configs import StageConfig, from_mapping, to_mapping
from tutelage.errors import UserError, did_you_mean
from tutelage.recipe import read_yaml

T = TypeVar("T")
C = TypeVar("C", bound=StageConfig)
SAID_EACH_TIME = ("resume", "dry_run", "json")  # no part of what a run computes


def parse(cls: type[C], verb: str, words: list[str]) -> tuple[C, bool]:
    """The config of a verb, and whether only to show it. `--config FILE` is read first; other options override it."""
    file, words = take(words, "config")
    values = read_yaml(Path(file)) if file else {}
    if (stage := values.pop("stage", verb)) != verb:
        raise UserError(f"holds options of {stage}, not of {verb}", where=file, mend=f"give it to `tutelage {stage}`")
    default = from_mapping(cls, values, where=file or verb)
    config = parse_words(cls, verb, words, default)
    return config, config.dry_run


def parse_words(cls: type[T], verb: str, words: Sequence[str], default: T | None = None) -> T:
    """A dataclass from options and positional words; `--help` prints and leaves. Raises UserError, SystemExit(2)."""
    refuse_unknown(words, [option(f.name) for f in fields(cls)], verb)  # type: ignore[arg-type]
    given: dict[str, Any] = {} if default is None else {"default": default}
    if issubclass(cls, StageConfig):
        given["description"] = f"{cls.__doc__}\n--config FILE reads options from YAML; those given here go before them."
    flags = (tyro.conf.FlagCreatePairsOff,)
    return tyro.cli(cls, prog=f"tutelage {verb}", args=[spelled(word) for word in words], config=flags, **given)


def option(name: str) -> str:
    return name.replace("_", "-")


def spelled(word: str) -> str:
    """`--max_steps=3` → `--max-steps=3`; the value is left as it is."""
    name, equals, value = word.partition("=")
    return f"{option(name)}{equals}{value}" if word.startswith("--") else word


def refuse_unknown(words: Sequence[str], known: Sequence[str], verb: str) -> None:
    """A UserError for the first option that does not exist, with the near name."""
    for word in words:
        name = spelled(word).partition("=")[0]
        if word.startswith("--") and name[2:] not in (*known, "help"):
            near = did_you_mean(name, [f"--{k}" for k in known])
            raise UserError(f"unknown option {name}{near}", mend=f"`tutelage {verb} --help` lists the options")


def take(words: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """The value of `--name VALUE` or `--name=VALUE`, and the other words."""
    value, rest, waiting = None, [], False
    for word in words:
        if waiting:
            value, waiting = word, False
        elif word == f"--{name}":
            waiting = True
        elif word.startswith(f"--{name}="):
            value = word.partition("=")[2]
        else:
            rest.append(word)
    if waiting:
        raise UserError("needs a value", where=f"option --{name}", mend=f"write --{name} FILE")
    return value, rest


def as_yaml(config: StageConfig) -> str:
    """A whole config as `--config` reads it."""
    mapping: dict[str, Any] = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in to_mapping(config).items()
        if key not in SAID_EACH_TIME
    }
    return yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True, width=120)


def show(text: str) -> None:
    print(text, file=sys.stderr)
