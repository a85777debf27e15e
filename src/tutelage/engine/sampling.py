"""Batched sampling: one prefill for each distinct prompt, a contiguous key-value cache, no idle rows.

Rows that end leave the batch and waiting ones enter. The randomness of a row depends on its own seed
only, never on the batch that it lands in. Log-probabilities of what was sampled come for free.

Suffixes: B rows being decoded, S cache slots, h_kv key heads, d head size.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tutelage.engine.attention import PackedLayout, attending
from tutelage.engine.packing import Packed, pack


@dataclass(frozen=True)
class SamplingParams:
    """How to sample. temperature 0 is greedy; top_p 1 keeps the whole distribution."""

    max_new_tokens: int = 256
    min_new_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass
class Sample:
    """One sampled continuation: its tokens (end token included where it came), and log-probabilities."""

    tokens: list[int]
    logprobs: list[float]
    finish: str  # "stop" or "length"


class CacheLayout:
    """Key-value slots [S, h_kv, length, d] for each layer; prefill writes, decoding reads and appends."""

    def __init__(self, slots: int, length: int):
        self.slots, self.length = slots, length
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.prefill: tuple[PackedLayout, Tensor, Tensor] | None = None
        self.rows = self.lengths = self.mask = torch.empty(0)
        self.longest = 0

    def start_prefill(self, packed: Packed, slot_of_sequence: Tensor) -> None:
        slots = slot_of_sequence.repeat_interleave(packed.lengths)
        self.prefill = (PackedLayout(packed.offsets), slots, packed.position_ids)

    def start_decode(self, rows: Tensor, lengths: Tensor) -> None:
        """rows: [B] slots; lengths: [B] tokens already in the cache."""
        self.prefill, self.rows, self.lengths = None, rows, lengths
        self.longest = int(lengths.max()) + 1
        self.mask = (torch.arange(self.longest) <= lengths[:, None])[:, None, None, :]

    def copy(self, source: int, targets: Tensor, length: int) -> None:
        """Give other slots the same prompt."""
        for cache in (*self.keys.values(), *self.values.values()):
            cache[targets, :, :length] = cache[source, :, :length]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        if layer not in self.keys:
            shape = (self.slots, key.shape[1], self.length, key.shape[2])
            self.keys[layer], self.values[layer] = key.new_zeros(shape), key.new_zeros(shape)
        keys, values = self.keys[layer], self.values[layer]
        if self.prefill is not None:
            layout, slots, positions = self.prefill
            keys[slots, :, positions] = key
            values[slots, :, positions] = value
            return layout.attend(layer, query, key, value, scale)
        keys[self.rows, :, self.lengths] = key
        values[self.rows, :, self.lengths] = value
        everyone = len(self.rows) == self.slots
        k = keys[:, :, : self.longest] if everyone else keys[self.rows, :, : self.longest]
        v = values[:, :, : self.longest] if everyone else values[self.rows, :, : self.longest]
        out = scaled_dot_product_attention(
            query[:, :, None], k, v, attn_mask=self.mask, scale=scale, enable_gqa=query.shape[1] != k.shape[1]
        )
        return out[:, :, 0]


def row_seed(seed: int, name: str, index: int) -> int:
    """A 63-bit seed of one row: the run's seed, the prompt's name and the number of the sample."""
    digest = hashlib.blake2b(f"{seed}\x1f{name}\x1f{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def choose(logits: Tensor, uniform: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Next token [B] by inverse transform of one uniform number a row, and its log-probability [B].

    logits: [B, V] float32. The log-probability is that of the distribution at this temperature,
    before top-p cuts its tail.
    """
    if params.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    logprobs = (logits / params.temperature).log_softmax(-1)
    weights = logprobs.exp()
    if params.top_p < 1:
        ordered, order = weights.sort(-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= params.top_p] = 0
        weights = torch.zeros_like(weights).scatter_(-1, order, ordered)
    cumulative = weights.double().cumsum(-1)
    point = uniform[:, None].double() * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, point, right=True).clamp_(max=logits.shape[-1] - 1)[:, 0]
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


