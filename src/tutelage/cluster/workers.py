"""Actors that share out a job's parts: each part is answered once, whoever dies.

A worker may die at any moment: what it was asked goes to another, and a new worker takes its seat. One that has no place
in the cluster yet is waited for while the others work.
"""

import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.engine.watchdog import beat

WAIT = 1.0  # seconds between looks at the workers
FAILURES = 20  # deaths in one job after which something is wrong with all of them


@dataclass(frozen=True)
class Part:
    """What a worker is asked: a method of it, with arguments."""

    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Seated:
    """A worker, and which of its kind it is."""

    worker: Any
    seat: int


class Workers:
    """`count` workers of a kind; `begin` gives out a job's parts, `finish` waits for the answers."""

    def __init__(self, ray: Any, start: Callable[[int], Any], count: int, kind: str):
        """start: makes the worker of a seat, an actor whose `ready` returns once it can be asked."""
        self.ray, self.start, self.kind = ray, start, kind
        self.starting: dict[Any, Seated] = {}  # the answer of `ready` -> worker
        self.idle: list[Seated] = []
        self.busy: dict[Any, tuple[Seated, int]] = {}  # a future -> its worker, its part's number
        self.parts: Sequence[Part] = ()
        self.waiting: deque[int] = deque()
        self.found: dict[int, Any] = {}
        self.deaths = 0
        for seat in range(count):
            self._start(seat)

    def _start(self, seat: int) -> None:
        worker = self.start(seat)
        self.starting[worker.ready.remote()] = Seated(worker, seat)

    def begin(self, parts: Sequence[Part]) -> None:
        """Give out the parts of a job, the next of which begins when this one is finished."""
        self.parts, self.waiting = parts, deque(range(len(parts)))
        self.found, self.deaths = {}, 0
        self._give()

    def _give(self) -> None:
        """Each idle worker gets one part."""
        while self.idle and self.waiting:
            one, number = self.idle.pop(), self.waiting.popleft()
            part = self.parts[number]
            self.busy[getattr(one.worker, part.method).remote(*part.arguments)] = (one, number)

    def finish(self) -> list[Any]:
        """The answers, in the order of the parts."""
        while len(self.found) < len(self.parts):
            futures = [*self.busy, *self.starting]
            done, _ = self.ray.wait(futures, num_returns=1, timeout=WAIT)
            for future in done:
                self._take(future)
            self._give()
        answers = [self.found[number] for number in range(len(self.parts))]
        self.parts, self.found = (), {}
        return answers

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
            print(f"a {self.kind} died ({str(error).splitlines()[0]}); another takes its place", file=sys.stderr)
            if number is not None:
                self.waiting.appendleft(number)
            self.ray.kill(one.worker)  # it may be out of reach only, and would keep its place
            self._start(one.seat)
            return
        beat()
        self.idle.append(one)
        if number is not None:
            self.found[number] = answer
