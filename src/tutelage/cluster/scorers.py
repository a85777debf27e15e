"""Workers that hold the frozen models of an on-policy stage, and what the trainer asks them of a rollout.

A part is one pass of one model over one micro-batch, the same that the trainer would compute without them: so the
numbers are the same, whoever answers and however many there are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.cluster.workers import Part, Workers
from tutelage.configs.cluster import ClusterConfig
from tutelage.engine.packing import Packed
from tutelage.engine.sampling import Sample
from tutelage.models import StepModel, is_step_model, load_policy, load_scalar, load_step_model
from tutelage.models.checkpoint import load_tokenizer
from tutelage.processes import rank, world_size
from tutelage.records import Prompt
from tutelage.stages.passes import Pass, reward_passes
from tutelage.stages.step_scores import process_rewards


class Scorer:
    """What an actor does: hold the reference and the reward model, and compute with them."""

    def __init__(self, model: str, reward_model: str, dtype: str, device: str, threads: int):
        torch.set_num_threads(threads)
        self.model, self.reward_model, self.dtype, self.device = model, reward_model, dtype, device

    def ready(self) -> None:
        """Load the models (here, as a `Sampler` does)."""
        load_reward = load_step_model if is_step_model(self.reward_model) else load_scalar
        self.reference = load_policy(self.model, self.dtype, device=self.device)
        self.reward = load_reward(self.reward_model, self.dtype, device=self.device)

    @torch.no_grad()
    def reference_logprobs(self, packed: Packed, targets: Tensor, temperature: float) -> Tensor:
        """[M] of the tokens at the indices `targets` [M]."""
        return self.reference.logprobs(packed, targets, temperature)[0]

    @torch.no_grad()
    def scores(self, packed: Packed) -> Tensor:
        """[N] of the reward model."""
        assert not isinstance(self.reward, StepModel)
        return self.reward.scores(packed)

    def process_rewards(self, asked: list[Prompt], samples: list[Sample], max_length: int) -> tuple[Tensor, Tensor]:
        """[N] and [T] of a process reward model. The reference reads tokens as the policy does."""
        assert isinstance(self.reward, StepModel)
        return process_rewards(self.reward, self.reference, asked, samples, max_length)


class Scorers:
    """`begin` asks everything that the frozen models say of a rollout, `finish` waits for it."""

    def __init__(self, ray: Any, start: Callable[[int], Any], cluster: ClusterConfig, reward_model: Path):
        """start: makes the worker of a seat, an actor that does what `Scorer` does. Trainers share the seats out."""
        seats = range(rank(), cluster.scorers, world_size())
        self.workers = Workers(ray, lambda place: start(seats[place]), len(seats), "scorer")
        self.by_steps = is_step_model(reward_model)
        self.tokenizer = load_tokenizer(reward_model)
        self.passes: Sequence[Pass] = ()
        self.rewarded: list[list[int]] = []

    def begin(
        self,
        passes: Sequence[Pass],
        asked: list[Prompt],
        samples: list[Sample],
        texts: list[str],
        *,
        temperature: float,
        max_length: int,
        micro_tokens: int,
    ) -> None:
        """asked, samples, texts: of each episode; passes: its micro-batches of episodes."""
        self.passes = passes
        parts = [Part("reference_logprobs", (one.packed, one.targets, temperature)) for one in passes]
        if self.by_steps:
            self.rewarded = [one.episodes for one in passes]
            for some in self.rewarded:
                parts.append(
                    Part("process_rewards", ([asked[i] for i in some], [samples[i] for i in some], max_length))
                )
        else:
            found = reward_passes(self.tokenizer, asked, texts, max_length, micro_tokens)
            self.rewarded = [episodes for episodes, _ in found]
            parts += [Part("scores", (packed,)) for _, packed in found]
        self.workers.begin(parts)

    def finish(self, reference_logprobs: Tensor, scores: Tensor, step_rewards: Tensor) -> None:
        """Write what was asked into [T], [N] and (a process reward model's) [T]."""
        answers = self.workers.finish()
        for one, logprobs in zip(self.passes, answers, strict=False):
            reference_logprobs[one.where] = logprobs
        for number, (episodes, answer) in enumerate(zip(self.rewarded, answers[len(self.passes) :], strict=True)):
            if self.by_steps:
                scores[episodes], step_rewards[self.passes[number].where] = answer
            else:
                scores[episodes] = answer


_scorers: Scorers | None = None


@contextmanager
def using(scorers: Scorers | None) -> Iterator[None]:
    """On-policy stages leave the frozen models to these workers meanwhile."""
    global _scorers
    before, _scorers = _scorers, scorers
    try:
        yield
    finally:
        _scorers = before


def current() -> Scorers | None:
    return _scorers
