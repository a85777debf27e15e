"""`tutelage world show` and `tutelage world build`."""

from dataclasses import dataclass
from typing import Any

from tutelage.cli.options import parse_words
from tutelage.configs.base import Dtype, require_device
from tutelage.errors import UserError, did_you_mean


@dataclass(kw_only=True)
class BuildOptions:
    """Train the world's tokenizer and a base model."""

    size: str = "small"
    """nano, micro, tiny, small (the packaged one), base, large."""
    out: str = "runs/world"
    """The run's folder; the model is its checkpoints/latest."""
    seed: int = 0
    """Seed of the weights and of the order of the text."""
    tokens: int | None = None
    """Tokens to train on in place of the size's own number."""
    good: float | None = None
    """Share of the forum's answers that hold what was asked for, 0 to 1; the corpus' own (0.22) when not given."""
    dtype: Dtype = "auto"
    """Compute type; `auto` is bfloat16 where the GPU or processor has it."""
    device: str = "auto"
    """Where models compute: cpu, cuda, cuda:N, or auto: a GPU if there is one."""
    resume: bool = False
    """Go on with the run in OUT from its last checkpoint."""
    json: bool = False
    """Print one JSON object last."""

    def __post_init__(self) -> None:
        require_device(self.device)


@dataclass(kw_only=True)
class ShowOptions:
    """Print prompts with good and bad answers and their facet scores."""

    prompts: int = 6
    """How many."""
    seed: int = 0
    """Another seed shows others."""


ACTIONS = {
    "show": "print prompts with good and bad answers and their facet scores",
    "build": "train the world's tokenizer and a base model",
}


def main(verb: str, arguments: list[str]) -> dict[str, Any] | None:
    action = arguments[0] if arguments else ""
    if action in ("", "-h", "--help"):
        print("usage: tutelage world ACTION [options]\n")
        print("\n".join(f"  {name:<7} {about}" for name, about in ACTIONS.items()))
        return None
    if action == "build":
        from tutelage.world.build import build

        options = parse_words(BuildOptions, "world build", arguments[1:])
        about = (options.size, options.out, options.seed, options.dtype, options.tokens, options.resume)
        return build(*about, device=options.device, good=options.good)
    if action == "show":
        from tutelage.world.show import show

        shown = parse_words(ShowOptions, "world show", arguments[1:])
        print(show(shown.prompts, shown.seed))
        return None
    near = did_you_mean(action, list(ACTIONS))
    raise UserError(f"unknown action {action!r}{near}", where="tutelage world", mend="use show or build")
