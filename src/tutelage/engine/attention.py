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

from tutelage.engine import native
from tutelage.engine.packing import Lifting, Packed
from tutelage.engine.varlen import Varlen, fits
from tutelage.errors import UserError

NAME = "tutelage"
LOOKS_AHEAD = "its attention looks ahead (it is an encoder's), which no language model may"
BLOCK = 128  # queries of a sequence whose scores are made together
SCORES_AT_ONCE = 2**23  # attention scores held in float32: 32 MiB
# What changes the scores in ways that are not known here; sinks: of other kinds than one number a head.
REFUSED = ("position_bias", "head_mask", "indices", "block_indices", "sinks")
LIMITS = {"softcap": "softcap", "window": "sliding_window", "sinks": "s_aux"}  # ours -> transformers' name


class Layout(Protocol):
    """Where the sequences of a packed batch begin, and which keys each query may see."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, **limits: Any) -> Tensor:
        """[U, h, d] queries and [U, h_kv, d] keys and values -> [U, h, d].

        limits: softcap (scores pass through softcap * tanh(score / softcap)), window (keys seen, own included) and
        sinks ([h], scores of a key without a value that every query sees), given only where the architecture has them.
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
    causal attention, and exists only here. A GPU's flash kernel takes the packed sequences as they are, where it can.
    """

    def __init__(self, packed: Packed):
        self.packed = packed
        self.varlen: Varlen | None = None  # what the first layer has moved to a GPU serves them all
        self.lifting: Lifting | None = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, **limits: Any) -> Tensor:
        if query.device.type == "cpu" and query.shape[-1] == value.shape[-1] and not limits:
            return _Causal.apply(query, key, value, self.packed.lifting, scale)
        if fits(query, value, limits):
            self.varlen = self.varlen or Varlen(self.packed, query.device)
            return self.varlen.attend(query, key, value, scale, **limits)
        self.lifting = lifting = self.lifting or self.packed.lifting.on(query.device)
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


def limited(q: Tensor, k: Tensor, v: Tensor, scale: float, *, window: int | None = None, **more: Any) -> Tensor:
    """Causal attention with capped scores, a sliding window or sinks."""
    length = q.shape[2]
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    place = torch.arange(length, device=q.device)
    distance = place[:, None] - place
    return by_definition(q, k, v, scale, (distance < 0) | (distance >= (window or length)), **more)


def by_definition(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    hidden: Tensor,
    *,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """softmax(cap(scale q K')) V over the keys that are not hidden."""
    scores = (q @ k.transpose(-1, -2)).float() * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return _weights(scores.masked_fill(hidden, float("-inf")), sinks).to(v.dtype) @ v


def _weights(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax of scores [n, ..., queries, L]; sinks: one more key's scores, a number a head, whose weight goes nowhere."""
    if sinks is None:
        return scores.softmax(-1)
    sink = sinks.float().view(*scores.shape[1:-2], -1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat([scores, sink], -1).softmax(-1)[..., :-1]


class _Causal(torch.autograd.Function):
    """softmax(scale Q K') V per sequence. The backward pass computes the weights again from the log-sums:

    P = exp(scale Q K' - lse),  dV = P' dO,  dS = P * (dO V' - rowsum(dO * O)),  dQ = scale dS K,  dK = scale dS' Q.

    Plain matrix products beat the stock kernels on the processor at the lengths met here. Queries are taken in
    blocks, each with the keys that it may see, and the heads that share a key's head are rows of one product.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, lifting: Lifting, scale: float) -> Tensor:
        q, k, v = (lifted(x, lifting) for x in (query, key, value))
        out_F = torch.empty_like(q, memory_format=torch.contiguous_format)
        sums = []
        for bucket in lifting.buckets:
            parts = [bucket_of(x, bucket) for x in (q, k, v, out_F)]
            lse = torch.empty(parts[0].shape[:3], dtype=torch.float32)
            for some in _at_once(parts[0]):
                _forward([x[some] for x in parts], lse[some], scale)
            sums.append(lse)
        out_U = lowered(out_F, lifting)
        ctx.save_for_backward(query, key, value, out_U, *sums)
        ctx.lifting, ctx.scale = lifting, scale
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
            deltas = bucket_of(delta, bucket)
            for some in _at_once(parts[0]):
                _backward([x[some] for x in parts], deltas[some], lse[some], ctx.scale)
        dk, dv = (_gathered(x, lifting, len(key)) for x in (dk, dv))
        return lowered(dq, lifting), dk, dv, None, None


def _at_once(q: Tensor) -> list[slice]:
    """Sequences of a bucket whose scores may be held together."""
    count, heads, length, _ = q.shape
    step = max(1, SCORES_AT_ONCE // (heads * min(length, BLOCK) * length))
    return [slice(first, first + step) for first in range(0, count, step)]


def _folded(x: Tensor, groups: int) -> Tensor:
    """[n, h, L, d] -> contiguous [n * groups, h / groups, L, d]."""
    return x.reshape(-1, x.shape[1] // groups, *x.shape[2:])


def _forward(parts: list[Tensor], lse: Tensor, scale: float) -> None:
    """Write the outcome for some sequences of a bucket: parts are q, k, v, and the place for the output."""
    q, k, v, out = parts
    groups, length = k.shape[1], q.shape[2]
    q, k, v = _folded(q, groups), _folded(k, groups)[:, 0], _folded(v, groups)[:, 0]
    for first in range(0, length, BLOCK):
        last = min(first + BLOCK, length)
        rows = q[:, :, first:last].flatten(1, 2)
        scores = torch.bmm(rows, k[:, :last].transpose(1, 2))
        weights, totals, most = _weigh(scores, last - first, scale)
        _settle(torch.bmm(weights, v[:, :last]), totals, out[:, :, first:last])
        lse[:, :, first:last] = totals.log_().add_(most).view(len(out), -1, last - first)


def _backward(parts: list[Tensor], delta: Tensor, lse: Tensor, scale: float) -> None:
    """Write the gradients of some sequences of a bucket: parts are q, k, v, dO, and dQ, dK, dV to write into."""
    q, k, v, go, dq, dk, dv = parts
    groups, (_, _, length, size) = k.shape[1], q.shape
    q, go, delta, lse = (_folded(x, groups) for x in (q, go, delta, lse))
    k, v = _folded(k, groups)[:, 0], _folded(v, groups)[:, 0]
    grad_k, grad_v = torch.zeros_like(k, dtype=torch.float32), torch.zeros_like(v, dtype=torch.float32)
    for first in range(0, length, BLOCK):
        last = min(first + BLOCK, length)
        rows, row_go = q[:, :, first:last].flatten(1, 2), go[:, :, first:last].flatten(1, 2)
        some_k, some_v = k[:, :last], v[:, :last]
        log_sums, deltas = (x[:, :, first:last].flatten(1).contiguous() for x in (lse, delta))
        scores = torch.bmm(rows, some_k.transpose(1, 2))
        slopes = torch.bmm(row_go, some_v.transpose(1, 2))
        weights, slopes = _weigh_backward(scores, slopes, log_sums, deltas, last - first, scale)
        dq[:, :, first:last] = torch.bmm(slopes, some_k).view(len(dq), -1, last - first, size)
        grad_k[:, :last] += torch.bmm(slopes.transpose(1, 2), rows)
        grad_v[:, :last] += torch.bmm(weights.transpose(1, 2), row_go)
    dk.copy_(grad_k.view_as(dk))
    dv.copy_(grad_v.view_as(dv))


def _weigh(scores: Tensor, block: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """e^(scale score - most), their sums, and most, the largest scale score. scores: [n, rows, L], which need not outlast
    it; rows: `block` queries, the last of L tokens, for each of some heads."""
    if (own := native.kernels(scores.dtype)) is not None:
        return scores, *own.weigh(scores, block, scale)
    seen = scores.float().mul_(scale).view(len(scores), -1, block, scores.shape[-1])
    seen[..., -block:] += _later(block)
    most = seen.amax(-1, keepdim=True)
    weights = seen.sub_(most).exp_()
    return weights.to(scores.dtype).view_as(scores), weights.sum(-1).flatten(1), most.flatten(1)


def _settle(mixed: Tensor, totals: Tensor, out: Tensor) -> None:
    """Sums of values [n * groups, rows, d] divided by the weights' sums, written as [n, h, block, d]."""
    if (own := native.kernels(mixed.dtype)) is not None:
        own.settle(mixed, totals, out)
    else:
        out.copy_(mixed.div_(totals[..., None]).view(out.shape))


def _weigh_backward(
    scores: Tensor, slopes: Tensor, log_sums: Tensor, deltas: Tensor, block: int, scale: float
) -> tuple[Tensor, Tensor]:
    """P = e^(scale score - log_sum) and scale P (dP - delta). scores, slopes (dP): [n, rows, L]; log_sums, deltas: [n, rows]."""
    if (own := native.kernels(scores.dtype)) is not None:
        own.weigh_backward(scores, slopes, log_sums, deltas, block, scale)
        return scores, slopes
    weights = scores.float().mul_(scale).sub_(log_sums[..., None]).exp_()
    weights.view(len(scores), -1, block, scores.shape[-1]).tril_(scores.shape[-1] - block)  # quicker than before `exp`
    steep = slopes.float().sub_(deltas[..., None]).mul_(weights).mul_(scale)
    return weights.to(scores.dtype), steep.to(scores.dtype)


@lru_cache(maxsize=256)
def _later(length: int) -> Tensor:
    """[L, L] minus infinity at the keys that a query may not see, which come after it; else 0."""
    return torch.full((length, length), float("-inf")).triu_(1)


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
    if (odd := _unknown(module, attention_mask, kwargs)) is not None:
        raise UserError(odd, where=type(module).__name__, mend="use a model of another architecture")
    scale = kwargs.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    asked = {name: kwargs.get(word) for name, word in LIMITS.items()}
    limits: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    # Not `x[0]`, whose gradient is a tensor of zeros with a part filled in.
    q, k, v = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
    # Contiguous: some architectures `view` it.
    return layout.attend(q, k, v, scale, **limits).contiguous()[None], None


def _unknown(module: Any, attention_mask: Tensor | None, kwargs: dict[str, Any]) -> str | None:
    """What a layer asks for that packed attention cannot compute: to go on would be silently wrong."""
    for name in REFUSED:
        if kwargs.get(name) is not None:
            return f"its attention has a `{name}`, which packed attention cannot compute"
    if attention_mask is not None:
        return "its attention has a mask of its own, which packed attention cannot compute"
    causal = kwargs.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        return LOOKS_AHEAD
    return None


AttentionInterface.register(NAME, _attention)
