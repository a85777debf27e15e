"""The sampler's key-value cache: prefill writes it, decoding reads and appends.

Row i of the batch lives in slot i, so that decoding reads the first B slots without a gather.

Suffixes: B rows being decoded, S slots, U computed prompt tokens, h heads, h_kv key heads, d head size.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tutelage.engine.attention import PackedLayout
from tutelage.engine.packing import Packed


class CacheLayout:
    """[S, length, h_kv, d] for keys and values of each layer; memory is touched only as far as it is written."""

    def __init__(self, slots: int, length: int):
        self.slots, self.length = slots, length
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.layout: PackedLayout | None = None
        self.places = torch.empty(0)  # where on the [S * length] axis new keys go
        self.mask = torch.empty(0)
        self.batch = self.longest = 0

    def start_prefill(self, packed: Packed, slot_of_sequence: Tensor) -> None:
        self.layout = PackedLayout(packed.offsets, packed.lifting)
        self.places = slot_of_sequence.repeat_interleave(packed.lengths) * self.length + packed.position_ids

    def start_decode(self, lengths: Tensor) -> None:
        """lengths: [B] tokens already in the cache, of the rows in the first B slots."""
        self.layout, self.batch = None, len(lengths)
        self.longest = int(lengths.max()) + 1
        self.places = torch.arange(self.batch) * self.length + lengths
        self.lengths = lengths
        column = torch.arange(self.longest)
        self.mask = (column <= lengths[:, None])[:, None, None, :]

    def copy(self, sources: Tensor, targets: Tensor, length: int) -> None:
        """Give slots what other slots hold."""
        for cache in (*self.keys.values(), *self.values.values()):
            cache[targets, :length] = cache[sources, :length]

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put new keys and values in their places; returns the layer's caches."""
        if layer not in self.keys:
            self.keys[layer] = key.new_zeros(self.slots, self.length, *key.shape[1:])
            self.values[layer] = value.new_zeros(self.slots, self.length, *value.shape[1:])
        keys, values = self.keys[layer], self.values[layer]
        keys.flatten(0, 1).index_copy_(0, self.places, key)
        values.flatten(0, 1).index_copy_(0, self.places, value)
        return keys, values

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, **limits: Any) -> Tensor:
        keys, values = self.write(layer, key, value)
        if self.layout is not None:
            return self.layout.attend(layer, query, key, value, scale, **limits)
        # The query heads of one key head are the rows of one small product: keys are never repeated.
        q = query.unflatten(1, (key.shape[1], -1))
        k = keys[: self.batch, : self.longest].transpose(1, 2)
        v = values[: self.batch, : self.longest].transpose(1, 2)
        if limits:
            return self._limited(q, k, v, scale, **limits).flatten(1, 2)
        return scaled_dot_product_attention(q, k, v, attn_mask=self.mask, scale=scale).flatten(1, 2)

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
