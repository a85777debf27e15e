"""Token rewards, generalized advantage estimation and whitening, on packed sequences.

Suffixes: _T response tokens of all sequences end to end, _N sequences; offsets [N+1].
"""

import torch
from torch import Tensor


def token_rewards(
    logprobs_T: Tensor, reference_logprobs_T: Tensor, scores_N: Tensor, offsets: Tensor, kl_coef: float
) -> Tensor:
    """R_t = −β (log π − log π_ref)_t + [t = last]·r(x, y) (Ouyang et al. 2022, equation 2, as tokens). [T]"""
    _check(logprobs_T, offsets)
    _check(reference_logprobs_T, offsets)
    if len(scores_N) != len(offsets) - 1:
        raise ValueError(f"{len(scores_N)} scores for {len(offsets) - 1} sequences")
    rewards_T = -kl_coef * (logprobs_T - reference_logprobs_T)
    return rewards_T.index_add(0, offsets[1:] - 1, scores_N)


def penalize_missing_eos(scores_N: Tensor, ended_N: Tensor, penalty: float) -> Tensor:
    """r − penalty for an answer without its end token: a truncated answer is not a success (Huang et al. 2024)."""
    if scores_N.shape != ended_N.shape:
        raise ValueError("one `ended` for each score")
    return torch.where(ended_N, scores_N, scores_N - penalty)


def gae(rewards_T: Tensor, values_T: Tensor, offsets: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages [T] and returns [T] (Schulman et al. 2016, equations 11 and 16).

    δ_t = R_t + γ V_{t+1} − V_t with V after the last token 0; A_t = δ_t + γλ A_{t+1}; return = A + V.
    V_t is the value of the state before token t. Returns use unwhitened advantages.
    """
    _check(rewards_T, offsets)
    _check(values_T, offsets)
    lengths = offsets.diff()
    last = offsets[1:] - 1
    next_values_T = torch.cat([values_T[1:], values_T.new_zeros(1)])
    next_values_T[last] = 0.0
    deltas_T = rewards_T + gamma * next_values_T - values_T
    advantages_T = torch.zeros_like(deltas_T)
    carried_N = deltas_T.new_zeros(len(lengths))
    # From the end, all sequences at once: step k handles the k-th token from each sequence's end.
    for back in range(int(lengths.max())):
        alive = lengths > back
        index = last[alive] - back
        carried = deltas_T[index] + gamma * lam * carried_N[alive]
        carried_N[alive] = carried
        advantages_T[index] = carried
    return advantages_T, advantages_T + values_T


def whiten(values_T: Tensor) -> Tensor:
    """(x − mean) / std with the population variance (Huang et al. 2022, detail 16)."""
    return (values_T - values_T.mean()) / (values_T.var(unbiased=False) + 1e-8).sqrt()


def explained_variance(values_T: Tensor, returns_T: Tensor) -> Tensor:
    """1 − Var(returns − values) / Var(returns); 1 is a perfect value model, below 0 worse than a constant."""
    return 1 - (returns_T - values_T).var(unbiased=False) / returns_T.var(unbiased=False).clamp(min=1e-8)


def _check(values_T: Tensor, offsets: Tensor) -> None:
    if values_T.dim() != 1 or len(values_T) != int(offsets[-1]):
        raise ValueError(f"expected [{int(offsets[-1])}] packed values, got {tuple(values_T.shape)}")
    if bool((offsets.diff() <= 0).any()):
        raise ValueError("every sequence needs a token")
