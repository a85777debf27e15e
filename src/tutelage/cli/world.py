"""`tutelage world show` and `tutelage world build`."""

from dataclasses import dataclass
from typing import Any

import tyro

from tutelage.configs.base import Dtype
from tutelage.errors import UserError


@dataclass(kw_only=True)
class BuildOptions:
    """Train the world's tokenizer and a base model."""

    size: str = "small"
    """nano, micro, tiny, small (the packaged one), base, large."""
    out: str = "runs/world"
    seed: int = 0
    tokens: int | None = None
    """Tokens to train on in place of the size's own number."""
    dtype: Dtype = "auto"
    json: bool = False


@dataclass(kw_only=True)
class ShowOptions:
    """Print prompts with good and bad answers and their facet scores."""

    prompts: int = 6
    seed: int = 0


def main(verb: str, arguments: list[str]) -> dict[str, Any] | None:
    action = arguments[0] if arguments else ""
    if action == "build":
        from tutelage.world.build import build

        options = tyro.cli(BuildOptions, prog="tutelage world build", args=arguments[1:])
        return build(options.size, options.out, options.seed, options.dtype, options.tokens)
    if action == "show":
        from tutelage.world.show import show

        shown = tyro.cli(ShowOptions, prog="tutelage world show", args=arguments[1:])
        print(show(shown.prompts, shown.seed))
        return None
    raise UserError(f"unknown action {action!r}", where="tutelage world", mend="use show or build")
