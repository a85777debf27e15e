"""Options of process reward models: labels of steps, training on them, scoring and choosing among solutions.

Sources: Lightman et al. 2023 (2305.20050), Math-Shepherd, Wang et al. 2023 (2312.08935).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from tutelage.configs.base import ModelConfig, TrainingConfig, invalid, require_not_negative, require_positive


@dataclass(kw_only=True, frozen=True)
class PRMConfig(TrainingConfig):
    """`tutelage prm`: learn which steps of a solution are right; the score is read at the end of each step."""

    verb: ClassVar[str] = "prm"
    supervision: Literal["first-error", "all", "outcome"] = "first-error"
    """Which steps teach: those up to the first error, all, or the last alone by whether the solution's answer is right
    (an outcome reward model)."""
    labels: Literal["hard", "soft"] = "hard"
    """Where steps were labeled by completions: hard is whether any came to the answer, soft the share that did."""
    aggregation: Literal["product", "min", "last"] = "min"
    """What a solution's score is made of its steps' (Math-Shepherd: min; Lightman et al.: product)."""
    solutions: int | None = None
    """Use this many labeled solutions; all when not given."""
    batch_size: int = 64
    """Solutions a step."""
    epochs: float = 2
    """Passes over the solutions."""
    final_fraction: float = 0.1
    """The cosine ends at this share of the peak."""

    def check(self) -> None:
        super().check()
        require_positive(self, "epochs")
        require_not_negative(self, "final_fraction")
        if self.adapters:
            raise invalid("adapters", True, "leave it out: a process reward model trains all its weights")
        if self.solutions is not None:
            require_positive(self, "solutions")


@dataclass(kw_only=True, frozen=True)
class StepLabelConfig(ModelConfig):
    """`tutelage step-label`: label the steps of sampled solutions without people (Math-Shepherd)."""

    verb: ClassVar[str] = "step-label"
    model: str = "world"
    """The model that completes each solution from each of its steps."""
    by: Literal["completions", "world"] = "completions"
    """completions: a step is as right as the completions from it come to the right answer. world: the world's own
    check of every step (problems of world:reasoning only)."""
    completions: int = 8
    """Completions from each step."""
    max_new_tokens: int = 256
    """Longest completion, in tokens."""
    temperature: float = 1.0
    """Of the completions."""

    def check(self) -> None:
        super().check()
        require_positive(self, "completions", "max_new_tokens", "temperature")


@dataclass(kw_only=True, frozen=True)
class RerankConfig(ModelConfig):
    """`tutelage rerank`: best of n solutions by process reward, outcome reward and majority, against the right answer."""

    verb: ClassVar[str] = "rerank"
    prm: str | None = None
    """A process reward model (tutelage prm)."""
    orm: str | None = None
    """An outcome reward model (tutelage prm --supervision outcome, or tutelage reward)."""


@dataclass(kw_only=True, frozen=True)
class ScoreConfig(ModelConfig):
    """`tutelage score`: what a process reward model says of every step of solutions, or a reward model of answers."""

    verb: ClassVar[str] = "score"
    model: str | None = None
    """A process reward model (tutelage prm), or a reward model (tutelage reward)."""
    aggregation: Literal["product", "min", "last"] | None = None
    """What a solution's score is made of its steps'; what the process reward model was trained with when not given."""
