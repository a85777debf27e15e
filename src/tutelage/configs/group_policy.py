"""Options of the on-policy stages without a critic: several answers to each prompt are each other's baseline.

Sources: RLOO Ahmadian et al. 2024 (2402.14740), GRPO Shao et al. 2024 (2402.03300), Dr. GRPO Liu et al. 2025
(2503.20783), online DPO Guo et al. 2024 (2402.04792), rejection sampling Touvron et al. 2023 (2307.09288).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from tutelage.configs.base import TrainingConfig, invalid, require_not_negative, require_positive, require_share


@dataclass(kw_only=True, frozen=True)
class GroupConfig(TrainingConfig):
    """What the loops without a critic share."""

    reward_model: str | None = None
    """The reward model's checkpoint."""
    force: bool = False
    """Go on even where the reward model failed its gate, or the first iteration a check."""
    max_steps: int | None = 500
    """Iterations of rollout and update."""
    batch_size: int = 512
    """Answers an iteration: batch_size / group_size prompts."""
    minibatch_size: int | None = None
    """Answers an update; all of the iteration's when not given, so that every update is on-policy."""
    group_size: int = 4
    """Answers to each prompt, K."""
    learning_rate: float = 1e-6
    """Peak rate; constant after warm-up from a tenth of it."""
    warmup_steps: int = 10
    """Iterations from a tenth of the learning rate to all of it."""
    max_new_tokens: int = 256
    """Longest answer, in tokens."""
    temperature: float = 1.0
    """Rollout temperature; every log-probability uses it."""
    missing_eos_penalty: float = 1.0
    """Taken from the score of an answer that was cut off; not in the papers (Huang et al. 2024)."""
    eval_every: int = 10
    """Iterations between samples on held-out prompts."""
    eval_prompts: int = 128
    """Held-out prompts to answer each time."""

    def check(self) -> None:
        super().check()
        require_positive(self, "max_new_tokens", "temperature", "eval_every", "eval_prompts")
        require_not_negative(self, "missing_eos_penalty", "warmup_steps")
        if self.group_size < 2:
            raise invalid("group_size", self.group_size, "give 2 or more: an answer alone has no baseline")
        for name in ("batch_size", "minibatch_size"):
            value = getattr(self, name)
            if value is not None and (value < self.group_size or value % self.group_size):
                raise invalid(name, value, f"give a multiple of group_size ({self.group_size})")
        if self.minibatch_size is not None and self.minibatch_size > self.batch_size:
            raise invalid("minibatch_size", self.minibatch_size, f"give at most batch_size ({self.batch_size})")

    @property
    def penalty(self) -> float:
        """Weight of the KL in what the method maximizes."""
        raise NotImplementedError


@dataclass(kw_only=True, frozen=True)
class RLOOConfig(GroupConfig):
    """`tutelage rloo`: REINFORCE with the mean reward of the prompt's other answers as baseline."""

    verb: ClassVar[str] = "rloo"
    kl_coef: float = 0.05
    """Weight of the KL penalty in the reward of the whole answer, beta (TRL's; the paper sweeps it)."""

    def check(self) -> None:
        super().check()
        require_not_negative(self, "kl_coef")

    @property
    def penalty(self) -> float:
        return self.kl_coef


@dataclass(kw_only=True, frozen=True)
class GRPOConfig(GroupConfig):
    """`tutelage grpo`: rewards standardized within each prompt's answers, clipped updates, KL in the loss."""

    verb: ClassVar[str] = "grpo"
    loss: Literal["grpo", "dr-grpo"] = "grpo"
    """grpo: the paper. dr-grpo: rewards not divided by their spread, sums divided by max_new_tokens."""
    batch_size: int = 1024
    group_size: int = 64
    kl_coef: float = 0.04
    """Weight of the KL term in the loss, beta (Dr. GRPO: 0)."""
    clip: float = 0.2
    """Clip range of the policy's ratio."""

    def check(self) -> None:
        super().check()
        require_not_negative(self, "kl_coef")
        require_positive(self, "clip")

    @property
    def penalty(self) -> float:
        return self.kl_coef


@dataclass(kw_only=True, frozen=True)
class OnlineDPOConfig(GroupConfig):
    """`tutelage online-dpo`: DPO on the policy's own answers, the reward model as judge."""

    verb: ClassVar[str] = "online-dpo"
    batch_size: int = 256
    group_size: int = 2
    """Answers to each prompt; the best and the worst become a pair."""
    learning_rate: float = 5e-7
    beta: float = 0.1
    """Strength of the tie to the reference."""

    def check(self) -> None:
        super().check()
        require_positive(self, "beta")

    @property
    def penalty(self) -> float:
        return self.beta


@dataclass(kw_only=True, frozen=True)
class RejectionConfig(TrainingConfig):
    """`tutelage rejection`: sample n answers to each prompt, keep the reward model's best, fine-tune on them."""

    verb: ClassVar[str] = "rejection"
    reward_model: str | None = None
    """The reward model's checkpoint; a process reward model chooses among solutions."""
    force: bool = False
    """Start even where the reward model failed its gate."""
    samples: int = 16
    """Answers to each prompt, n."""
    prompts: int | None = None
    """Use this many prompts; all when not given (the world: 1000)."""
    max_new_tokens: int = 256
    """Longest answer, in tokens."""
    temperature: float = 1.0
    """0 is greedy."""
    batch_size: int = 32
    """Kept answers a step."""
    epochs: float = 1
    """Passes over the kept answers."""
    final_fraction: float = 0.1
    """The cosine ends at this share of the peak."""

    def check(self) -> None:
        super().check()
        require_positive(self, "samples", "max_new_tokens", "temperature", "epochs")
        require_share(self, "final_fraction")
        if self.samples < 2:
            raise invalid("samples", self.samples, "give 2 or more to choose from")
        if self.prompts is not None:
            require_positive(self, "prompts")
