"""Options of the supervised stages: pretraining, demonstrations, the reward model."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from tutelage.configs.base import TrainingConfig, invalid, require_not_negative, require_positive, require_share


@dataclass(kw_only=True, frozen=True)
class PretrainConfig(TrainingConfig):
    """`tutelage pretrain`: train a base model on plain text (continue with --model FOLDER)."""

    verb: ClassVar[str] = "pretrain"
    tokens: int = 6_000_000
    """Tokens to train on, if max_steps does not end it first."""
    batch_size: int = 128
    """Documents a step."""
    learning_rate: float = 2e-3
    """Peak learning rate of Adam (beta1 .9, beta2 .95)."""
    warmup_steps: int = 50
    """Steps from zero to the peak rate."""
    final_fraction: float = 0.05
    """The cosine ends at this share of the peak."""
    weight_decay: float = 0.1
    """AdamW's, on matrices."""

    def check(self) -> None:
        super().check()
        require_positive(self, "tokens")
        require_not_negative(self, "warmup_steps", "weight_decay")
        require_share(self, "final_fraction")


@dataclass(kw_only=True, frozen=True)
class SFTConfig(TrainingConfig):
    """`tutelage sft`: fine-tune on demonstrations; loss on the assistant's tokens, end token included."""

    verb: ClassVar[str] = "sft"
    learning_rate: float = 9.65e-6
    epochs: float = 16
    """Passes over the demonstrations (the paper's baseline; the model that starts PPO has 2)."""
    final_fraction: float = 0.1
    """The cosine ends at this share of the peak."""
    dropout: float = 0.0
    """Dropout on the residual branches of each layer (the paper: 0.2; a model pretrained without it breaks down)."""
    demonstrations: int | None = None
    """Use this many demonstrations; all when not given (the world writes 600)."""
    pretraining_mix: float = 0.0
    """Share of the batch that is plain text of the corpus (the paper: 0.1 for the model that starts PPO)."""
    eval_every: int = 50
    """Steps between looks at the loss on held-out demonstrations."""

    def check(self) -> None:
        super().check()
        require_positive(self, "epochs", "eval_every")
        require_share(self, "final_fraction", "dropout", "pretraining_mix")
        for name in ("dropout", "pretraining_mix"):
            if getattr(self, name) == 1:
                raise invalid(name, 1.0, "give a number below 1")
        if self.demonstrations is not None:
            require_positive(self, "demonstrations")


@dataclass(kw_only=True, frozen=True)
class RewardConfig(TrainingConfig):
    """`tutelage reward`: learn a scalar reward from rankings; all pairs of a prompt are one batch element."""

    verb: ClassVar[str] = "reward"
    learning_rate: float = 9e-6
    batch_size: int = 64
    """Prompts a step (each with all of its completions)."""
    epochs: float = 1
    """Passes over the comparisons; more than one overfits fast (paper, appendix E)."""
    final_fraction: float = 0.1
    """The cosine ends at this share of the peak."""
    ties: Literal["drop", "davidson", "rao-kupper"] = "drop"
    """What a tie teaches: nothing (the paper), or its own term with a learnt-free constant."""
    comparisons: int | None = None
    """Use this many rankings; all when not given."""
    eval_every: int = 25
    """Steps between looks at the accuracy on held-out comparisons."""

    def check(self) -> None:
        super().check()
        require_positive(self, "epochs", "eval_every")
        require_share(self, "final_fraction")
        if self.comparisons is not None:
            require_positive(self, "comparisons")
