"""Workers that sample with the trainer's weights, and the pool that divides prompts among them.

A worker may die at any moment: its prompts go to another, a new worker takes its place, and since an answer hangs on
its prompt's seed and the weights alone, it is the same whoever draws it. One that has no place in the cluster yet is
waited for while the others work. Weights go through Ray's object store.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from tutelage.configs.cluster import ClusterConfig
from tutelage.engine.sampling import Sample, SamplingParams
from tutelage.engine.watchdog import beat
from tutelage.models import Policy, load_policy
from tutelage.records import Prompt

CHUNKS = 4  # parts of an iteration's prompts for each worker: a slow one gets fewer
WAIT = 1.0  # seconds between looks at the workers
FAILURES = 20  # deaths in one iteration after which something is wrong with all of them


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

    def __init__(self, model: str, dtype: str, device: str = "auto"):
        torch.set_num_threads(1)
        self.policy, self.version = load_policy(model, dtype, device=device), -1

    def ready(self) -> None:
        """Return once the model is loaded."""

    @torch.no_grad()
    def draw(self, weights: dict[str, torch.Tensor], version: int, request: Request) -> list[list[Sample]]:
        from tutelage.stages.sample import draw

        if version != self.version:
            for name, parameter in self.policy.model.named_parameters():
                parameter.copy_(weights[name])
            self.version = version
        return draw(self.policy, request.prompts, request.count, request.params, request.seed, request.max_length)


@dataclass(frozen=True)
class Seated:
    """A worker, and which of the cluster's samplers it is."""

    worker: Any
    seat: int


class Pool:
    """`samplers` workers; `draw` gives what one process would draw."""

    def __init__(self, ray: Any, start: Callable[[int], Any], cluster: ClusterConfig):
        """start: makes the worker of a seat, an actor that does what `Sampler` does."""
        self.ray, self.start, self.cluster = ray, start, cluster
        self.version = 0
        self.starting: dict[Any, Seated] = {}  # the answer of `ready` -> worker
        self.idle: list[Seated] = []
        self.busy: dict[Any, tuple[Seated, int]] = {}  # a future -> its worker, its part's number
        self.waiting: deque[int] = deque()
        self.parts: list[Request] = []
        self.found: dict[int, list[list[Sample]]] = {}
        self.weights: Any = None
        self.deaths = 0
        for seat in range(cluster.samplers):
            self._start(seat)

    def _start(self, seat: int) -> None:
        worker = self.start(seat)
        self.starting[worker.ready.remote()] = Seated(worker, seat)

    @property
    def off_policy(self) -> bool:
        return self.cluster.mode == "one-step-off"

    def draw(self, policy: Policy, request: Request, ahead: Request | None) -> list[list[Sample]]:
        """The answers of a request, which may have been begun as `ahead` before; those of `ahead` are begun now."""
        if not self.parts:
            self._begin(policy, request)
        drawn = self._finish()
        if ahead is not None:
            self._begin(policy, ahead)
        return drawn

    def _begin(self, policy: Policy, request: Request) -> None:
        self.version += 1
        weights = {name: p.detach().cpu().clone() for name, p in policy.model.named_parameters()}
        self.weights = self.ray.put(weights)
        parts = min(len(request.prompts), CHUNKS * self.cluster.samplers)
        edges = [number * len(request.prompts) // parts for number in range(parts + 1)]
        self.parts = [
            Request(request.prompts[a:b], request.count, request.params, request.seed, request.max_length)
            for a, b in pairwise(edges)
        ]
        self.waiting, self.found, self.deaths = deque(range(parts)), {}, 0
        self._give()

    def _give(self) -> None:
        """Each idle worker gets one part."""
        while self.idle and self.waiting:
            one, number = self.idle.pop(), self.waiting.popleft()
            self.busy[one.worker.draw.remote(self.weights, self.version, self.parts[number])] = (one, number)

    def _finish(self) -> list[list[Sample]]:
        while len(self.found) < len(self.parts):
            futures = [*self.busy, *self.starting]
            done, _ = self.ray.wait(futures, num_returns=1, timeout=WAIT)
            for future in done:
                self._take(future)
            self._give()
        drawn = [row for number in range(len(self.parts)) for row in self.found[number]]
        self.parts = []
        return drawn

    def _take(self, future: Any) -> None:
        """What a worker answered; if it died, its part waits again and another worker is started."""
        starting = self.starting.pop(future, None)
        one, number = (starting, None) if starting is not None else self.busy.pop(future)
        try:
            answer = self.ray.get(future)
        except self.ray.exceptions.RayActorError as error:
            self.deaths += 1
            if self.deaths > FAILURES:
                raise
            print(f"a sampler died ({str(error).splitlines()[0]}); another takes its place", file=sys.stderr)
            if number is not None:
                self.waiting.appendleft(number)
            self.ray.kill(one.worker)  # it may be out of reach only, and would keep its place
            self._start(one.seat)
            return
        beat()
        self.idle.append(one)
        if number is not None:
            self.found[number] = answer


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
