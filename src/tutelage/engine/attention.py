"""Attention for packed sequences, through `transformers`' attention registry.

A model whose attention implementation is "tutelage" is called with `[1, T]` packed tokens inside
`attending(layout)`; each layer's queries, keys and values then meet the layout, which knows where
the sequences begin. So every architecture of `transformers` works unchanged and no padding token
passes through a matrix product. `PackedLayout` serves training, scoring and prefill; the sampler
brings its own layout, which holds the key-value cache.

Dropout of attention weights is not applied; an attention that cannot be computed here is refused.

Suffixes: _U computed tokens, _F places of the buckets, n sequences, L longest of a bucket, h heads, d head size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tutelage.engine.packing import Lifting
from tutelage.errors import UserError

NAME = "tutelage"
SCORES_AT_ONCE = 2**23  # attention scores held in float32 by the backward pass: 32 MiB
REFUSED = ("position_bias", "s_aux", "head_mask")


class Layout(Protocol):
    """Where the sequences of a packed batch begin, and which keys each query may see."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, **limits: Any) -> Tensor:
        """[U, h, d] queries and [U, h_kv, d] keys and values -> [U, h, d].

        limits: softcap (scores pass through softcap * tanh(score / softcap)) and window (keys seen, own included),
        given only where the architecture has them.
        """
        ...


_layout: ContextVar[Layout | None] = ContextVar("tutelage_attention_layout", default=None)


@contextmanager
def attending(layout: Layout) -> Iterator[None]:
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def current_layout() -> Layout | None:
    """The layout that attention would meet now."""
    return _layout.get()


class PackedLayout:
    """Causal attention inside each sequence.

    Sequences of like length are lifted together into `[n, h, L, d]`: right padding is invisible to
    causal attention, and exists only here.
    """

    def __init__(self, offsets: Tensor, lifting: Lifting | None = None):
        self.lifting = lifting or Lifting(offsets)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, **limits: Any) -> Tensor:
        lifting = self.lifting
        own = query.device.type == "cpu" and query.shape[-1] == value.shape[-1] and not limits
        if own and torch.is_grad_enabled() and query.requires_grad:
            return _Causal.apply(query, key, value, lifting, scale)
        q, k, v = (lifted(x, lifting) for x in (query, key, value))
        outputs = []
        for bucket in lifting.buckets:
            some_q, some_k, some_v = (bucket_of(x, bucket) for x in (q, k, v))
            out = limited(some_q, some_k, some_v, scale, **limits) if limits else plain(some_q, some_k, some_v, scale)
            outputs.append(out.transpose(1, 2).flatten(0, 1))
        return lowered(torch.cat(outputs) if len(outputs) > 1 else outputs[0], lifting)


def lifted(x_U: Tensor, lifting: Lifting) -> Tensor:
    """[U, ...] -> [F, ...]."""
    return x_U if lifting.identity else x_U.index_select(0, lifting.lift)


def lowered(x_F: Tensor, lifting: Lifting) -> Tensor:
    """[F, ...] -> [U, ...]."""
    return x_F if lifting.identity else x_F.index_select(0, lifting.where)


def bucket_of(x_F: Tensor, bucket: tuple[int, int, int]) -> Tensor:
    """One bucket as [n, h, L, d]."""
    start, count, length = bucket
    return x_F[start : start + count * length].view(count, length, *x_F.shape[1:]).transpose(1, 2)


def plain(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1])


def limited(
    q: Tensor, k: Tensor, v: Tensor, scale: float, *, softcap: float | None = None, window: int | None = None
) -> Tensor:
    """Causal attention with capped scores or a sliding window, by the definition."""
    length = q.shape[2]
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)).float() * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    hidden = (distance < 0) | (distance >= (window or length))
    return scores.masked_fill(hidden, float("-inf")).softmax(-1).to(v.dtype) @ v


