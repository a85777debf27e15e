"""Options of the preference stages: one training loop, one small class of options for each loss.

Sources: DPO Rafailov et al. 2023 (2305.18290), IPO Azar et al. 2024 (2310.12036), KTO Ethayarajh et al. 2024
(2402.01306), ORPO Hong et al. 2024 (2403.07691), SimPO Meng et al. 2024 (2405.14734).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from tutelage.configs.base import (
    TrainingConfig,
    invalid,
    require_not_negative,
    require_positive,
    require_share,
)


@dataclass(kw_only=True, frozen=True)
class PreferenceConfig(TrainingConfig):
    """What every loss on preferences shares."""

    batch_size: int = 64
    """Comparisons a step (KTO: answers), each with all of its ranked answers."""
    epochs: float = 1
    """Passes over the comparisons."""
    warmup: float = 0.1
    """Share of the steps over which the rate rises from zero (the DPO authors' code: 150 steps)."""
    final_fraction: float = 1.0
    """The cosine after the warm-up ends at this share of the peak; 1 holds the rate."""
    comparisons: int | None = None
    """Use this many comparisons (KTO: answers); all when not given."""
    eval_every: int = 25
    """Steps between looks at the accuracy on held-out comparisons."""
    eval_comparisons: int = 256
    """Held-out comparisons to look at, at most; 0 for none."""

    def check(self) -> None:
        super().check()
        require_positive(self, "epochs", "eval_every")
        require_share(self, "warmup", "final_fraction")
        require_not_negative(self, "eval_comparisons")
        if self.comparisons is not None:
            require_positive(self, "comparisons")

    @property
    def reference_model(self) -> str | None:
        """The checkpoint that log-ratios are taken against; None where the loss has no reference."""
        return None


@dataclass(kw_only=True, frozen=True)
class ReferenceConfig(PreferenceConfig):
    """What the losses with a reference share."""

    reference: str | None = None
    """Checkpoint of the reference; the model that training starts from when not given."""

    @property
    def reference_model(self) -> str | None:
        return self.reference or self.model


@dataclass(kw_only=True, frozen=True)
class DPOConfig(ReferenceConfig):
    """`tutelage dpo`: direct preference optimization on comparisons."""

    verb: ClassVar[str] = "dpo"
    learning_rate: float = 1e-6
    """Peak rate of Adam (the paper: RMSprop at 1e-6)."""
    loss: Literal["sigmoid", "cdpo", "robust", "plackett-luce"] = "sigmoid"
    """sigmoid: DPO on every ordered pair. cdpo, robust: for labels of which a share is flipped. plackett-luce: whole
    rankings at once (of tied answers one takes part)."""
    beta: float = 0.1
    """Strength of the tie to the reference (the paper: 0.1, and 0.5 on TL;DR)."""
    label_smoothing: float = 0.0
    """Share of flipped labels that cdpo and robust assume, below 0.5."""
    logprob: Literal["sum", "mean"] = "sum"
    """Log-probability of an answer: summed over its tokens (the paper), or their mean (length-normalized DPO)."""
    nll_coef: float = 0.0
    """Weight of the chosen answer's mean NLL a token, which keeps it likely; not in the paper (Pang et al. 2024: 1)."""

    def check(self) -> None:
        super().check()
        require_positive(self, "beta")
        require_not_negative(self, "nll_coef")
        needed = self.loss in ("cdpo", "robust")
        if needed and not 0 < self.label_smoothing < 0.5:
            raise invalid(
                "label_smoothing",
                self.label_smoothing,
                f"--loss {self.loss} needs the share of flipped labels, 0 to 0.5",
            )
        if self.label_smoothing and not needed:
            raise invalid("label_smoothing", self.label_smoothing, f"--loss {self.loss} has none; use cdpo or robust")


@dataclass(kw_only=True, frozen=True)
class IPOConfig(ReferenceConfig):
    """`tutelage ipo`: regress the margin between two answers to a finite target."""

    verb: ClassVar[str] = "ipo"
    learning_rate: float = 1e-6
    tau: float = 0.1
    """Regularization: the margin's target is 1/(2 tau)."""
    logprob: Literal["sum", "mean"] = "mean"
    """Mean over an answer's tokens (what the authors told TRL that they used), or the sum (the DPO authors' code).
    The useful tau moves by about the length of an answer."""
    nll_coef: float = 0.0
    """Weight of the chosen answer's mean NLL a token; not in the paper."""

    def check(self) -> None:
        super().check()
        require_positive(self, "tau")
        require_not_negative(self, "nll_coef")


@dataclass(kw_only=True, frozen=True)
class KTOConfig(ReferenceConfig):
    """`tutelage kto`: answers with a thumb up or down, no pairs; comparisons are taken apart."""

    verb: ClassVar[str] = "kto"
    learning_rate: float = 5e-6
    beta: float = 0.1
    """Scale of the implicit reward: how fast an answer counts as good enough."""
    desirable_weight: float = 1.0
    """Weight of the thumbs up; weight times count of the two sides should be about equal (1 to 4/3)."""
    undesirable_weight: float = 1.0
    """Weight of the thumbs down."""

    def check(self) -> None:
        super().check()
        require_positive(self, "beta", "desirable_weight", "undesirable_weight")
        if self.batch_size < 2:
            raise invalid("batch_size", self.batch_size, "give 2 or more: the baseline is a mean over the batch")


@dataclass(kw_only=True, frozen=True)
class ORPOConfig(PreferenceConfig):
    """`tutelage orpo`: fine-tuning and preference in one loss, without a reference."""

    verb: ClassVar[str] = "orpo"
    learning_rate: float = 5e-6
    final_fraction: float = 0.0
    odds_weight: float = 0.1
    """Weight of the odds-ratio term against the NLL of the chosen answer, lambda."""

    def check(self) -> None:
        super().check()
        require_positive(self, "odds_weight")


@dataclass(kw_only=True, frozen=True)
class SimPOConfig(PreferenceConfig):
    """`tutelage simpo`: mean log-probabilities with a target margin, without a reference."""

    verb: ClassVar[str] = "simpo"
    batch_size: int = 128
    learning_rate: float = 1e-6
    """Peak rate (the paper: 3e-7 to 1e-6; there is no reference to hold the policy)."""
    final_fraction: float = 0.0
    beta: float = 2.0
    """Scale of the implicit reward: how fast an answer counts as good enough."""
    gamma: float = 1.0
    """Target margin of the rewards (the paper: gamma/beta of about 0.5)."""
    nll_coef: float = 0.0
    """Weight of the chosen answer's mean NLL a token; not in the paper."""

    def check(self) -> None:
        super().check()
        require_positive(self, "beta")
        require_not_negative(self, "gamma", "nll_coef")
