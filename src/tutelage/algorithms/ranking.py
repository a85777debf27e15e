"""The reward model's losses on rankings: all pairs of a prompt form one batch element.

Scores of all completions lie end to end, scores_N [N], with offsets [P+1] of the P prompts. ranks_N [N]: 1 is
best, equal ranks tie, 0 or below is not ranked and takes no part. K is a prompt's number of *ranked* completions.
Every loss is [P], one number a prompt, 0 where a prompt has nothing to compare, times the prompt's weight where
weights_P is given (a labeler's, say); the caller divides by the number of prompts, or by the sum of the weights.
Suffixes: _N completions, _P prompts, _M pairs.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tutelage.algorithms.shapes import (
    logsumexp_by,
    require_no_empty,
    require_one_per_sequence,
    require_packed,
    require_same_shape,
    sequence_index,
    sum_by,
)

Pairs = tuple[Tensor, Tensor, Tensor]


def ordered_pairs(ranks_N: Tensor, offsets: Tensor) -> Pairs:
    """Every pair with a winner: index [M] of the better and [M] of the worse completion, and [M] their prompt."""
    first, second, prompt = _pairs_within(ranks_N, offsets)
    keep = ranks_N[first] < ranks_N[second]
    return first[keep], second[keep], prompt[keep]


def tied_pairs(ranks_N: Tensor, offsets: Tensor) -> Pairs:
    """Every tied pair once: index [M], index [M], and [M] their prompt."""
    first, second, prompt = _pairs_within(ranks_N, offsets)
    keep = (ranks_N[first] == ranks_N[second]) & (first < second)
    return first[keep], second[keep], prompt[keep]


def paper_pairs(ranks_N: Tensor, offsets: Tensor) -> Tensor:
    """C(K, 2) of each prompt, ties counted: the denominator the paper prints, though it drops ties. [P] int64

    The default: a prompt with ties then weighs less, as the fewer comparisons in it do.
    """
    require_packed(offsets, ranks_N=ranks_N)
    k = sum_by(sequence_index(offsets), (ranks_N > 0).long(), len(offsets) - 1)
    return k * (k - 1) // 2


def untied_pairs(ranks_N: Tensor, offsets: Tensor) -> Tensor:
    """Number of each prompt's pairs that are left when ties are dropped: the other denominator. [P] int64"""
    _, _, prompt = ordered_pairs(ranks_N, offsets)
    return torch.bincount(prompt, minlength=len(offsets) - 1)


def pairwise_loss(scores_N: Tensor, better: Tensor, worse: Tensor) -> Tensor:
    """−log σ(r_w − r_l) of each pair (Ouyang et al. 2022, equation 1, inside the sum; Bradley–Terry). [M]"""
    require_same_shape(better=better, worse=worse)
    return -logsigmoid(scores_N[better] - scores_N[worse])


def pairwise_ranking_loss(
    scores_N: Tensor,
    ranks_N: Tensor,
    offsets: Tensor,
    weights_P: Tensor | None = None,
    denominators: Callable[[Tensor, Tensor], Tensor] = paper_pairs,
) -> Tensor:
    """−1/D · Σ_{w>l} log σ(r_w − r_l), ties dropped, D = C(K, 2) (Ouyang et al. 2022, equation 1). [P]

    denominators: `paper_pairs` or `untied_pairs` of (ranks_N, offsets).
    """
    require_packed(offsets, scores_N=scores_N, ranks_N=ranks_N)
    better, worse, prompt = ordered_pairs(ranks_N, offsets)
    totals_P = sum_by(prompt, pairwise_loss(scores_N, better, worse), len(offsets) - 1)
    return _weighted(totals_P / denominators(ranks_N, offsets).clamp(min=1), weights_P, offsets)


