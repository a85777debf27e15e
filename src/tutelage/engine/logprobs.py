"""Log-probabilities of target tokens, and the entropy, without a [tokens x vocabulary] float32 tensor.

Only positions that carry a loss are projected, in chunks; the backward pass projects again chunk by
chunk, so that memory is chunk x vocabulary.

Suffixes: _M positions that carry a loss, _V vocabulary, _H hidden.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**23  # logits held at once: 32 MiB in float32


class _FusedLogprobs(torch.autograd.Function):
    """logits = h W' / temperature; returns log softmax at the target and the entropy (no gradient)."""

    @staticmethod
    def forward(
        ctx: Any, hidden_MH: Tensor, weight_VH: Tensor, targets_M: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logprobs_M = torch.empty(len(targets_M), dtype=torch.float32)
        entropy_M = torch.empty_like(logprobs_M)
        log_z_M = torch.empty_like(logprobs_M)
        for part in _chunks(len(targets_M), len(weight_VH)):
            logits = _logits(hidden_MH[part], weight_VH, temperature)
            log_z = logits.logsumexp(-1)
            logprobs_M[part] = logits.gather(-1, targets_M[part, None])[:, 0] - log_z
            log_z_M[part] = log_z
            probabilities = (logits - log_z[:, None]).exp_()
            entropy_M[part] = log_z - (probabilities * logits).sum(-1)
        ctx.save_for_backward(hidden_MH, weight_VH, targets_M, log_z_M)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy_M)
        return logprobs_M, entropy_M

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None, None]:
        # d logprob / d logits = onehot(target) - softmax
        grad_M = gradients[0]
        hidden_MH, weight_VH, targets_M, log_z_M = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden_MH)
        grad_weight = torch.zeros(weight_VH.shape, dtype=torch.float32)
        for part in _chunks(len(targets_M), len(weight_VH)):
            logits = _logits(hidden_MH[part], weight_VH, ctx.temperature)
            grad_logits = logits.sub_(log_z_M[part, None]).exp_().mul_(-grad_M[part, None])
            grad_logits.scatter_add_(-1, targets_M[part, None], grad_M[part, None])
            grad_logits = (grad_logits / ctx.temperature).to(hidden_MH.dtype)
            grad_hidden[part] = grad_logits @ weight_VH
            grad_weight += (grad_logits.t() @ hidden_MH[part]).float()
        return grad_hidden, grad_weight.to(weight_VH.dtype), None, None


def _logits(hidden: Tensor, weight_VH: Tensor, temperature: float) -> Tensor:
    logits = (hidden @ weight_VH.t()).float()
    return logits if temperature == 1.0 else logits.div_(temperature)


def _chunks(count: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def fused_logprobs(
    hidden_MH: Tensor, weight_VH: Tensor, targets_M: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probability [M] of each target token and entropy [M] (nats, detached) at each position.

    hidden_MH: [M, H] last hidden states, at the position *before* each target. weight_VH: [V, H].
    The temperature divides the logits, as in the rollout (Huang et al. 2024, detail 9).
    """
    logprobs, entropy = _FusedLogprobs.apply(hidden_MH, weight_VH, targets_M, temperature)
    return logprobs, entropy
