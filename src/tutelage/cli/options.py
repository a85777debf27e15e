"""Options from a dataclass, a YAML file and the command line, in that order."""

import sys
from typing import TypeVar

from tutelage.configs import StageConfig, from_mapping
from tutelage.recipe import read_yaml

C = TypeVar("C", bound=StageConfig)


def parse(cls: type[C], verb: str, arguments: list[str]) -> C:
    """The config of a verb; `--config FILE` is read first, the other options override it."""
    from pathlib import Path

    import tyro

    arguments = list(arguments)
    values = {}
    for place, word in enumerate(arguments):
        if word == "--config" or word.startswith("--config="):
            name = word.partition("=")[2] or (arguments[place + 1] if place + 1 < len(arguments) else "")
            del arguments[place : place + (1 if "=" in word else 2)]
            values = {k: v for k, v in read_yaml(Path(name)).items() if k != "stage"}
            break
    default = from_mapping(cls, values, where=name) if values else cls()
    return tyro.cli(
        cls, prog=f"tutelage {verb}", args=arguments, default=default, config=(tyro.conf.FlagCreatePairsOff,)
    )


def show(text: str) -> None:
    print(text, file=sys.stderr)
