"""What a round of human feedback is made of."""

from dataclasses import dataclass

from tutelage.errors import UserError

PROJECT = "project"  # RoundSettings.data: the project's own prompts


@dataclass(kw_only=True)
class RoundSettings:
    """Samples of models, who labels them, and what trains on the labels."""

    model: tuple[str, ...] = ("world",)
    """Who answers: checkpoints, runs or endpoints (openai:URL#MODEL). Several share the K answers."""
    data: str = "world"
    """Where prompts come from: world, `project` for those that were imported into it, or a file or folder."""
    prompts: int = 100
    samples: int = 4
    """Answers a prompt, K."""
    max_new_tokens: int = 64
    temperature: float = 1.0
    recipe: str = "reward-round"
    """What trains on the labels: a recipe file, or the name of one that comes along (reward-round, ppo-round)."""
    base: str = ""
    """The model that the recipe starts from; the first of --model when not given."""
    ensemble: tuple[str, ...] = ()
    """Reward models whose disagreement orders the queue (active selection)."""
    by: str = ""
    """Who labels: world:fair, model:CHECKPOINT, openai:URL#MODEL …; people when not given."""

    def __post_init__(self) -> None:
        self.model, self.ensemble = tuple(self.model), tuple(self.ensemble)
        limits = {"prompts": (1, 100_000), "samples": (2, 9), "max_new_tokens": (1, 100_000)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(
                    f"{getattr(self, name)} cannot be used", where=name, mend=f"give a number from {low} to {high}"
                )
        if len(self.ensemble) == 1:
            raise UserError("one reward model differs from none", where="ensemble", mend="give two or more, or none")
        if not 0 <= self.temperature <= 10:
            raise UserError(f"{self.temperature} cannot be used", where="temperature", mend="give 0 to 10")
        if not self.model or not all(self.model) or len(self.model) > self.samples:
            raise UserError("needs a model for each answer or fewer", where="model", mend="name 1 to K models")

    @property
    def start(self) -> str:
        """The model that training starts from."""
        return self.base or self.model[0]
