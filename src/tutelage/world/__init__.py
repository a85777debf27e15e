"""The embedded world: a small place with known facts, people who write and rank, and a judge.

It lets the whole loop run in minutes with a ground truth. `docs/world.md` describes it for a sceptic.
"""

from pathlib import Path

from tutelage.world.demonstrators import demonstrations
from tutelage.world.parts import demonstrations_of, prompts_of, texts_of
from tutelage.world.tasks import prompts, suite

__all__ = ["base_path", "demonstrations", "demonstrations_of", "prompts", "prompts_of", "suite", "texts_of"]


def base_path() -> Path:
    """The packaged base model, pretrained on the world's corpus by `tutelage world build`."""
    return Path(__file__).parent / "base"
