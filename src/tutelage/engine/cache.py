"""The sampler's key-value cache: prefill writes it, decoding reads and appends.

Row i of the batch lives in slot i, so that decoding reads the first B slots without a gather.

On the processor the keys of a head lie with their positions side by side: the products of a few queries with them
take half as long as with each key's numbers side by side, and a third of what the stock kernel takes.

A product over a part of the cache would copy that part first, so there it takes in all the room that there is, which
grows with the longest row.

Suffixes: B rows being decoded, S slots, U computed prompt tokens, h heads, h_kv key heads, r heads to a key head,
d head size, L columns looked at.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tutelage.engine.attention import PackedLayout, by_definition
from tutelage.engine.device import CPU, moved
from tutelage.engine.native import BLOCK
from tutelage.engine.packing import Packed

ROOM = 32  # tokens by which all rows grow together, at the least


class CacheLayout:
    """[S, h_kv, room, d] for keys and values of each call of attention in a pass (one a layer, mostly).

    Slots and room grow when rows need them.
    """

    def __init__(self, device: torch.device = CPU) -> None:
        self.device = device
        self.slots = self.room = 0
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.layout: PackedLayout | None = None  # of the prompts that are being read
        self.place: Tensor | None = None  # of a shared beginning's tokens in each of the prompts
        self.slot = self.position = torch.empty(0)  # where new keys go
        self.mask = torch.empty(0)
        self.biases: dict[tuple[int, int], Tensor] = {}  # the mask as [B * h_kv, r, L] to add to scores
        self.batch = self.calls = 0  # calls: of attention in this pass so far

    def reserve(self, slots: int, length: int) -> None:
        """Have so many slots, and room for so many tokens in each."""
        if slots <= self.slots and length <= self.room:
            return
        self.slots = self.slots if slots <= self.slots else max(slots, 2 * self.slots)
        self.room = self.room if length <= self.room else _whole_blocks(length + max(ROOM, length // 8))
        for layer in self.keys:  # one after the other: two of the whole cache would be much
            self.keys[layer] = self._roomy(self.keys[layer], key=True)
            self.values[layer] = self._roomy(self.values[layer])

    def start_prefill(self, packed: Packed, slot_of_sequence: Tensor) -> None:
        self.reserve(int(slot_of_sequence.max()) + 1, int(packed.lengths.max()))
        self.layout, self.calls = PackedLayout(packed), 0
        self.place = None if packed.shared is None else moved(packed.shared.place, self.device)
        self.slot = moved(slot_of_sequence.repeat_interleave(packed.lengths), self.device)
        self.position = moved(packed.position_ids, self.device)

    def start_decode(self, lengths: Tensor) -> None:
        """lengths: [B] tokens already in the cache, of the rows in the first B slots; on the host."""
        self.reserve(len(lengths), int(lengths.max()) + 1)
        self.layout, self.place, self.batch, self.calls = None, None, len(lengths), 0
        self.lengths = moved(lengths, self.device)
        self.slot, self.position = torch.arange(self.batch, device=self.device), self.lengths
        self.mask = (torch.arange(self.room, device=self.device) <= self.lengths[:, None])[:, None, None, :]
        self.biases = {}

    def copy(self, sources: Tensor, targets: Tensor, length: int) -> None:
        """Give slots what other slots hold."""
        sources, targets = moved(sources, self.device), moved(targets, self.device)
        for cache in (*self.keys.values(), *self.values.values()):
            cache[targets, :, :length] = cache[sources, :, :length]

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put new keys and values [U or B, h_kv, d] in their places; returns the layer's caches."""
        if layer not in self.keys:
            self.keys[layer] = self._roomy(key.new_empty(0, key.shape[1], 0, key.shape[2]), key=True)
            self.values[layer] = self._roomy(value.new_empty(0, value.shape[1], 0, value.shape[2]))
        for cache, new in ((self.keys[layer], key), (self.values[layer], value)):
            if self.place is not None:  # each prompt has a copy of the beginning that was computed once
                new = new.index_select(0, self.place)
            cache.transpose(1, 2)[self.slot, self.position] = new
        return self.keys[layer], self.values[layer]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, **limits: Any) -> Tensor:
        # By the order of calls, not by `layer`: some architectures attend twice in a layer, or pass layers twice.
        keys, values = self.write(self.calls, key, value)
        self.calls += 1
        if self.layout is not None:
            return self.layout.attend(query, key, value, scale, **limits)
        # The query heads of one key head are the rows of one small product: keys are never repeated.
        q = query.unflatten(1, (key.shape[1], -1))
        k, v = keys[: self.batch], values[: self.batch]
        if limits:
            out = self._limited(q, k, v, scale, **limits)
        elif keys.device.type == "cpu":
            out = self._products(q, k, v, scale)
        else:
            out = scaled_dot_product_attention(q, k, v, attn_mask=self.mask, scale=scale)
        return out.flatten(1, 2)

    def _roomy(self, cache: Tensor, key: bool = False) -> Tensor:
        """A layer's cache with all slots and room; keys on the processor with their positions side by side."""
        slots, heads, length, size = cache.shape
        if key and cache.device.type == "cpu":
            larger = cache.new_zeros(self.slots, heads, size, self.room).transpose(2, 3)
        else:
            larger = cache.new_zeros(self.slots, heads, self.room, size)
        larger[:slots, :, :length] = cache
        return larger

    def _products(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """softmax(scale q K' + mask) V as two batched products over rows and key heads, rounded as in training."""
        heads, repeats = q.shape[1:3]
        if (heads, repeats) not in self.biases:
            hidden = torch.zeros(self.mask.shape).masked_fill_(~self.mask, float("-inf"))
            self.biases[heads, repeats] = hidden.expand(-1, heads, repeats, -1).flatten(0, 1)
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
        scores = torch.add(self.biases[heads, repeats], torch.bmm(q, k.transpose(1, 2)), alpha=scale)
        return torch.bmm(scores.softmax(-1).to(v.dtype), v).unflatten(0, (-1, heads))

    def _limited(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float, *, window: int | None = None, **more: Any
    ) -> Tensor:
        seen = self.mask
        if window is not None:
            first = (self.lengths - window + 1)[:, None]
            seen = seen & (torch.arange(self.room, device=self.device) >= first)[:, None, None, :]
        return by_definition(q, k, v, scale, ~seen, **more)


def _whole_blocks(length: int) -> int:
    return -(-length // BLOCK) * BLOCK
