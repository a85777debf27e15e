"""Attention of packed sequences on a GPU: flash attention's kernel for sequences of unequal length, no padding at all.

It takes 16-bit types and heads of at most 256 numbers, on GPUs from Ampere on; a sliding window, but no capped scores.
Everything else goes through buckets of like length (`attention.PackedLayout`).

Suffixes: _U computed tokens, _T packed tokens (U and what sequences share, again), h heads, h_kv key heads, d head size.
"""

import inspect
from typing import Any

import torch
from torch import Tensor

from tutelage.engine.device import moved, multiplies_bfloat16
from tutelage.engine.packing import Packed

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None  # type: ignore[assignment]

LONGEST_HEAD = 256
# torch before 2.13 knows neither groups of query heads nor windows here.
KNOWN = varlen_attn is not None and {"enable_gqa", "window_size"} <= inspect.signature(varlen_attn).parameters.keys()


def fits(query: Tensor, value: Tensor, limits: dict[str, Any]) -> bool:
    """Whether the kernel can compute this. query, value: [U, h, d]."""
    if query.device.type != "cuda" or not KNOWN or limits.keys() - {"window"}:
        return False
    size = query.shape[-1]
    shape = size == value.shape[-1] and size <= LONGEST_HEAD and size % 8 == 0
    return shape and query.dtype in (torch.bfloat16, torch.float16) and multiplies_bfloat16(query.device)


class Varlen:
    """The bounds of a batch's sequences on a device, for all layers."""

    def __init__(self, packed: Packed, device: torch.device):
        self.bounds = moved(packed.offsets.to(torch.int32), device)
        self.longest = int(packed.lengths.max())
        shared = packed.shared
        self.place = None if shared is None else moved(shared.place, device)
        self.kept = None if shared is None else moved(shared.kept, device)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """[U, h, d] queries and [U, h_kv, d] keys and values -> [U, h, d]. window: keys seen, own included."""
        if self.place is not None:
            query, key, value = (_Spread.apply(x, self.place) for x in (query, key, value))
        out_T = varlen_attn(
            query,
            key,
            value,
            self.bounds,
            self.bounds,
            self.longest,
            self.longest,
            scale=scale,
            window_size=(-1 if window is None else window - 1, 0),  # keys before the query's own, and after it
            enable_gqa=query.shape[1] != key.shape[1],
        )
        assert isinstance(out_T, Tensor)
        return out_T if self.kept is None else out_T.index_select(0, self.kept)


class _Spread(torch.autograd.Function):
    """[U, ...] -> [T, ...]: a shared beginning stands in each sequence. Its gradients add up in float32."""

    @staticmethod
    def forward(ctx: Any, x_U: Tensor, place_T: Tensor) -> Tensor:
        ctx.save_for_backward(place_T)
        ctx.count = len(x_U)
        return x_U.index_select(0, place_T)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (place_T,) = ctx.saved_tensors
        total = gradients[0].new_zeros(ctx.count, *gradients[0].shape[1:], dtype=torch.float32)
        return total.index_add_(0, place_T, gradients[0].float()).to(gradients[0].dtype), None