@torch.inference_mode()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    params: SamplingParams,
    end_tokens: Sequence[int],
    *,
    batch_size: int = 256,
    on_token: Callable[[int], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[list[Sample]]:
    """For each prompt one sample per seed. Returns samples in the order of prompts and seeds."""
    was_training = model.training
    model.eval()
    decoder = _Decoder(model, prompts, seeds, params, end_tokens, batch_size)
    while decoder.step():
        if on_token is not None and decoder.results[0][0].tokens:
            on_token(decoder.results[0][0].tokens[-1])
        if progress is not None:
            progress(decoder.finished)
    model.train(was_training)
    return decoder.results


def stream(
    policy: Any, prompt_ids: list[int], params: SamplingParams, end_tokens: Sequence[int], seed: int
) -> Iterator[int]:
    """The tokens of one sample as they come, the end token left out."""
    decoder = _Decoder(policy.model.eval(), [prompt_ids], [[seed]], params, end_tokens, 1)
    sent = 0
    more = True
    while more:
        with torch.inference_mode():
            more = decoder.step()
        tokens = decoder.results[0][0].tokens
        for token in tokens[sent:]:
            if token not in end_tokens:
                yield token
        sent = len(tokens)


class _Decoder:
    """The state of one call: which rows decode, which wait, what has come."""

    def __init__(self, model: Any, prompts: Any, seeds: Any, params: SamplingParams, ends: Any, batch_size: int):
        self.model, self.prompts, self.params = model, prompts, params
        self.head = model.get_output_embeddings().weight
        self.ends = torch.tensor(sorted(set(ends)))
        self.results = [[Sample([], [], "length") for _ in row] for row in seeds]
        # Longest prompts first: rows of like length share a batch.
        self.waiting = sorted(
            ((p, s) for p, row in enumerate(seeds) for s in range(len(row))),
            key=lambda ps: (-len(prompts[ps[0]]), ps),
            reverse=True,
        )
        self.seeds = seeds
        slots = min(batch_size, len(self.waiting))
        longest = max(len(p) for p in prompts) + params.max_new_tokens
        self.cache = CacheLayout(slots, longest)
        self.rows: list[tuple[int, int]] = []  # what each active slot decodes; slots are 0..len-1 in self.slot_of
        self.slots: list[int] = []
        self.free = list(range(slots))[::-1]
        self.lengths = torch.zeros(slots, dtype=torch.long)
        self.next_token = torch.zeros(slots, dtype=torch.long)
        self.uniforms = torch.zeros(slots, params.max_new_tokens)
        self.drawn = torch.zeros(slots, dtype=torch.long)
        self.finished = 0

    def step(self) -> bool:
        """Admit waiting rows or decode one token in every active row; False when all is done."""
        if self.waiting and len(self.free) >= min(len(self.waiting), max(1, self.cache.slots // 4)):
            self._admit()
        elif self.slots:
            self._decode()
        return bool(self.slots or self.waiting)

    def _admit(self) -> None:
        arrivals: dict[int, list[tuple[int, int]]] = {}
        for _ in range(min(len(self.free), len(self.waiting))):
            prompt, number = self.waiting.pop()
            arrivals.setdefault(prompt, []).append((self.free.pop(), number))
        firsts = [slots[0][0] for slots in arrivals.values()]
        packed = pack([self.prompts[p] for p in arrivals])
        self.cache.start_prefill(packed, torch.tensor(firsts))
        hidden = self._forward(packed.input_ids, packed.position_ids)[packed.last]
        at, slots = [], []
        for place, (prompt, places) in enumerate(arrivals.items()):
            mine = [slot for slot, _ in places]
            length = len(self.prompts[prompt])
            if len(mine) > 1:
                self.cache.copy(mine[0], torch.tensor(mine[1:]), length)
            for slot, number in places:
                generator = torch.Generator().manual_seed(self.seeds[prompt][number])
                self.uniforms[slot] = torch.rand(self.params.max_new_tokens, generator=generator)
                self.lengths[slot], self.drawn[slot] = length, 0
                self.rows.append((prompt, number))
                self.slots.append(slot)
                at.append(place)
                slots.append(slot)
        self._draw(hidden[torch.tensor(at)], list(range(len(self.slots) - len(slots), len(self.slots))))

    def _decode(self) -> None:
        rows = torch.tensor(self.slots)
        everyone = len(rows) == self.cache.slots
        if everyone:  # in slot order the cache needs no gather
            order = rows.argsort().tolist()
            self.slots = [self.slots[i] for i in order]
            self.rows = [self.rows[i] for i in order]
            rows = torch.tensor(self.slots)
        lengths = self.lengths[rows]
        self.cache.start_decode(rows, lengths)
        hidden = self._forward(self.next_token[rows], lengths)
        self.lengths[rows] += 1
        self._draw(hidden, list(range(len(self.slots))))

    def _forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        with attending(self.cache):
            body = self.model.base_model(input_ids=tokens[None], position_ids=positions[None], use_cache=False)
        return body.last_hidden_state[0]

    def _draw(self, hidden: Tensor, active: list[int]) -> None:
        slots = torch.tensor([self.slots[i] for i in active])
        drawn = self.drawn[slots]
        logits = (hidden @ self.head.t()).float()
        if self.params.min_new_tokens:
            early = drawn < self.params.min_new_tokens
            logits[early.nonzero(), self.ends] = float("-inf")
        tokens, logprobs = choose(logits, self.uniforms[slots, drawn], self.params)
        self.drawn[slots] += 1
        self.next_token[slots] = tokens
        ended = torch.isin(tokens, self.ends)
        done = ended | (drawn + 1 >= self.params.max_new_tokens)
        for i, token, logprob in zip(active, tokens.tolist(), logprobs.tolist(), strict=True):
            prompt, number = self.rows[i]
            self.results[prompt][number].tokens.append(token)
            self.results[prompt][number].logprobs.append(logprob)
        gone = [active[j] for j in done.nonzero()[:, 0].tolist()]
        for j in ended.nonzero()[:, 0].tolist():
            prompt, number = self.rows[active[j]]
            self.results[prompt][number].finish = "stop"
        self.finished += len(gone)
        for i in sorted(gone, reverse=True):
            self.free.append(self.slots.pop(i))
            self.rows.pop(i)
