"""Attention for packed sequences, through `transformers`' attention registry.

A model whose attention implementation is "tutelage" is called with `[1, T]` packed tokens inside
`attending(layout)`; each layer's queries, keys and values then meet the layout, which knows where
the sequences begin. So every architecture of `transformers` works unchanged and no padding token
passes through a matrix product. `PackedLayout` serves training, scoring and prefill; the sampler
brings its own layout, which holds the key-value cache.

Suffixes: _T packed tokens, N sequences, L longest sequence, h heads, d head size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "tutelage"


class Layout(Protocol):
    """Where the sequences of a packed batch begin, and which keys each query may see."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """[T, h, d] queries and [T, h_kv, d] keys and values -> [T, h, d]."""
        ...


_layout: ContextVar[Layout | None] = ContextVar("tutelage_attention_layout", default=None)


@contextmanager
def attending(layout: Layout) -> Iterator[None]:
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


class PackedLayout:
    """Causal attention inside each sequence.

    Sequences of like length are lifted together into `[n, h, L, d]`: right padding is invisible to
    causal attention, and exists only here.
    """

    def __init__(self, offsets: Tensor, waste: float = 1.25):
        lengths = offsets.diff()
        self.tokens = int(offsets[-1])
        order = lengths.argsort(descending=True)
        self.buckets: list[tuple[Tensor, Tensor]] = []  # ([n, L] token index, [n, L] real)
        start = 0
        while start < len(order):
            longest = int(lengths[order[start]])
            stop = start + int((lengths[order[start:]] * waste >= longest).sum())
            rows = order[start:stop]
            column = torch.arange(longest)
            real = column < lengths[rows][:, None]
            index = torch.where(real, offsets[:-1][rows][:, None] + column, offsets[:-1][rows][:, None])
            self.buckets.append((index, real))
            start = stop

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        outputs, places = [], []
        for index, real in self.buckets:
            q, k, v = (x[index].transpose(1, 2) for x in (query, key, value))
            out = scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
            )
            outputs.append(out.transpose(1, 2)[real])
            places.append(index[real])
        # One gather puts every token's output back in its place.
        where = torch.empty(self.tokens, dtype=torch.long)
        where[torch.cat(places)] = torch.arange(self.tokens)
        return torch.cat(outputs)[where]


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The registered function: `[1, h, T, d]` in, `[1, T, h, d]` out."""
    layout = _layout.get()
    if layout is None:
        raise RuntimeError("a model with packed attention was called outside attending(layout)")
    scale = kwargs.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return layout.attend(module.layer_idx, q, k, v, scale)[None], None


AttentionInterface.register(NAME, _attention)
