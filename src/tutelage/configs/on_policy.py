"""Options of the on-policy stage: PPO with a KL penalty, and PPO-ptx."""

from dataclasses import dataclass
from typing import ClassVar

from tutelage.configs.base import TrainingConfig, invalid, require_not_negative, require_positive, require_share


@dataclass(kw_only=True, frozen=True)
class PPOConfig(TrainingConfig):
    """`tutelage ppo`: optimize the policy against the reward model with a per-token KL penalty."""

    verb: ClassVar[str] = "ppo"
    reward_model: str | None = None
    """The reward model's checkpoint."""
    force: bool = False
    """Go on even where the reward model failed its gate, or the first iteration a check."""
    max_steps: int | None = 500
    """Iterations of rollout and update (500 of 512 episodes are the paper's 256 k)."""
    batch_size: int = 512
    """Episodes an iteration: batch_size / group_size prompts."""
    group_size: int = 1
    """Answers to each prompt, which is computed once for all of them; the paper takes one."""
    minibatch_size: int = 64
    """Episodes an update."""
    inner_epochs: int = 1
    """Passes over an iteration's episodes."""
    learning_rate: float = 9e-6
    """Peak rate of the policy; constant after warm-up from a tenth of it (the paper sweeps 2.55e-6 to 2.55e-5)."""
    value_learning_rate: float | None = None
    """Peak rate of the value model; the policy's when not given (the paper: 9e-6)."""
    warmup_steps: int = 10
    """Iterations from a tenth of the learning rate to all of it."""
    kl_coef: float = 0.02
    """Weight of the KL penalty in the reward, beta."""
    kl_target: float | None = None
    """Nats a sequence; when given, kl_coef is adapted to hold it (Ziegler et al. 2019)."""
    clip: float = 0.2
    """Clip range of the policy's ratio and of the value (Ziegler et al. 2019 for the value)."""
    value_coef: float = 0.1
    """Weight of the value loss; not in the paper (Ziegler et al. 2019)."""
    lam: float = 0.95
    """GAE's lambda; not in the paper (Ziegler et al. 2019). There is no discount: gamma is 1."""
    max_new_tokens: int = 256
    """Longest answer, in tokens."""
    temperature: float = 1.0
    """Rollout temperature; every log-probability uses it."""
    missing_eos_penalty: float = 1.0
    """Taken from the score of an answer that was cut off; not in the paper (Huang et al. 2024)."""
    ptx_coef: float = 0.0
    """Gradient weight of the pretraining loss, gamma (the paper's PPO-ptx: 27.8 in a unit it does not state;
    ours: mean loss per pretraining token against mean policy loss per response token)."""
    ptx_data: str | None = None
    """Plain text for ptx; the world's corpus when `data` is the world."""
    ema: float = 0.992
    """Decay of the averaged policy weights, per iteration; 0 keeps the last weights."""
    eval_every: int = 10
    """Iterations between samples on held-out prompts."""
    eval_prompts: int = 128
    """Held-out prompts to answer each time."""

    def check(self) -> None:
        super().check()
        require_positive(self, "minibatch_size", "inner_epochs", "max_new_tokens", "temperature", "eval_every", "clip")
        require_positive(self, "eval_prompts", "group_size")
        for name in ("value_learning_rate", "kl_target"):
            if getattr(self, name) is not None:
                require_positive(self, name)
        require_not_negative(self, "kl_coef", "ptx_coef", "missing_eos_penalty", "value_coef", "warmup_steps")
        require_share(self, "lam", "ema")
        if self.minibatch_size > self.batch_size and self.minibatch_size != 64:
            raise invalid("minibatch_size", self.minibatch_size, f"give at most batch_size ({self.batch_size})")
        if self.batch_size % self.group_size:
            raise invalid("batch_size", self.batch_size, f"give a multiple of group_size ({self.group_size})")
