"""Options of Constitutional AI (Bai et al. 2022, arXiv 2212.08073): fine-tuning on revisions, and comparisons by a model."""

from dataclasses import dataclass
from typing import ClassVar

from tutelage.configs.base import ModelConfig, TrainingConfig, invalid, require_not_negative, require_positive


@dataclass(kw_only=True, frozen=True)
class CAIConfig(TrainingConfig):
    """`tutelage cai`: answer, criticize, revise, and fine-tune the pretrained model on the revisions (SL-CAI)."""

    verb: ClassVar[str] = "cai"
    data: str = "world:harmful"
    """Prompts that invite harm: `world:harmful`, or a file or folder of prompts."""
    policy: str | None = None
    """The model that answers and whose answers are criticized: helpful, not yet harmless."""
    critic: str | None = None
    """Who criticizes and revises: a checkpoint's folder, openai:URL#MODEL or anthropic:MODEL; the policy when not given."""
    constitution: str = "general"
    """The principles: a YAML file, or `general` or `world`, which come with the program."""
    prompts: int | None = None
    """Use this many prompts; all when not given (the world: 1000 if there are as many)."""
    revisions: int = 4
    """Rounds of critique and revision, each on the latest revision, each by a principle drawn anew."""
    helpful_data: str | None = None
    """Prompts whose answers by the policy are mixed in, so that it stays helpful (`world:helpful`, or a file)."""
    helpful_prompts: int = 1000
    """How many of them."""
    helpful_samples: int = 2
    """Answers to each of them."""
    batch_size: int = 1024
    epochs: float = 1
    """Passes over revisions and helpful answers; the rate is constant (the paper: half of that of pretraining)."""
    max_new_tokens: int = 256
    """Longest answer, critique or revision, in tokens."""
    temperature: float = 1.0
    """Of answers, critiques and revisions."""

    def check(self) -> None:
        super().check()
        require_positive(self, "revisions", "helpful_prompts", "helpful_samples", "epochs", "max_new_tokens")
        require_not_negative(self, "temperature")
        if self.prompts is not None:
            require_positive(self, "prompts")


@dataclass(kw_only=True, frozen=True)
class CAILabelConfig(ModelConfig):
    """`tutelage cai-label`: a model compares answers by a constitution into soft comparisons (RL-CAI)."""

    verb: ClassVar[str] = "cai-label"
    critic: str | None = None
    """Who compares: a checkpoint's folder, openai:URL#MODEL or anthropic:MODEL."""
    constitution: str = "general"
    """The principles: a YAML file, or `general` or `world`, which come with the program."""
    think: bool = False
    """Let the critic reason before it chooses (chain of thought)."""
    clamp: float = 0.4
    """With --think labels are clamped to [clamp, 1 - clamp]; without it they are not."""
    mix: str | None = None
    """Comparisons by people (of helpfulness) to put into the same file."""
    human: str | None = None
    """Comparisons by people of these very answers, for the agreement that is reported; nothing is trained on them."""
    max_new_tokens: int = 256
    """Longest reasoning, in tokens."""

    def check(self) -> None:
        super().check()
        require_positive(self, "max_new_tokens")
        if not 0 <= self.clamp <= 0.5:
            raise invalid("clamp", self.clamp, "give a number from 0 to 0.5")
