"""Parts of a layer with a backward pass of their own, which keep less for it than autograd does.

RMS norm: the input and one number a token, where autograd keeps three tensors of the input's size in float32; half the
passes over memory. Gated feed-forward: gate and up, where autograd keeps the gate's activation and the product too.
Rotation: nothing but cosines and sines, and one pass where autograd makes seven.

Suffixes: _T tokens, _H hidden, _F the feed-forward layer's width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tutelage.engine import native
from tutelage.engine.attention import NAME

# Norms of `transformers` that compute weight * (x / rms(x)) with the weight as it is.
NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "MixtralRMSNorm", "Phi3RMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
# Attention of `transformers` that turns all of its queries and keys, and does nothing else to them.
ROTATED = ("LlamaAttention", "MistralAttention", "Qwen2Attention")
ELSEWHERE = ("attention_mask", "cache", "past_key_values")  # what an architecture's own forward pass sees to
# Layers of `transformers` that compute down(act(gate(x)) * up(x)).
GATED = ("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP")


class _RMSNorm(torch.autograd.Function):
    """n = x r, r = (mean(x^2) + eps)^(-1/2), y = w n;  dx = r (w dy - n mean(w dy n)),  dw = sum over tokens of dy n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_H: Tensor, eps: float) -> Tensor:
        if (own := native.kernels_for(x, weight_H)) is not None:
            x = x.contiguous()
            out, inverse = own.norm(x.flatten(0, -2), weight_H.detach(), eps)
            ctx.save_for_backward(x, weight_H, inverse)
            return out.view_as(x)
        wide = x.float()
        inverse = (torch.linalg.vecdot(wide, wide) / x.shape[-1] + eps).rsqrt_()[..., None]
        ctx.save_for_backward(x, weight_H, inverse)
        return (wide * inverse).to(x.dtype).mul_(weight_H)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None]:
        x, weight_H, inverse = ctx.saved_tensors
        if (own := native.kernels_for(x, weight_H)) is not None:
            flat, grad = x.flatten(0, -2), gradients[0].contiguous().flatten(0, -2)
            grad_x, grad_weight = own.norm_backward(flat, weight_H, inverse, grad)
            return grad_x.view_as(x), grad_weight.to(weight_H.dtype), None
        normed = x * inverse  # in float32, as the inverse is
        grad = gradients[0].float()
        grad_weight = (grad * normed).flatten(0, -2).sum(0)
        scaled = grad * weight_H
        mean = torch.linalg.vecdot(scaled, normed)[..., None].div_(x.shape[-1])
        grad_x = scaled.addcmul_(normed, mean, value=-1).mul_(inverse)
        return grad_x.to(x.dtype), grad_weight.to(weight_H.dtype), None


def rms_norm(x: Tensor, weight_H: Tensor, eps: float) -> Tensor:
    """weight * x / sqrt(mean(x^2) + eps), the mean in float32, rounded to x's type before the weight."""
    return _RMSNorm.apply(x, weight_H, eps)


class _GatedDown(torch.autograd.Function):
    """y = (silu(g) u) W^T;  dW = dy^T (silu(g) u), du = dh silu(g), dg = dh u silu'(g), with dh = dy W."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight_HF: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up, weight_HF)
        return linear(_gate(gate, up), weight_HF)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        gate, up, weight_HF = ctx.saved_tensors
        grad_gate, grad_up, product = _gate_backward(gate, up, gradients[0] @ weight_HF)
        wanted = ctx.needs_input_grad[2]
        return grad_gate, grad_up, gradients[0].flatten(0, -2).T @ product.flatten(0, -2) if wanted else None


def _gate(gate: Tensor, up: Tensor) -> Tensor:
    """silu(g) u."""
    own = native.kernels_for(gate, up)
    return silu(gate).mul_(up) if own is None else own.gate(gate, up)


def _gate_backward(gate: Tensor, up: Tensor, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dg and du, given dh, which need not outlast it; and h once more."""
    if (own := native.kernels_for(gate, up)) is not None:
        return own.gate_backward(gate, up, inner)
    active = silu(gate)
    product = active * up
    grad_up = active.mul_(inner)
    return torch.ops.aten.silu_backward(inner.mul_(up), gate), grad_up, product


def gated_down(gate: Tensor, up: Tensor, weight_HF: Tensor) -> Tensor:
    """(silu(gate) * up) @ weight^T, with the roundings of the three operations."""
    return _GatedDown.apply(gate, up, weight_HF)


class _Rotated(torch.autograd.Function):
    """y = x cos + (-x_2, x_1) sin, of the halves of x [T, h, d];  dx is the transpose of the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, own: native.Kernels) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.own = own
        return own.rotate(x.contiguous(), cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return ctx.own.rotate(gradients[0].contiguous(), cos, sin, backward=True), None, None, None


def _attention_forward(kind: Any) -> Callable[..., Any]:
    """The forward pass of a kind of attention, with our rotation where packed tokens are computed on the processor."""

    def forward(self: Any, hidden_states: Tensor, position_embeddings: Any, *args: Any, **kwargs: Any) -> Any:
        cos, sin = position_embeddings
        own = native.kernels_for(hidden_states, cos)
        window = getattr(self, "sliding_window", None) or getattr(self.config, "sliding_window", None)
        packed = self.config._attn_implementation == NAME and not any(
            kwargs.get(name) is not None for name in ELSEWHERE
        )
        if own is None or not packed or args or window is not None or cos.shape[-1] != self.head_dim:
            return kind.forward(self, hidden_states, position_embeddings, *args, **kwargs)
        parts = (part(hidden_states).squeeze(0) for part in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (x.unflatten(-1, (-1, self.head_dim)) for x in parts)
        q, k = (_Rotated.apply(x, cos[0].contiguous(), sin[0].contiguous(), own) for x in (q, k))
        heads = (x.transpose(0, 1)[None] for x in (q, k, v))
        mixed, weights = ALL_ATTENTION_FUNCTIONS[NAME](self, *heads, None, scaling=self.scaling)
        return self.o_proj(mixed.flatten(-2)), weights

    return forward


def _norm_forward(self: Any, hidden_states: Tensor) -> Tensor:
    return rms_norm(hidden_states, self.weight, self.variance_epsilon)


def _gated_forward(self: Any, x: Tensor) -> Tensor:
    if type(self.down_proj) is not nn.Linear:  # an adapter stands beside it
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
    return gated_down(self.gate_proj(x), self.up_proj(x), self.down_proj.weight)


def use_own_layers(model: nn.Module) -> None:
    """Let the model's RMS norms, rotations and gated feed-forward layers, where they are of a known kind, compute as here."""
    for module in model.modules():
        kind: Any = type(module)
        forward: Callable[..., Any] | None = None
        if kind.__name__ in NORMS:
            forward = _norm_forward
        elif kind.__name__ in ROTATED:
            forward = _attention_forward(kind)
        elif kind.__name__ in GATED and _is_plain(module):
            forward = _gated_forward
        if forward is not None:
            # A subclass of the same name, not a bound method: the module can still be copied.
            module.__class__ = type(kind.__name__, (kind,), {"forward": forward})


def _is_plain(layer: Any) -> bool:
    """Whether the activation is SiLU and the last product has no bias."""
    return type(layer.act_fn).__name__ in ("SiLU", "SiLUActivation") and layer.down_proj.bias is None
