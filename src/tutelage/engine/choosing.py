"""How the next token is drawn from logits: temperature, top-k, top-p, min-p, one uniform number a row.

Suffixes: B rows, V vocabulary, C blocks of the vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from tutelage.engine.native import kernels

BLOCK = 256  # tokens whose weights are summed before the cumulative sum: it runs over V / 256 numbers, then 256
AT_ONCE = 2**18  # weights made together: they stay near the processor, and in memory that it has touched
AT_ONCE_ON_GPU = 2**26  # there a part more is launches more
LIKELY = 512  # top-p looks at this many tokens before it sorts the whole vocabulary


@dataclass(frozen=True)
class SamplingParams:
    """How to sample. temperature 0 is greedy; top_p 1, top_k 0 and min_p 0 keep the whole distribution.

    min_p drops tokens less likely than min_p times the likeliest. A row ends where its text holds one of `stop`.
    Before min_new_tokens tokens it does not end, by an end token or by a string.
    """

    max_new_tokens: int = 256
    min_new_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether tokens are drawn from all of the distribution."""
        return self.temperature > 0 and self.top_p >= 1 and self.top_k <= 0 and self.min_p <= 0


def choose(logits: Tensor, uniform: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Next token [B] by inverse transform of one uniform number a row, and its log-probability [B].

    logits: [B, V]. The log-probability is that of the distribution at this temperature, before tokens are
    left out. A row's token depends on its own logits and number only.
    """
    if logits.device.type == "cpu" and params.whole and (native := kernels(logits.dtype)) is not None:
        return native.draw(logits, uniform.contiguous(), params.temperature)
    at_once = AT_ONCE if logits.device.type == "cpu" else AT_ONCE_ON_GPU
    rows = max(1, at_once // logits.shape[-1])
    some = [_choose(*part, params) for part in zip(logits.split(rows), uniform.split(rows), strict=True)]
    return torch.cat([tokens for tokens, _ in some]), torch.cat([logprobs for _, logprobs in some])


def _choose(logits: Tensor, uniform: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    if params.temperature == 0:
        tokens = logits.argmax(-1)
        weights = logits.softmax(-1, dtype=torch.float32)
        return tokens, weights.gather(-1, tokens[:, None])[:, 0].log()
    if params.temperature != 1:
        logits = logits.float() / params.temperature
    weights = logits.softmax(-1, dtype=torch.float32)
    kept = _kept(weights, params)
    tokens = _inverse_transform(kept, uniform)
    return tokens, weights.gather(-1, tokens[:, None])[:, 0].log()


def _kept(weights: Tensor, params: SamplingParams) -> Tensor:
    """The weights with what top-k, top-p (of what top-k left) and min-p leave out set to 0."""
    vocabulary = weights.shape[-1]
    if 0 < params.top_k < vocabulary:
        top = weights.topk(params.top_k, dim=-1)
        weights = torch.zeros_like(weights).scatter_(-1, top.indices, top.values)
    if params.top_p < 1:
        weights = _nucleus(weights, params.top_p)
    if params.min_p > 0:
        weights = weights.masked_fill(weights < params.min_p * weights.amax(-1, keepdim=True), 0)
    return weights


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """The fewest likeliest tokens whose share reaches top_p; the whole vocabulary is sorted only for flat rows."""
    target = top_p * weights.sum(-1, keepdim=True)
    ordered, order = weights.topk(min(LIKELY, weights.shape[-1]), dim=-1)
    flat = (ordered.sum(-1) < target[:, 0]).nonzero()[:, 0]
    ordered[ordered.cumsum(-1) - ordered >= target] = 0
    kept = torch.zeros_like(weights).scatter_(-1, order, ordered)
    if len(flat):
        ordered, order = weights[flat].sort(-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= target[flat]] = 0
        kept[flat] = torch.zeros_like(ordered).scatter_(-1, order, ordered)
    return kept


def _inverse_transform(weights: Tensor, uniform: Tensor) -> Tensor:
    """The first token at which the cumulative weight passes uniform * total, found by blocks."""
    if weights.shape[-1] % BLOCK:
        weights = pad(weights, (0, -weights.shape[-1] % BLOCK))
    blocks = weights.unflatten(-1, (-1, BLOCK))  # [B, C, BLOCK]
    sums = blocks.sum(-1).double().cumsum(-1)
    point = uniform[:, None].double() * sums[:, -1:]
    block = torch.searchsorted(sums, point, right=True).clamp_(max=sums.shape[-1] - 1)
    before = pad(sums, (1, 0)).gather(-1, block)
    inner = blocks[torch.arange(len(blocks), device=blocks.device), block[:, 0]].double().cumsum(-1)
    # The block's sum in float32 may exceed its cumulative sum: stay below the latter, on a token with weight.
    rest = torch.minimum(point - before, inner[:, -1:] * (1 - 1e-12))
    place = torch.searchsorted(inner, rest, right=True).clamp_(max=BLOCK - 1)
    return (block * BLOCK + place)[:, 0]
