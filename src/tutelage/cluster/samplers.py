"""Workers that sample with the trainer's weights, and the pool that divides prompts among them.

An answer hangs on its prompt's seed and the weights alone, so that it is the same whoever draws it. Weights go through
Ray's object store.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from tutelage.cluster.workers import Part, Workers
from tutelage.configs.cluster import ClusterConfig
from tutelage.engine.sampling import Sample, SamplingParams
from tutelage.engine.vllm import VLLM
from tutelage.models import Policy, load_policy
from tutelage.models.checkpoint import load_vllm
from tutelage.processes import is_main
from tutelage.records import Prompt

CHUNKS = 4  # parts of an iteration's prompts for each worker: a slow one gets fewer


@dataclass
class Request:
    """Which answers are asked for."""

    prompts: list[Prompt]
    count: int
    params: SamplingParams
    seed: int
    max_length: int


class Sampler:
    """What an actor does: hold the policy, take newer weights, draw."""

    def __init__(self, load: Callable[[], Policy], threads: int):
        torch.set_num_threads(threads)
        self.load, self.version = load, -1

    def ready(self) -> None:
        """Load the model. An error here is the user's to mend; one in __init__ would look like the actor's death."""
        self.policy = self.load()

    @torch.no_grad()
    def draw(self, weights: dict[str, torch.Tensor], version: int, request: Request) -> list[list[Sample]]:
        from tutelage.stages.sample import draw

        if version != self.version:
            if isinstance(self.policy.model, VLLM):
                self.policy.model.load(weights)
            else:
                for name, parameter in self.policy.model.named_parameters():
                    parameter.copy_(weights[name])
            self.version = version
        return draw(self.policy, request.prompts, request.count, request.params, request.seed, request.max_length)


def loader(
    cluster: ClusterConfig, model: str, dtype: str, device: str, max_length: int, params: SamplingParams
) -> Callable[[], Policy]:
    """What loads a sampler's model where it is called."""
    if cluster.backend == "vllm":
        return partial(load_vllm, model, dtype, max_length, params, device=device, gpus=cluster.sampler_gpus)
    return partial(load_policy, model, dtype, device=device)


class Pool:
    """`samplers` workers; `draw` gives what one process would draw."""

    def __init__(self, ray: Any, start: Callable[[int], Any], cluster: ClusterConfig):
        """start: makes the worker of a seat, an actor that does what `Sampler` does.

        Of several trainers the main one has them all, and draws for the others.
        """
        self.ray, self.cluster = ray, cluster
        self.workers = Workers(ray, start, cluster.samplers if is_main() else 0, "sampler")
        self.version = 0
        self.begun: Request | None = None

    @property
    def off_policy(self) -> bool:
        return self.cluster.mode == "one-step-off"

    @property
    def corrected(self) -> bool:
        """Whether what drew the answers may differ from the policy by more than our sampler's rounding."""
        return self.off_policy or self.cluster.backend == "vllm"

    def draw(self, policy: Policy, request: Request, ahead: Request | None) -> list[list[Sample]]:
        """The answers of a request, which may have been begun as `ahead` before; those of `ahead` are begun now.

        After a rollback other prompts are asked about than was foreseen: what broken weights drew is thrown away.
        """
        if self.workers.parts and self.begun != request:
            self.workers.finish()
        if not self.workers.parts:
            self._begin(policy, request)
        drawn = [row for rows in self.workers.finish() for row in rows]
        if ahead is not None:
            self._begin(policy, ahead)
        return drawn

    def _begin(self, policy: Policy, request: Request) -> None:
        self.version, self.begun = self.version + 1, request
        there = self.ray.put(policy.plain_weights())
        count = min(len(request.prompts), CHUNKS * self.cluster.samplers)
        edges = [number * len(request.prompts) // count for number in range(count + 1)]
        parts = [
            Request(request.prompts[a:b], request.count, request.params, request.seed, request.max_length)
            for a, b in pairwise(edges)
        ]
        self.workers.begin([Part("draw", (there, self.version, part)) for part in parts])


_pool: Pool | None = None


@contextmanager
def using(pool: Pool) -> Iterator[None]:
    """On-policy stages draw from this pool meanwhile."""
    global _pool
    before, _pool = _pool, pool
    try:
        yield
    finally:
        _pool = before


def current() -> Pool | None:
    return _pool
