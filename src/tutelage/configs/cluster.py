"""The `cluster:` block of a recipe: which actors Ray places, with what."""

from dataclasses import dataclass
from typing import Literal

from tutelage.errors import UserError


@dataclass(kw_only=True, frozen=True)
class ClusterConfig:
    """On-policy stages on a Ray cluster: trainers, and workers that sample and score for them."""

    samplers: int = 2
    """Workers that draw answers with the trainer's weights."""
    least_samplers: int | None = None
    """So many have their place before the run begins, and keep it; the others join when the cluster has room for them, and
    may leave with their machine. All of them when not given."""
    backend: Literal["tutelage", "vllm"] = "tutelage"
    """What samplers sample with: our own sampler, or vLLM, which you install where they run."""
    sampler_cpus: float = 1.0
    sampler_gpus: float = 0.0
    scorers: int = 0
    """Workers that hold the reference and the reward model and score answers with them; 0: the trainer does so itself."""
    scorer_cpus: float = 1.0
    scorer_gpus: float = 0.0
    trainers: int = 1
    """Processes that train: they share each batch, and with the stage's `parallel: fsdp` the models too."""
    trainer_cpus: float = 1.0
    trainer_gpus: float = 0.0
    mode: Literal["synchronous", "one-step-off"] = "synchronous"
    """Sample with the newest weights, or while the trainer updates with those before."""
    max_importance_weight: float = 2.0
    """Where the truncated importance weights end that answers of older weights, and of vLLM, are given."""
    address: str | None = None
    """A Ray cluster (`auto`: the one this machine belongs to); when not given, that of RAY_ADDRESS, which a Ray job sets,
    and without it Ray is started here."""
    restarts: int = 3
    """How often trainers of which one died are begun anew from their last checkpoint."""

    def __post_init__(self) -> None:
        for name in ("samplers", "trainers", "sampler_cpus", "scorer_cpus", "trainer_cpus", "max_importance_weight"):
            if not getattr(self, name) > 0:
                self._refuse(name, "give a number above zero")
        for name in ("sampler_gpus", "scorers", "scorer_gpus", "trainer_gpus", "restarts"):
            if getattr(self, name) < 0:
                self._refuse(name, "give zero or a number above it")
        if 0 < self.scorers < self.trainers:
            self._refuse("scorers", f"give {self.trainers} or more: each trainer asks scorers of its own")
        if self.least_samplers is not None and not 1 <= self.least_samplers <= self.samplers:
            self._refuse("least_samplers", f"give a number from 1 to {self.samplers}, that of the samplers")

    @property
    def sure(self) -> int:
        """Samplers whose place is kept for them."""
        return self.samplers if self.least_samplers is None else self.least_samplers

    def _refuse(self, name: str, mend: str) -> None:
        raise UserError(f"{getattr(self, name)!r} cannot be used", where=f"cluster, key {name}", mend=mend)
