"""Models whose attention cannot be packed: a padded batch at a time, through `transformers`' own attention and cache.

Exact, and slower: what sequences share is computed in each of them, and padding is computed. Training and scoring pad
on the right, where a causal model does not look; sampling pads on the left, as `generate` does, so that the rows of a
batch go on in one column.

Suffixes: _T packed tokens, _F places of the buckets, _B rows being decoded, n rows of one batch, C its columns, H hidden.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from tutelage.engine.attention import NAME
from tutelage.engine.device import device_of, moved
from tutelage.engine.packing import Lifting, Packed, context_of
from tutelage.processes import in_step

SMALL_WASTE = 2**13  # in scores, as `packing.SMALL_WASTE`: here padding passes through all of the model
BATCHES = 4  # read at different times; more of them are read again as one, as each costs a pass for every token


def packs(model: Any) -> bool:
    """Whether a model computes packed sequences: its attention meets a layout."""
    return bool(model.base_model.config._attn_implementation == NAME)


def use_own_attention(model: Any) -> None:
    """Let a model attend as `transformers` would have it by default."""
    model.config._attn_implementation = model.get_correct_attn_implementation(None)


def padded_states(model: Any, packed: Packed) -> Tensor:
    """[T, H] last hidden states of packed sequences, those of like length padded to one batch."""
    device = device_of(model)
    body = getattr(model, "body", model.base_model)  # a sharded model is put together for its body's pass
    # Processes that share a model make the same number of passes.
    lifting = Lifting(packed.offsets, small_waste=2**62 if in_step() else SMALL_WASTE)
    ids_F, real_F = packed.input_ids[lifting.lift], torch.zeros(lifting.filled, dtype=torch.long)
    real_F[lifting.where] = 1
    states = []
    for start, count, length in lifting.buckets:
        ids, real = (moved(x[start : start + count * length].view(count, length), device) for x in (ids_F, real_F))
        given = {"attention_mask": real} if "attention_mask" in _words(model) else {}
        states.append(body(input_ids=ids, **given, use_cache=False).last_hidden_state.flatten(0, 1))
    return torch.cat(states).index_select(0, moved(lifting.where, device))


def _words(model: Any) -> Any:
    """The names of what a model's body takes."""
    return inspect.signature(model.base_model.forward).parameters


class UnpackedCache:
    """For such a model what `CacheLayout` is for others: the caches of `transformers`, one for rows read together.

    A slot names a row of one of them. Slots may name the same one until the next step, which first makes of each cache
    the rows that slots still name.
    """

    def __init__(self, model: Any):
        self.model, self.device = model, device_of(model)
        self.rows: dict[int, tuple[_Batch, int]] = {}  # slot -> its batch, and its row there
        self.read: list[int] = []  # the slots of the prompts that are being read
        self.parts: list[tuple[_Batch, Tensor]] = []  # what a step computes, and its slots
        self.position = torch.empty(0)

    def reserve(self, slots: int, length: int) -> None:
        """Nothing: these caches grow by themselves."""

    def start_prefill(self, packed: Packed, slot_of_sequence: Tensor) -> None:
        self.read = slot_of_sequence.tolist()

    def prefill(self, packed: Packed) -> Tensor:
        """[U, H] last hidden states of the prompts."""
        ids = packed.input_ids.split(packed.lengths.tolist())
        longest = int(packed.lengths.max())
        rows = torch.stack([pad(row, (longest - len(row), 0)) for row in ids])
        real = torch.arange(longest) >= longest - packed.lengths[:, None]
        batch = _Batch(self.model, moved(rows, self.device), moved(real, self.device))
        self.rows |= {slot: (batch, row) for row, slot in enumerate(self.read)}
        hidden_T = batch.read()[batch.real]
        return hidden_T if packed.shared is None else hidden_T[moved(packed.shared.kept, self.device)]

    def start_decode(self, lengths: Tensor) -> None:
        """lengths: [B] tokens already read, of the rows in the first B slots; on the host."""
        slots: dict[_Batch, list[int]] = {}
        for slot in range(len(lengths)):
            slots.setdefault(self.rows[slot][0], []).append(slot)
        for batch, some in slots.items():
            batch.keep([self.rows[slot][1] for slot in some])
        if len(slots) > BATCHES:
            slots = {_joined(self.model, list(slots)): [slot for some in slots.values() for slot in some]}
        self.rows = {slot: (batch, row) for batch, some in slots.items() for row, slot in enumerate(some)}
        self.parts = [(batch, moved(torch.tensor(some), self.device)) for batch, some in slots.items()]
        self.position = moved(lengths, self.device)

    def copy(self, sources: Tensor, targets: Tensor, length: int) -> None:
        """Give slots what other slots hold."""
        found = [self.rows[slot] for slot in sources.tolist()]
        self.rows |= zip(targets.tolist(), found, strict=True)

    def step(self, tokens_B: Tensor, positions_B: Tensor) -> Tensor:
        """[B, H] last hidden states of the next token of each row."""
        hidden = torch.cat([batch.append(tokens_B[slots]) for batch, slots in self.parts])
        return hidden[torch.cat([slots for _, slots in self.parts]).argsort()]


