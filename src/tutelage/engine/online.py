"""Continuous batching: rows with parameters of their own enter and leave a running batch at any step.

`sampling.sample` knows all of its rows beforehand; here they come and go, as a server's requests do. A row
is drawn as `sample` draws it: from the same seed come the same tokens, whatever shares the batch (up to
rounding). Row i of the batch lives in slot i of the cache, so that decoding reads it without a gather.

Suffixes: B rows being decoded, S cache slots, T packed prompt tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tutelage.engine.choosing import SamplingParams, choose
from tutelage.engine.decoding import decoder_step, head_product, new_cache, prefill
from tutelage.engine.device import device_of, moved
from tutelage.engine.packing import pack

Alternatives = list[tuple[int, float]]  # token, log-probability; the likeliest first
DRAWN_AT_ONCE = 64  # uniform numbers
SCORED_AT_ONCE = 2**23  # logits


@dataclass(eq=False)
class Row:
    """One sequence to continue, and what has come of it.

    The log-probabilities are the model's own (temperature 1, before top-p), as the OpenAI API reports them.
    """

    prompt: list[int]
    params: SamplingParams
    seed: int
    alternatives: int | None = None
    """How many likely tokens to report at each place; None reports no log-probabilities at all."""
    score_prompt: bool = False
    """Report the prompt's tokens too, from the second on."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tops: list[Alternatives] = field(default_factory=list)
    prompt_logprobs: list[float] = field(default_factory=list)
    prompt_tops: list[Alternatives] = field(default_factory=list)
    finish: str | None = None
    """None while it grows; then "stop" or "length"."""

    def __post_init__(self) -> None:
        self.uniforms = _uniforms(self.seed)

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.tokens)


def _uniforms(seed: int) -> Iterator[float]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.rand(DRAWN_AT_ONCE, generator=generator).tolist()


class OnlineDecoder:
    """A running batch: `admit` reads prompts, `step` gives every row one token, `cancel` takes a row out."""

    def __init__(self, model: Any, end_tokens: Sequence[int]):
        self.model, self.device = model.eval(), device_of(model)
        self.vocabulary = model.get_output_embeddings().weight.shape[0]
        self.head = head_product(model)
        self.ends = sorted(set(end_tokens))
        self.cache = new_cache(model)
        self.forward = decoder_step(model, self.cache)
        self.rows: list[Row] = []

    @torch.inference_mode()
    def admit(self, arrivals: Sequence[Row]) -> None:
        """Read the prompts, equal ones once, and draw each row's first token."""
        start = len(self.rows)
        groups: dict[tuple[int, ...], list[int]] = {}
        for slot, row in enumerate(arrivals, start):
            groups.setdefault(tuple(row.prompt), []).append(slot)
        self.cache.reserve(start + len(arrivals), 0)  # equal prompts are read into one slot
        packed = pack([list(prompt) for prompt in groups], share=True)
        self.cache.start_prefill(packed, torch.tensor([slots[0] for slots in groups.values()]))
        hidden = prefill(self.model, self.cache, packed)
        last = torch.empty(len(arrivals), dtype=torch.long)
        copies = [(slots[0], slot) for slots in groups.values() for slot in slots[1:]]
        if copies:
            sources, targets = torch.tensor(copies).t()
            self.cache.copy(sources, targets, int(packed.lengths.max()))
        for place, slots in enumerate(groups.values()):
            for slot in slots:
                last[slot - start] = packed.place_of(packed.last[place])
                row = arrivals[slot - start]
                if row.score_prompt:
                    first = int(packed.offsets[place])
                    before = torch.arange(first, first + len(row.prompt) - 1)
                    self._score(row, hidden[moved(packed.place_of(before), self.device)])
        self.rows += arrivals
        self._draw(hidden[moved(last, self.device)], list(arrivals))
        self._leave()

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """One more token for every row; returns those rows."""
        rows = list(self.rows)
        lengths = torch.tensor([row.length - 1 for row in rows])  # the newest token is not in the cache yet
        self.cache.start_decode(lengths)
        tokens = self._there([row.tokens[-1] for row in rows])
        self._draw(self.forward(tokens, self.cache.position), rows)
        self._leave()
        return rows

    @torch.inference_mode()
    def cancel(self, row: Row) -> None:
        """Take a row out before its end (one that has left already is left alone)."""
        if row in self.rows:
            self._remove(self.rows.index(row))

    def _there(self, numbers: Sequence[float]) -> Tensor:
        return moved(torch.tensor(numbers), self.device)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden).float()

    def _draw(self, hidden: Tensor, rows: list[Row]) -> None:
        """The next token of each row, by its own parameters; rows that share them are drawn together."""
        logits = self._logits(hidden)
        reported = [i for i, row in enumerate(rows) if row.alternatives is not None and row.params.max_new_tokens]
        own = logits[self._there(reported)].log_softmax(-1) if reported else None
        groups: dict[tuple[float, float, int, float], list[int]] = {}
        for i, row in enumerate(rows):
            if len(row.tokens) < row.params.min_new_tokens:
                logits[i, self._there(self.ends)] = float("-inf")
            if row.params.max_new_tokens:
                p = row.params
                groups.setdefault((p.temperature, p.top_p, p.top_k, p.min_p), []).append(i)
            else:
                row.finish = "length"
        for members in groups.values():
            uniform = self._there([next(rows[i].uniforms) for i in members])
            some = logits if len(members) == len(rows) else logits[self._there(members)]
            tokens, _ = choose(some, uniform, rows[members[0]].params)
            for i, token in zip(members, tokens.cpu().tolist(), strict=True):
                row = rows[i]
                row.tokens.append(token)
                if token in self.ends:
                    row.finish = "stop"
                elif len(row.tokens) >= row.params.max_new_tokens:
                    row.finish = "length"
        if own is not None:
            for logprobs, i in zip(own, reported, strict=True):
                row = rows[i]
                row.logprobs.append(float(logprobs[row.tokens[-1]]))
                row.tops.append(_top(logprobs[None], row.alternatives or 0)[0])

    def _score(self, row: Row, hidden: Tensor) -> None:
        """Log-probabilities of the prompt's tokens from the second on; hidden: [T-1, H] before each of them."""
        targets = self._there(row.prompt[1:])
        for part in torch.arange(len(targets), device=self.device).split(max(1, SCORED_AT_ONCE // self.vocabulary)):
            logprobs = self._logits(hidden[part]).log_softmax(-1)
            row.prompt_logprobs += logprobs.gather(-1, targets[part, None])[:, 0].cpu().tolist()
            row.prompt_tops += _top(logprobs, row.alternatives or 0)

    def _leave(self) -> None:
        for slot in reversed(range(len(self.rows))):
            if self.rows[slot].finish is not None:
                self._remove(slot)

    def _remove(self, slot: int) -> None:
        """The last row moves into the hole, so that slots stay dense."""
        last = self.rows.pop()
        if slot < len(self.rows):
            self.rows[slot] = last
            self.cache.copy(torch.tensor([len(self.rows)]), torch.tensor([slot]), last.length)


def _top(logprobs: Tensor, count: int) -> list[Alternatives]:
    """The `count` likeliest tokens of each row of [n, V] log-probabilities."""
    values, tokens = logprobs.topk(min(count, logprobs.shape[-1]), dim=-1)
    return [list(zip(t, v, strict=True)) for t, v in zip(tokens.cpu().tolist(), values.cpu().tolist(), strict=True)]