class _Causal(torch.autograd.Function):
    """softmax(scale Q K') V per sequence. The backward pass computes the weights again from the log-sums:

    P = exp(scale Q K' - lse),  dV = P' dO,  dS = P * (dO V' - rowsum(dO * O)),  dQ = scale dS K,  dK = scale dS' Q.

    Plain matrix products beat the stock kernel's backward pass on the processor at the lengths met here.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, lifting: Lifting, scale: float) -> Tensor:
        q, k, v = (lifted(x, lifting) for x in (query, key, value))
        repeats = q.shape[1] // k.shape[1]
        out_F = torch.empty_like(q, memory_format=torch.contiguous_format)
        sums = []
        for bucket in lifting.buckets:
            some_q, some_k, some_v = (bucket_of(x, bucket) for x in (q, k, v))
            out, lse = _forward(some_q, some_k, some_v, repeats, scale)
            bucket_of(out_F, bucket).copy_(out)
            sums.append(lse)
        out_U = lowered(out_F, lifting)
        ctx.save_for_backward(query, key, value, out_U, *sums)
        ctx.lifting, ctx.scale, ctx.repeats = lifting, scale, repeats
        return out_U

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        query, key, value, out_U, *sums = ctx.saved_tensors
        lifting: Lifting = ctx.lifting
        q, k, v = (lifted(x, lifting) for x in (query, key, value))
        delta_U = (gradients[0] * out_U).sum(-1, dtype=torch.float32)  # rowsum(dO * O), [U, h]
        if lifting.identity:
            go, delta = gradients[0], delta_U
        else:  # padding and copies of a shared beginning get no gradient of their own
            go = torch.zeros_like(q, memory_format=torch.contiguous_format)
            go.index_copy_(0, lifting.where, gradients[0])
            delta = delta_U.new_zeros(len(q), delta_U.shape[1]).index_copy_(0, lifting.where, delta_U)
        dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
        for bucket, lse in zip(lifting.buckets, sums, strict=True):
            parts = [bucket_of(x, bucket) for x in (q, k, v, go, dq, dk, dv)]
            deltas = bucket_of(delta[..., None], bucket)
            step = max(1, SCORES_AT_ONCE // (q.shape[1] * bucket[2] ** 2))
            for first in range(0, bucket[1], step):
                some = slice(first, first + step)
                _backward([x[some] for x in parts], deltas[some], lse[some], ctx.repeats, ctx.scale)
        dk, dv = (_gathered(x, lifting, len(key)) for x in (dk, dv))
        return lowered(dq, lifting), dk, dv, None, None


def _forward(q: Tensor, k: Tensor, v: Tensor, repeats: int, scale: float) -> tuple[Tensor, Tensor]:
    k, v = _repeated(k, repeats), _repeated(v, repeats)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True, scale=scale)


def _repeated(x: Tensor, repeats: int) -> Tensor:
    return x if repeats == 1 else x.repeat_interleave(repeats, dim=1)


def _backward(parts: list[Tensor], delta: Tensor, lse: Tensor, repeats: int, scale: float) -> None:
    """Write the gradients of some sequences of a bucket: parts are q, k, v, dO, and dQ, dK, dV to write into."""
    q, k, v, go, dq, dk, dv = parts
    length = q.shape[2]
    k, v = _repeated(k, repeats), _repeated(v, repeats)
    weights = (q @ k.transpose(-1, -2)).float().mul_(scale).sub_(lse[..., None])
    weights.masked_fill_(_later(length), float("-inf")).exp_()
    grad_scores = (go @ v.transpose(-1, -2)).float().sub_(delta).mul_(weights).mul_(scale).to(q.dtype)
    low = weights.to(q.dtype)
    dq.copy_(grad_scores @ k)
    grad_k, grad_v = grad_scores.transpose(-1, -2) @ q, low.transpose(-1, -2) @ go
    if repeats > 1:
        grad_k, grad_v = (x.unflatten(1, (-1, repeats)).sum(2) for x in (grad_k, grad_v))
    dk.copy_(grad_k)
    dv.copy_(grad_v)


@lru_cache(maxsize=64)
def _later(length: int) -> Tensor:
    """[L, L] which keys a query may not see."""
    return torch.ones(length, length, dtype=torch.bool).triu_(1)


def _gathered(x_F: Tensor, lifting: Lifting, count: int) -> Tensor:
    """Gradients of keys and values come back to their tokens; those of a shared beginning add up, in float32."""
    if not lifting.repeated:
        return lowered(x_F, lifting)
    total = torch.zeros(count, *x_F.shape[1:], dtype=torch.float32)
    return total.index_add_(0, lifting.lift, x_F.float()).to(x_F.dtype)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The registered function: `[1, h, T, d]` in, `[1, T, h, d]` out."""
    layout = _layout.get()
    if layout is None:
        raise RuntimeError("a model with packed attention was called outside attending(layout)")
    for name in REFUSED:
        if kwargs.get(name) is not None:
            raise UserError(
                f"its attention has a `{name}`, which packed attention cannot compute",
                where=type(module).__name__,
                mend="use a model of another architecture",
            )
    scale = kwargs.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    asked = {"softcap": kwargs.get("softcap"), "window": kwargs.get("sliding_window")}
    limits: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return layout.attend(module.layer_idx, q, k, v, scale, **limits)[None], None


AttentionInterface.register(NAME, _attention)
