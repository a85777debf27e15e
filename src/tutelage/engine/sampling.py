"""Batched sampling: one prefill for each distinct prompt, a contiguous key-value cache, no idle rows.

Rows that end leave the batch and waiting ones enter. The randomness of a row depends on its own seed
only, never on the batch that it lands in. Log-probabilities of what was sampled come for free.

Suffixes: B rows being decoded, S cache slots.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.engine.choosing import SamplingParams, choose
from tutelage.engine.decoding import decoder_step, head_product, new_cache, prefill
from tutelage.engine.device import device_of, moved
from tutelage.engine.packing import context_of, pack
from tutelage.engine.stopping import StopStrings
from tutelage.engine.watchdog import beat

__all__ = ["Sample", "SamplingParams", "choose", "row_seed", "sample", "stream"]

PREFILL_TOKENS = 16384  # prompt tokens in one forward pass


@dataclass
class Sample:
    """One sampled continuation: its tokens (end token included where it came), and log-probabilities.

    cut: how many characters of its text stand before a stop string; the tokens are all that were drawn.
    """

    tokens: list[int]
    logprobs: list[float]
    finish: str  # "stop" at an end token, "stop_sequence" at a stop string, or "length"
    cut: int | None = None


def row_seed(seed: int, name: str, index: int) -> int:
    """A 63-bit seed of one row: the run's seed, the prompt's name and the number of the sample."""
    digest = hashlib.blake2b(f"{seed}\x1f{name}\x1f{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@torch.inference_mode()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    params: SamplingParams,
    end_tokens: Sequence[int],
    *,
    decode: Callable[[list[int]], str] | None = None,
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> list[list[Sample]]:
    """For each prompt one sample per seed, in the order of prompts and seeds. Stop strings need `decode`."""
    was_training = model.training
    model.eval()
    decoder = _Decoder(model, prompts, seeds, params, end_tokens, batch_size)
    if params.stop:
        if decode is None:
            raise ValueError("stop strings are found in the text: sample needs decode")
        decoder.stops = StopStrings(params.stop, decode, params.min_new_tokens)
    while decoder.step():
        beat()
        if progress is not None:
            progress(decoder.finished)
    model.train(was_training)
    return [[decoder.results[p, n] for n in range(len(row))] for p, row in enumerate(seeds)]


def stream(
    policy: Any, prompt_ids: list[int], params: SamplingParams, end_tokens: Sequence[int], seed: int
) -> Iterator[int]:
    """The tokens of one sample as they come, the end token left out."""
    decoder = _Decoder(policy.model.eval(), [prompt_ids], [[seed]], params, end_tokens, 1)
    more = True
    while more:
        with torch.inference_mode():
            more = decoder.step()
        token = int(decoder.tokens[0, int(decoder.drawn[0]) - 1])
        if token not in end_tokens:
            yield token


class _Decoder:
    """The state of one call. Row i of the batch is slot i of the cache and of every tensor here.

    On the model's device: the cache, what was drawn, its log-probabilities, the random numbers (made on the host, so
    that a seed gives the same ones everywhere). On the host: the counts. A step waits for the device once, for its tokens.
    """

    def __init__(self, model: Any, prompts: Any, seeds: Any, params: SamplingParams, ends: Any, batch_size: int):
        self.model, self.prompts, self.seeds, self.params = model, prompts, seeds, params
        self.device = device_of(model)
        self.ends = torch.tensor(sorted(set(ends)), dtype=torch.long)
        self.stops: StopStrings | None = None
        # The longest prompts first: rows of like length share a batch, and a prompt's samples stand together.
        self.waiting = sorted(
            ((p, n) for p, row in enumerate(seeds) for n in range(len(row))),
            key=lambda pn: (-len(prompts[pn[0]]), pn),
            reverse=True,
        )
        self.slots = min(batch_size, len(self.waiting))
        self.context = context_of(model)  # a row that has filled it ends, cut off
        self.cache = new_cache(model)
        self.cache.reserve(self.slots, max(len(p) for p in prompts))
        self.head = head_product(model)
        self.forward = decoder_step(model, self.cache)
        self.rows: list[tuple[int, int]] = []  # (prompt, number) of each active row
        self.lengths = torch.zeros(self.slots, dtype=torch.long)  # tokens in the cache
        self.drawn = torch.zeros(self.slots, dtype=torch.long)
        self.uniforms = torch.zeros(self.slots, params.max_new_tokens, device=self.device)
        self.tokens = torch.zeros_like(self.uniforms, dtype=torch.long)
        self.logprobs = torch.zeros_like(self.uniforms)
        self.results: dict[tuple[int, int], Sample] = {}

    @property
    def finished(self) -> int:
        return len(self.results)

    def step(self) -> bool:
        """Admit waiting rows or decode one token in every active row; False when all is done."""
        free = self.slots - len(self.rows)
        if self.waiting and free >= min(len(self.waiting), max(1, self.slots // 4)):
            self._admit(free)
        elif self.rows:
            self._decode()
        return bool(self.rows or self.waiting)

    def _admit(self, free: int) -> None:
        """Read prompts, each once, into free slots, and draw each row's first token."""
        start, total = len(self.rows), 0
        uniforms: list[Tensor] = []
        firsts: dict[int, int] = {}  # prompt -> the slot that reads it
        while self.waiting and len(self.rows) - start < free:
            prompt, number = self.waiting[-1]
            if prompt not in firsts:
                total += len(self.prompts[prompt])
                if firsts and total > PREFILL_TOKENS:
                    break
                firsts[prompt] = len(self.rows)
            self.waiting.pop()
            generator = torch.Generator().manual_seed(self.seeds[prompt][number])
            uniforms.append(torch.rand(self.params.max_new_tokens, generator=generator))
            self.rows.append((prompt, number))
        self.uniforms[start : len(self.rows)] = moved(torch.stack(uniforms), self.device)
        packed = pack([self.prompts[p] for p in firsts], share=True)  # a system message is read once for all
        self.cache.start_prefill(packed, torch.tensor(list(firsts.values())))
        hidden = prefill(self.model, self.cache, packed)[moved(packed.place_of(packed.last), self.device)]
        place = {prompt: i for i, prompt in enumerate(firsts)}
        arrived = self.rows[start:]
        copies = [(firsts[p], slot) for slot, (p, _) in enumerate(arrived, start) if firsts[p] != slot]
        if copies:
            sources, targets = torch.tensor(copies).t()
            self.cache.copy(sources, targets, int(packed.lengths.max()))
        self.lengths[start : len(self.rows)] = torch.tensor([len(self.prompts[p]) for p, _ in arrived])
        self.drawn[start : len(self.rows)] = 0
        self._draw(hidden[moved(torch.tensor([place[p] for p, _ in arrived]), self.device)], start)

    def _decode(self) -> None:
        batch = len(self.rows)
        lengths = self.lengths[:batch]
        last = self.tokens[:batch].gather(1, moved(self.drawn[:batch, None] - 1, self.device))[:, 0]
        self.cache.start_decode(lengths)
        hidden = self.forward(last, self.cache.position)
        self.lengths[:batch] += 1
        self._draw(hidden, 0)

    def _draw(self, hidden: Tensor, start: int) -> None:
        """The next token of the rows from `start` on; rows that end leave."""
        some = slice(start, len(self.rows))
        drawn = self.drawn[some]
        logits = self.head(hidden)
        if self.params.min_new_tokens and len(self.ends):
            early = (drawn < self.params.min_new_tokens).nonzero()
            logits[moved(early, self.device), moved(self.ends, self.device)] = float("-inf")
        column = moved(drawn[:, None], self.device)
        uniform = self.uniforms[some].gather(1, column)[:, 0]
        tokens, logprobs = choose(logits, uniform, self.params)
        self.tokens[some].scatter_(1, column, tokens[:, None])
        self.logprobs[some].scatter_(1, column, logprobs[:, None])
        drawn += 1
        ended = torch.isin(tokens.cpu(), self.ends)  # here the device is waited for
        done = ended | (drawn >= self.params.max_new_tokens) | (self.lengths[some] >= self.context)
        cuts = self._cuts(some, ended)
        done[list(cuts)] = True
        if done.any():
            finishes = ["stop" if e else "stop_sequence" if i in cuts else "length" for i, e in enumerate(ended)]
            self._leave([(start + i, finishes[i], cuts.get(i)) for i in done.nonzero()[:, 0].tolist()])

    def _cuts(self, some: slice, ended: Tensor) -> dict[int, int]:
        """Where the texts of rows that a stop string has ended are cut."""
        if self.stops is None:
            return {}
        rows = zip(self.tokens[some].cpu().tolist(), self.drawn[some].tolist(), ended.tolist(), strict=True)
        found = {i: self.stops.cut(row[:count]) for i, (row, count, end) in enumerate(rows) if not end}
        return {i: cut for i, cut in found.items() if cut is not None}

    def _leave(self, gone: list[tuple[int, str, int | None]]) -> None:
        """Keep what ended rows drew; the last rows move into their slots."""
        slots = moved(torch.tensor([slot for slot, _, _ in gone]), self.device)
        tokens, logprobs = self.tokens[slots].cpu(), self.logprobs[slots].cpu()
        for place, (slot, finish, cut) in enumerate(gone):
            count = int(self.drawn[slot])
            self.results[self.rows[slot]] = Sample(
                tokens[place, :count].tolist(), logprobs[place, :count].tolist(), finish, cut
            )
        leaving = {slot for slot, _, _ in gone}
        left = len(self.rows) - len(gone)
        holes = [slot for slot in sorted(leaving) if slot < left]
        movers = [slot for slot in range(left, len(self.rows)) if slot not in leaving]
        for hole, mover in zip(holes, movers, strict=True):
            self.rows[hole] = self.rows[mover]
        del self.rows[left:]
        if holes:
            targets, sources = torch.tensor(holes), torch.tensor(movers)
            for tensor in (self.lengths, self.drawn, self.uniforms, self.tokens, self.logprobs):
                tensor[moved(targets, tensor.device)] = tensor[moved(sources, tensor.device)]
            self.cache.copy(sources, targets, int(self.lengths[targets].max()))
