"""RMS norm with a backward pass of its own: it keeps the input and one number a token, where autograd keeps
three tensors of the input's size in float32, and takes half the passes over memory.

Suffixes: _T tokens, _H hidden.
"""

from typing import Any

import torch
from torch import Tensor, nn

# Norms of `transformers` that compute weight * (x / rms(x)) with the weight as it is.
KNOWN = ("LlamaRMSNorm", "MistralRMSNorm", "MixtralRMSNorm", "Phi3RMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")


class _RMSNorm(torch.autograd.Function):
    """n = x r, r = (mean(x^2) + eps)^(-1/2), y = w n;  dx = r (w dy - n mean(w dy n)),  dw = sum over tokens of dy n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_H: Tensor, eps: float) -> Tensor:
        wide = x.float()
        inverse = (torch.linalg.vecdot(wide, wide) / x.shape[-1] + eps).rsqrt_()[..., None]
        ctx.save_for_backward(x, weight_H, inverse)
        return (wide * inverse).to(x.dtype).mul_(weight_H)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None]:
        x, weight_H, inverse = ctx.saved_tensors
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


def _forward(self: Any, hidden_states: Tensor) -> Tensor:
    return rms_norm(hidden_states, self.weight, self.variance_epsilon)


def use_own_norms(model: nn.Module) -> None:
    """Let the model's RMS norms, where they are of a known kind, compute as here."""
    for module in model.modules():
        kind = type(module)
        if kind.__name__ in KNOWN:
            # A subclass of the same name, not a bound method: the module can still be copied.
            module.__class__ = type(kind.__name__, (kind,), {"forward": _forward})
