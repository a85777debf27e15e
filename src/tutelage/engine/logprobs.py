"""Log-probabilities of target tokens, and the entropy, without a [tokens x vocabulary] float32 tensor.

Only positions that carry a loss are projected, in chunks. The gradients of a bounded number of logits are made
in the forward pass and kept in the model's type; beyond it, the backward pass projects again.

Suffixes: _M positions that carry a loss, _V vocabulary, _H hidden.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.engine import native

CHUNK_ELEMENTS = 2**23  # logits held at once: 32 MiB in float32
PRODUCT_BYTES = 2**26  # or so much, where C reads the product as it is: more rows at once make faster products
COLUMNS = 6144  # of the weight's gradient that are computed together: half as fast again as all at once
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
        logprobs_M = torch.empty(len(targets_M), dtype=torch.float32, device=hidden_MH.device)
        entropy_M = torch.empty_like(logprobs_M)
        log_z_M = torch.empty_like(logprobs_M)
        head = Head(weight_VH, bias_V, scale, softcap)
        vocabulary, size = len(weight_VH), _rows_at_once(hidden_MH, head)
        # The gradients of the last group are made here, where its softmax is at hand; the others' logits come twice.
        last = (_chunks(0, len(targets_M), GRADIENT_ELEMENTS // vocabulary) or [slice(0, 0)])[-1]
        kept = hidden_MH.new_empty(last.stop - last.start, vocabulary) if ctx.needs_input_grad[0] else None
        for part in _chunks(0, last.start, size) + _chunks(last.start, last.stop, size):
            place = kept[_moved(part, last)] if kept is not None and part.start >= last.start else None
            logits = _logits(hidden_MH[part], head, place)
            target = logits.gather(-1, targets_M[part, None])[:, 0].float() / temperature
            log_z_M[part], entropy_M[part] = _partition(logits, temperature)
            logprobs_M[part] = target - log_z_M[part]
            if place is not None:
                place.copy_(_unit_gradient(logits, log_z_M[part], targets_M[part], head, temperature))
        ctx.save_for_backward(hidden_MH, weight_VH, bias_V, targets_M, log_z_M)
        ctx.scale, ctx.softcap, ctx.temperature = scale, softcap, temperature
        ctx.kept = kept
        ctx.mark_non_differentiable(entropy_M)
        return logprobs_M, entropy_M

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        grad_M = gradients[0]
        hidden_MH, weight_VH, bias_V, targets_M, log_z_M = ctx.saved_tensors
        head = Head(weight_VH, bias_V, ctx.scale, ctx.softcap)
        vocabulary = len(weight_VH)
        grad_hidden = torch.empty_like(hidden_MH)
        grad_weight: Tensor | None = None
        weighted = ctx.needs_input_grad[1]  # not where the head is frozen, as under adapters
        grad_bias = grad_M.new_zeros(vocabulary) if bias_V is not None and weighted else None
        for group in reversed(_chunks(0, len(targets_M), GRADIENT_ELEMENTS // vocabulary)):
            unit, ctx.kept = ctx.kept, None  # only the last group was kept, and it comes first
            if unit is None:
                unit = hidden_MH.new_empty(group.stop - group.start, vocabulary)
                for part in _chunks(group.start, group.stop, _rows_at_once(hidden_MH, head)):
                    place = unit[_moved(part, group)]
                    logits = _logits(hidden_MH[part], head, place)
                    place.copy_(_unit_gradient(logits, log_z_M[part], targets_M[part], head, ctx.temperature))
            # A row's gradient is grad_M times the unit one: the factor goes to the short side of both products.
            grad = grad_M[group, None].to(hidden_MH.dtype)
            torch.mm(unit, weight_VH, out=grad_hidden[group]).mul_(grad)
            if weighted:
                product, short = torch.empty_like(weight_VH), hidden_MH[group] * grad
                for some in _chunks(0, vocabulary, COLUMNS):
                    torch.mm(unit[:, some].t(), short, out=product[some])
                grad_weight = product if grad_weight is None else grad_weight.float().add_(product)
            if grad_bias is not None:
                grad_bias += (unit.t() @ grad)[:, 0]
        if weighted:
            grad_weight = torch.zeros_like(weight_VH) if grad_weight is None else grad_weight.mul_(head.scale)
            grad_weight = grad_weight.to(weight_VH.dtype)
        grad_bias = None if bias_V is None or grad_bias is None else grad_bias.to(bias_V.dtype)
        if head.scale != 1.0:
            grad_hidden = grad_hidden * head.scale
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def _is_plain(hidden: Tensor, head: Head) -> bool:
    """Whether nothing is done to the product of hidden states and weights, and C can read it as it is."""
    return head.scale == 1.0 and head.bias_V is None and head.softcap is None and native.kernels_for(hidden) is not None


def _rows_at_once(hidden: Tensor, head: Head) -> int:
    elements = PRODUCT_BYTES // hidden.element_size() if _is_plain(hidden, head) else CHUNK_ELEMENTS
    return elements // len(head.weight_VH)


def _logits(hidden: Tensor, head: Head, place: Tensor | None) -> Tensor:
    """Logits [M, V]: where they are the plain product in its type, in its place if it has one; else in float32."""
    if not _is_plain(hidden, head):
        return capped(hidden, head)
    return hidden @ head.weight_VH.t() if place is None else torch.mm(hidden, head.weight_VH.t(), out=place)


def _partition(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log sum of e^x and the entropy of softmax(x), x = logits / temperature; [M] in float32."""
    if (own := native.kernels_for(logits)) is not None:
        return own.partition(logits, temperature)
    most = logits.amax(-1, keepdim=True)
    below = _cooled(logits - most, temperature)
    weights = below.exp()
    total = weights.sum(-1)
    log_total = total.log()
    return most[:, 0] / temperature + log_total, log_total - torch.linalg.vecdot(weights, below) / total


def _cooled(x: Tensor, temperature: float) -> Tensor:
    """In place."""
    return x if temperature == 1.0 else x.div_(temperature)


def _unit_gradient(logits: Tensor, log_z: Tensor, targets: Tensor, head: Head, temperature: float) -> Tensor:
    """d logprob / d (h W') = (onehot(target) - softmax) slope / temperature; logits need not outlast it."""
    # d cap(x) / dx = 1 - (cap(x) / softcap)^2
    slope = None if head.softcap is None else 1 - (logits / head.softcap).square_()
    if (own := native.kernels_for(logits)) is not None:
        unit = own.unit_gradient(logits, log_z, targets, temperature)
    else:
        unit = _cooled(logits, temperature).sub_(log_z[:, None]).exp_().neg_()
        unit = _cooled(unit.scatter_add_(-1, targets[:, None], unit.new_ones(len(targets), 1)), temperature)
    return unit if slope is None else unit.mul_(slope)


def _moved(part: slice, group: slice) -> slice:
    """The place of a part within its group."""
    return slice(part.start - group.start, part.stop - group.start)


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
