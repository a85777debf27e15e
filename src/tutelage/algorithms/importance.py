"""Weights of tokens, or of whole answers, that an older or another policy drew."""

import torch
from torch import Tensor

from tutelage.algorithms.shapes import require_packed, sequence_index, sum_by


def truncated_importance_weights(logprobs_T: Tensor, sampled_T: Tensor, cap: float) -> Tensor:
    """w_t = min(pi(a_t | s_t) / mu(a_t | s_t), cap), no gradient. [T]

    logprobs_T under the policy that is trained, before the update; sampled_T under mu, which drew the tokens (older
    weights, or a sampler that rounds otherwise). Truncation bounds the variance at the price of a bias towards mu.
    Ionides 2008; rho-bar of V-trace (Espeholt et al. 2018, arXiv 1802.01561, equation 1).
    """
    if logprobs_T.shape != sampled_T.shape or logprobs_T.dim() != 1:
        raise ValueError(f"logprobs {tuple(logprobs_T.shape)} and sampled {tuple(sampled_T.shape)} are not [T] both")
    return (logprobs_T - sampled_T).exp().clamp(max=cap).detach()


def answer_importance_weights(logprobs_T: Tensor, sampled_T: Tensor, offsets: Tensor, cap: float) -> Tensor:
    """w(y) = min(pi(y | x) / mu(y | x), cap) of each answer, on each of its tokens, no gradient. [T]

    For losses whose action is a whole answer: the same formula, of sums over the answer's tokens. offsets [N+1].
    """
    require_packed(offsets, logprobs_T=logprobs_T, sampled_T=sampled_T)
    index = sequence_index(offsets)
    gap_N = sum_by(index, (logprobs_T - sampled_T).detach(), len(offsets) - 1)
    return truncated_importance_weights(gap_N, torch.zeros_like(gap_N), cap)[index]
