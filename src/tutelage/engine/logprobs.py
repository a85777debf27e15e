"""Log-probabilities of target tokens, and the entropy, without a [tokens x vocabulary] float32 tensor.

Only positions that carry a loss are projected, in chunks; the backward pass projects again chunk by
chunk, so that memory is chunk x vocabulary.

Suffixes: _M positions that carry a loss, _V vocabulary, _H hidden.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**23  # logits held at once: 32 MiB in float32
GRADIENT_ELEMENTS = 2**26  # gradients of logits held at once, in the model's type: one product for all of them


@dataclass(frozen=True)
class Head:
    """How an architecture makes logits of hidden states: cap(scale * h W' + b), cap(x) = softcap tanh(x / softcap)."""

    weight_VH: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None


def head_of(model: Any) -> Head:
    """The output head of a causal model, with what its configuration does to the logits."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    return Head(head.weight, getattr(head, "bias", None), scale, getattr(config, "final_logit_softcapping", None))


class _FusedLogprobs(torch.autograd.Function):
    """logits / temperature -> log softmax at the target, and the entropy (no gradient)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_M: Tensor,
        scale: float,
        softcap: float | None,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        logprobs_M = torch.empty(len(targets_M), dtype=torch.float32)
        entropy_M = torch.empty_like(logprobs_M)
        log_z_M = torch.empty_like(logprobs_M)
        head = Head(weight_VH, bias_V, scale, softcap)
        for part in _chunks(0, len(targets_M), CHUNK_ELEMENTS // len(weight_VH)):
            logits = capped(hidden_MH[part], head).div_(temperature)
            target = logits.gather(-1, targets_M[part, None])[:, 0]
            most = logits.amax(-1, keepdim=True)
            weights = logits.sub_(most).exp()
            total = weights.sum(-1)
            log_total = total.log()
            logprobs_M[part] = target - most[:, 0] - log_total
            log_z_M[part] = most[:, 0] + log_total
            entropy_M[part] = log_total - torch.linalg.vecdot(weights, logits) / total
        ctx.save_for_backward(hidden_MH, weight_VH, bias_V, targets_M, log_z_M)
        ctx.scale, ctx.softcap, ctx.temperature = scale, softcap, temperature
        ctx.mark_non_differentiable(entropy_M)
        return logprobs_M, entropy_M

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        # d logprob / d logits = onehot(target) - softmax
        grad_M = gradients[0]
        hidden_MH, weight_VH, bias_V, targets_M, log_z_M = ctx.saved_tensors
        head = Head(weight_VH, bias_V, ctx.scale, ctx.softcap)
        vocabulary = len(weight_VH)
        grad_hidden = torch.empty_like(hidden_MH)
        grad_weight: Tensor | None = None
        weighted = ctx.needs_input_grad[1]  # not where the head is frozen, as under adapters
        grad_bias = torch.zeros(vocabulary, dtype=torch.float32) if bias_V is not None and weighted else None
        for group in _chunks(0, len(targets_M), GRADIENT_ELEMENTS // vocabulary):
            grad_logits = hidden_MH.new_empty(group.stop - group.start, vocabulary)
            for part in _chunks(group.start, group.stop, CHUNK_ELEMENTS // vocabulary):
                logits = capped(hidden_MH[part], head)
                slope = None if head.softcap is None else 1 - (logits / head.softcap).square_()
                grads = logits.div_(ctx.temperature).sub_(log_z_M[part, None]).exp_().mul_(-grad_M[part, None])
                grads.scatter_add_(-1, targets_M[part, None], grad_M[part, None])
                if slope is not None:
                    grads.mul_(slope)
                grad_logits[part.start - group.start : part.stop - group.start] = grads.div_(ctx.temperature)
            torch.mm(grad_logits, weight_VH, out=grad_hidden[group])
            if weighted:
                product = grad_logits.t() @ hidden_MH[group]
                grad_weight = product if grad_weight is None else grad_weight.float().add_(product)
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0, dtype=torch.float32)
        if weighted:
            grad_weight = torch.zeros_like(weight_VH) if grad_weight is None else grad_weight.mul_(head.scale)
            grad_weight = grad_weight.to(weight_VH.dtype)
        grad_bias = None if bias_V is None or grad_bias is None else grad_bias.to(bias_V.dtype)
        if head.scale != 1.0:
            grad_hidden = grad_hidden * head.scale
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def capped(hidden: Tensor, head: Head) -> Tensor:
    """Logits [M, V] in float32."""
    return finished((hidden @ head.weight_VH.t()).float(), head)


def finished(logits: Tensor, head: Head) -> Tensor:
    """h W' -> cap(scale * h W' + b), in place."""
    if head.scale != 1.0:
        logits.mul_(head.scale)
    if head.bias_V is not None:
        logits.add_(head.bias_V)
    if head.softcap is not None:
        logits.div_(head.softcap).tanh_().mul_(head.softcap)
    return logits


def _chunks(start: int, stop: int, size: int) -> list[slice]:
    size = max(1, size)
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def fused_logprobs(
    hidden_MH: Tensor, head: Head | Tensor, targets_M: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probability [M] of each target token and entropy [M] (nats, detached) at each position.

    hidden_MH: [M, H] last hidden states, at the position *before* each target. head: [V, H] weights, or with more.
    The temperature divides the logits, as in the rollout (Huang et al. 2024, detail 9).
    """
    head = Head(head) if isinstance(head, Tensor) else head
    logprobs, entropy = _FusedLogprobs.apply(
        hidden_MH, head.weight_VH, head.bias_V, targets_M, head.scale, head.softcap, temperature
    )
    return logprobs, entropy
