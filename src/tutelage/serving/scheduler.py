"""One thread a model: it admits what waits, decodes a token for every row, and sends what has come."""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from tutelage.engine.online import OnlineDecoder, Row
from tutelage.serving.text import Text

PROMPT_TOKENS_AT_ONCE = 4096  # read before the running rows get their next token


@dataclass
class Generation:
    """One choice of an answer while it grows: its row in the batch, and its text."""

    index: int
    row: Row
    text: Text
    end_tokens: frozenset[int]
    pushed: int = 0
    finish: str | None = None

    @property
    def shown(self) -> list[int]:
        """The tokens that belong to the text: the end token does not."""
        tokens = self.row.tokens
        return tokens[:-1] if tokens and tokens[-1] in self.end_tokens else tokens

    def advance(self) -> bool:
        """Take the row's new tokens into the text; True when the choice is done."""
        for token in self.shown[self.pushed :]:
            self.pushed += 1
            if self.text.push(token):
                self.finish = "stop"
                return True
        self.finish = self.row.finish
        return self.finish is not None


@dataclass
class Part:
    """What has newly come of one choice. tokens: how many of its shown tokens this and earlier parts cover."""

    index: int
    text: str
    tokens: int
    finish: str | None


@dataclass(eq=False)
class Job:
    """A request on its way: its choices, and the queue (in the server's loop) that its parts arrive in."""

    generations: list[Generation]
    streaming: bool
    events: asyncio.Queue = field(default_factory=asyncio.Queue)
    """Lists of `Part`; at the end None, or an exception."""
    open: int = 0
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.open = len(self.generations)


class Scheduler:
    """Continuous batching over one model's decoder. All methods but `_…` may be called from any thread."""

    def __init__(self, model: Any, end_tokens: list[int], batch_size: int):
        self.decoder = OnlineDecoder(model, end_tokens)
        self.batch_size = batch_size
        self.waiting: deque[tuple[Job, Generation]] = deque()
        self.running: dict[Row, tuple[Job, Generation]] = {}
        self.left: list[Job] = []
        self.closing = False
        self.wake = threading.Condition()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread.start()

    def submit(self, job: Job) -> None:
        with self.wake:
            self.waiting.extend((job, generation) for generation in job.generations)
            self.wake.notify()

    def cancel(self, job: Job) -> None:
        """The client is gone: its rows leave the batch before the next token."""
        with self.wake:
            self.left.append(job)
            self.wake.notify()

    def close(self) -> None:
        with self.wake:
            self.closing = True
            self.wake.notify()
        if self.thread.is_alive():
            self.thread.join()

    def _run(self) -> None:
        while (work := self._next()) is not None:
            gone, arrivals = work
            try:
                for row in gone:
                    self.decoder.cancel(row)
                self._turn(arrivals)
            except Exception as error:  # out of memory, most likely: those requests fail, the server goes on
                self._fail(error, arrivals)
        self._fail(RuntimeError("the server is shutting down"), [])

    def _next(self) -> tuple[list[Row], list[tuple[Job, Generation]]] | None:
        """Waits for work; returns the rows whose clients left and the choices to admit now, or None at the end."""
        with self.wake:
            self.wake.wait_for(lambda: self.waiting or self.running or self.left or self.closing)
            if self.closing:
                return None
            gone: list[Row] = []
            for job in self.left:
                job.cancelled = True
                gone += [g.row for g in job.generations if self.running.pop(g.row, None)]
            if self.left:
                self.left.clear()
                self.waiting = deque(pair for pair in self.waiting if not pair[0].cancelled)
            arrivals: list[tuple[Job, Generation]] = []
            budget = PROMPT_TOKENS_AT_ONCE
            while self.waiting and len(self.running) + len(arrivals) < self.batch_size:
                budget -= len(self.waiting[0][1].row.prompt)
                if arrivals and budget < 0:
                    break
                arrivals.append(self.waiting.popleft())
            return gone, arrivals

    def _turn(self, arrivals: list[tuple[Job, Generation]]) -> None:
        moved: list[Row] = []
        if self.running:
            moved = self.decoder.step()
        if arrivals:
            rows = [generation.row for _, generation in arrivals]
            self.decoder.admit(rows)
            self.running.update(zip(rows, arrivals, strict=True))
            moved += rows
        outbox: dict[Job, list[Part]] = {}
        for row in moved:
            job, generation = self.running[row]
            done = generation.advance()
            if done:
                del self.running[row]
                self.decoder.cancel(row)
                job.open -= 1
            if job.streaming or done:
                text = generation.text.close() if done else generation.text.take()
                parts = outbox.setdefault(job, [])
                if text or done:
                    parts.append(Part(generation.index, text, generation.text.covered(), generation.finish))
        self._post([(job, event) for job, parts in outbox.items() for event in self._events(job, parts)])

    def _events(self, job: Job, parts: list[Part]) -> list[Any]:
        ended: list[Any] = [None] if job.open == 0 else []
        return ([parts] if parts and job.streaming else []) + ended

    def _fail(self, error: Exception, arrivals: list[tuple[Job, Generation]]) -> None:
        with self.wake:
            over = [*arrivals, *self.running.values(), *(self.waiting if self.closing else ())]
            self.running.clear()
        jobs = {id(job): job for job, _ in over}
        self.decoder = OnlineDecoder(self.decoder.model, self.decoder.ends)
        with self.wake:
            self.waiting = deque(pair for pair in self.waiting if id(pair[0]) not in jobs)
        self._post([(job, error) for job in jobs.values()])

    def _post(self, events: list[tuple[Job, Any]]) -> None:
        """One hand-over a turn to the server's loop, whatever it holds."""
        if events and self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(_deliver, events)


def _deliver(events: list[tuple[Job, Any]]) -> None:
    for job, event in events:
        job.events.put_nowait(event)
