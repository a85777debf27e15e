"""The sampler's key-value cache: prefill writes it, decoding reads and appends.

Row i of the batch lives in slot i, so that decoding reads the first B slots without a gather.

On the processor the cache of small heads is float32: batched products of one query with its keys are several times
as fast there as the stock kernel on bfloat16, and nothing is rounded on the way.

Suffixes: B rows being decoded, S slots, U computed prompt tokens, h heads, h_kv key heads, r heads to a key head,
d head size, L longest row.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tutelage.engine.attention import PackedLayout
from tutelage.engine.packing import Packed

SMALL_HEAD = 64  # larger heads are bound by memory, and bfloat16 reads half of it


class CacheLayout:
    """[S, h_kv, length, d] for keys and values of each layer; memory is touched only as far as it is written."""

    def __init__(self, slots: int, length: int):
        self.slots, self.length = slots, length
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.layout: PackedLayout | None = None
        self.slot = self.position = torch.empty(0)  # where new keys go
        self.places: dict[int, Tensor] = {}  # the same on the [S * h_kv * length] axis, for each h_kv
        self.mask = torch.empty(0)
        self.biases: dict[tuple[int, int], Tensor] = {}  # the mask as [B * h_kv, r, L] to add to scores
        self.batch = self.longest = 0

    def start_prefill(self, packed: Packed, slot_of_sequence: Tensor) -> None:
        self.layout = PackedLayout(packed.offsets, packed.lifting)
        self._write_to(slot_of_sequence.repeat_interleave(packed.lengths), packed.position_ids)

    def start_decode(self, lengths: Tensor) -> None:
        """lengths: [B] tokens already in the cache, of the rows in the first B slots."""
        self.layout, self.batch = None, len(lengths)
        self.longest = int(lengths.max()) + 1
        self._write_to(torch.arange(self.batch), lengths)
        self.lengths = lengths
        column = torch.arange(self.longest)
        self.mask = (column <= lengths[:, None])[:, None, None, :]
        self.biases = {}

    def copy(self, sources: Tensor, targets: Tensor, length: int) -> None:
        """Give slots what other slots hold."""
        for cache in (*self.keys.values(), *self.values.values()):
            cache[targets, :, :length] = cache[sources, :, :length]

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put new keys and values [., h_kv, d] in their places; returns the layer's caches."""
        heads = key.shape[1]
        if layer not in self.keys:
            small = key.device.type == "cpu" and max(key.shape[-1], value.shape[-1]) <= SMALL_HEAD
            dtype = torch.float32 if small else key.dtype
            shape = (self.slots, heads, self.length)
            self.keys[layer] = torch.zeros(*shape, key.shape[-1], dtype=dtype, device=key.device)
            self.values[layer] = torch.zeros(*shape, value.shape[-1], dtype=dtype, device=key.device)
        if heads not in self.places:
            row = self.slot[:, None] * heads + torch.arange(heads)
            self.places[heads] = (row * self.length + self.position[:, None]).flatten()
        for cache, new in ((self.keys[layer], key), (self.values[layer], value)):
            cache.flatten(0, 2).index_copy_(0, self.places[heads], new.flatten(0, 1).to(cache.dtype))
        return self.keys[layer], self.values[layer]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, **limits: Any) -> Tensor:
        keys, values = self.write(layer, key, value)
        if self.layout is not None:
            return self.layout.attend(layer, query, key, value, scale, **limits)
        # The query heads of one key head are the rows of one small product: keys are never repeated.
        q = query.unflatten(1, (key.shape[1], -1)).to(keys.dtype)
        k, v = keys[: self.batch, :, : self.longest], values[: self.batch, :, : self.longest]
        if limits:
            out = self._limited(q, k, v, scale, **limits)
        elif keys.device.type == "cpu" and keys.dtype == torch.float32:
            out = self._products(q, k, v, scale)
        else:
            out = scaled_dot_product_attention(q, k, v, attn_mask=self.mask, scale=scale)
        return out.flatten(1, 2).to(query.dtype)

    def _write_to(self, slot: Tensor, position: Tensor) -> None:
        self.slot, self.position, self.places = slot, position, {}

    def _products(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """softmax(scale q K' + mask) V as two batched products over rows and key heads."""
        heads, repeats = q.shape[1:3]
        if (heads, repeats) not in self.biases:
            hidden = torch.zeros(self.mask.shape).masked_fill_(~self.mask, float("-inf"))
            self.biases[heads, repeats] = hidden.expand(-1, heads, repeats, -1).flatten(0, 1)
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
        scores = torch.baddbmm(self.biases[heads, repeats], q, k.transpose(1, 2), alpha=scale)
        return torch.bmm(scores.softmax(-1), v).unflatten(0, (-1, heads))

    def _limited(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None = None, window: int | None = None
    ) -> Tensor:
        scores = (q @ k.transpose(-1, -2)).float() * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        mask = self.mask
        if window is not None:
            mask = mask & (torch.arange(self.longest) > (self.lengths - window)[:, None])[:, None, None, :]
        return scores.masked_fill(~mask, float("-inf")).softmax(-1).to(v.dtype) @ v