class _Batch:
    """Rows that were read together. ids: [n, C], padded on the left; real: [n, C], false where it is padding."""

    def __init__(self, model: Any, ids: Tensor, real: Tensor):
        self.model, self.ids, self.real = model, ids, real
        words = _words(model)
        self.word = next((word for word in ("cache", "past_key_values") if word in words), "")
        if not self.word:
            raise NotImplementedError("it takes none of transformers' caches")
        self.positions = "position_ids" in words

    def read(self) -> Tensor:
        """[n, C, H] last hidden states of all columns."""
        self.cache = DynamicCache(config=self.model.config)
        return self._pass(self.ids.shape[1])

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows, of which some may be the same."""
        if rows != list(range(len(self.ids))):
            index = moved(torch.tensor(rows), self.ids.device)
            self.ids, self.real = self.ids[index], self.real[index]
            self.cache.reorder_cache(index)  # type: ignore[arg-type]

    def append(self, tokens: Tensor) -> Tensor:
        """[n, H] last hidden states of one more token a row."""
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)
        self.real = pad(self.real, (0, 1), value=True)
        if self.ids.shape[1] > context_of(self.model):  # with padding that no row needs any more
            self.trim()
            return self.read()[:, -1]
        return self._pass(1)[:, -1]

    def trim(self) -> None:
        """Drop the columns in which no row has a token."""
        first = int(self.real.any(0).long().argmax())
        self.ids, self.real = self.ids[:, first:], self.real[:, first:]

    def _pass(self, columns: int) -> Tensor:
        """The last columns, given what the cache holds of those before them."""
        given: dict[str, Any] = {"input_ids": self.ids[:, -columns:]}
        keyed = any(hasattr(layer, "keys") for layer in self.cache.layers)
        if columns > 1 or keyed:  # states alone have no columns that a mask could hide
            given["attention_mask"] = self.real.long()
        if self.positions:
            given["position_ids"] = (self.real.long().cumsum(1) - 1).clamp_(min=0)[:, -columns:]
        body = self.model.base_model(**given, **{self.word: self.cache}, use_cache=True)
        hidden: Tensor = body.last_hidden_state
        return hidden


def _joined(model: Any, batches: list[_Batch]) -> _Batch:
    """Rows of several batches as one, read again."""
    most = max(batch.ids.shape[1] for batch in batches)
    ids = torch.cat([pad(batch.ids, (most - batch.ids.shape[1], 0)) for batch in batches])
    real = torch.cat([pad(batch.real, (most - batch.real.shape[1], 0)) for batch in batches])
    batch = _Batch(model, ids, real)
    batch.trim()
    batch.read()
    return batch