def davidson_log_probabilities(difference_M: Tensor, nu: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log P of win, tie and loss for d = r_i − r_j (Davidson 1970). Each [M].

    win : tie : loss = e^{d/2} : ν : e^{−d/2}, ν > 0; P(tie) is largest at d = 0, where it is ν / (2 + ν).
    """
    log_nu = torch.as_tensor(nu, dtype=difference_M.dtype, device=difference_M.device).log()
    terms = torch.stack([difference_M / 2, log_nu.expand_as(difference_M), -difference_M / 2])
    win, tie, loss = terms.log_softmax(0)
    return win, tie, loss


def rao_kupper_log_probabilities(difference_M: Tensor, theta: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log P of win, tie and loss for d = r_i − r_j (Rao and Kupper 1967). Each [M].

    P(win) = σ(d − log θ), P(loss) = σ(−d − log θ), P(tie) = (θ² − 1)·P(win)·P(loss), θ > 1: the rest.
    """
    theta = torch.as_tensor(theta, dtype=difference_M.dtype, device=difference_M.device)
    win, loss = logsigmoid(difference_M - theta.log()), logsigmoid(-difference_M - theta.log())
    return win, (theta.square() - 1).log() + win + loss, loss


def davidson_loss(
    scores_N: Tensor,
    ranks_N: Tensor,
    offsets: Tensor,
    weights_P: Tensor | None = None,
    nu: float | Tensor = 1.0,
) -> Tensor:
    """−1/C(K, 2) · Σ log P over ordered *and tied* pairs, Davidson's model; a tie pulls scores together. [P]

    A tensor ν gets a gradient (give exp of the parameter, so that it stays positive).
    """
    loss_P = _loss_with_ties(scores_N, ranks_N, offsets, lambda d: davidson_log_probabilities(d, nu))
    return _weighted(loss_P, weights_P, offsets)


def rao_kupper_loss(
    scores_N: Tensor,
    ranks_N: Tensor,
    offsets: Tensor,
    weights_P: Tensor | None = None,
    theta: float | Tensor = 2.0,
) -> Tensor:
    """−1/C(K, 2) · Σ log P over ordered *and tied* pairs, Rao and Kupper's model; a tie pulls scores together. [P]

    A tensor θ gets a gradient (give 1 + exp of the parameter, so that it stays above 1).
    """
    loss_P = _loss_with_ties(scores_N, ranks_N, offsets, lambda d: rao_kupper_log_probabilities(d, theta))
    return _weighted(loss_P, weights_P, offsets)


def pick_best_loss(scores_N: Tensor, best_P: Tensor, offsets: Tensor) -> Tensor:
    """−log softmax(r)_best over a prompt's completions (Ziegler et al. 2019, equation 1). [P]

    best_P: index on the N axis of the completion that the labeler picked.
    """
    require_packed(offsets, scores_N=scores_N)
    require_one_per_sequence(offsets, best_P=best_P)
    require_no_empty(offsets)
    if bool((best_P < offsets[:-1]).any()) or bool((best_P >= offsets[1:]).any()):
        raise ValueError("best_P must index a completion of its own prompt on the N axis")
    return logsumexp_by(sequence_index(offsets), scores_N, len(offsets) - 1) - scores_N[best_P]


def plackett_luce_log_likelihood(scores_N: Tensor, ranks_N: Tensor, offsets: Tensor) -> Tensor:
    """Σ_k (r_k − log Σ_{j≥k} e^{r_j}) in rank order (Luce 1959; Plackett 1975). [P]

    The likelihood of the whole ranking, not the sum over pairs. It is not defined for ties: ValueError.
    """
    require_packed(offsets, scores_N=scores_N, ranks_N=ranks_N)
    if len(tied_pairs(ranks_N, offsets)[0]):
        raise ValueError("Plackett-Luce has no ties: give the ranked completions of a prompt different ranks")
    ranked = (ranks_N > 0).nonzero()[:, 0]
    better, worse, _ = ordered_pairs(ranks_N, offsets)
    # For each ranked completion, itself and those ranked below it, renumbered over the ranked ones.
    position = torch.zeros_like(ranks_N, dtype=torch.int64)
    position[ranked] = torch.arange(len(ranked), device=ranked.device)
    chosen = torch.cat([position[ranked], position[better]])
    alternatives_N = logsumexp_by(chosen, scores_N[torch.cat([ranked, worse])], len(ranked))
    prompt = sequence_index(offsets)[ranked]
    return sum_by(prompt, scores_N[ranked] - alternatives_N, len(offsets) - 1)


def pair_accuracy(scores_N: Tensor, better: Tensor, worse: Tensor) -> Tensor:
    """1 where the better completion scores higher, ½ where the two scores are equal, else 0. [M]"""
    require_same_shape(better=better, worse=worse)
    difference_M = (scores_N[better] - scores_N[worse]).detach()
    return torch.heaviside(difference_M, difference_M.new_tensor(0.5))


def _loss_with_ties(
    scores_N: Tensor,
    ranks_N: Tensor,
    offsets: Tensor,
    log_probabilities: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
) -> Tensor:
    require_packed(offsets, scores_N=scores_N, ranks_N=ranks_N)
    count = len(offsets) - 1
    better, worse, prompt = ordered_pairs(ranks_N, offsets)
    first, second, tied_prompt = tied_pairs(ranks_N, offsets)
    win_M, _, _ = log_probabilities(scores_N[better] - scores_N[worse])
    _, tie_M, _ = log_probabilities(scores_N[first] - scores_N[second])
    totals_P = sum_by(prompt, win_M, count) + sum_by(tied_prompt, tie_M, count)
    return -totals_P / paper_pairs(ranks_N, offsets).clamp(min=1)


def _weighted(loss_P: Tensor, weights_P: Tensor | None, offsets: Tensor) -> Tensor:
    if weights_P is None:
        return loss_P
    require_one_per_sequence(offsets, weights_P=weights_P)
    return loss_P * weights_P


def _pairs_within(ranks_N: Tensor, offsets: Tensor) -> Pairs:
    """Both orders of every pair of different ranked completions of one prompt; Σ K² rows, not N²."""
    require_packed(offsets, ranks_N=ranks_N)
    prompt_N = sequence_index(offsets)
    partners_N = offsets.diff()[prompt_N]
    first = torch.arange(len(ranks_N), device=offsets.device).repeat_interleave(partners_N)
    starts = partners_N.cumsum(0) - partners_N
    within = torch.arange(len(first), device=offsets.device) - starts[first]
    prompt = prompt_N[first]
    second = offsets[prompt] + within
    keep = (first != second) & (ranks_N[first] > 0) & (ranks_N[second] > 0)
    return first[keep], second[keep], prompt[keep]
