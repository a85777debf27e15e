"""Proximal policy optimization's losses (Schulman et al. 2017), per token and unreduced.

Suffix: _T response tokens.
"""

import torch
from torch import Tensor


def clipped_policy_loss(logprobs_T: Tensor, old_logprobs_T: Tensor, advantages_T: Tensor, clip: float) -> Tensor:
    """max(−A·ρ, −A·clip(ρ, 1−ε, 1+ε)) with ρ = exp(log π − log π_old) (equation 7). [T]"""
    if not logprobs_T.shape == old_logprobs_T.shape == advantages_T.shape:
        raise ValueError("log-probabilities and advantages must have one shape")
    ratio_T = (logprobs_T - old_logprobs_T).exp()
    return torch.maximum(-advantages_T * ratio_T, -advantages_T * ratio_T.clamp(1 - clip, 1 + clip))


def clipped_value_loss(values_T: Tensor, old_values_T: Tensor, returns_T: Tensor, clip: float) -> Tensor:
    """½ max((V − R)², (V_old + clip(V − V_old, ±ε) − R)²) (Ziegler et al. 2019's code). [T]"""
    if not values_T.shape == old_values_T.shape == returns_T.shape:
        raise ValueError("values and returns must have one shape")
    clipped_T = old_values_T + (values_T - old_values_T).clamp(-clip, clip)
    return 0.5 * torch.maximum((values_T - returns_T).square(), (clipped_T - returns_T).square())


def approximate_kl(logprobs_T: Tensor, old_logprobs_T: Tensor) -> Tensor:
    """½ (log π − log π_old)²: how far an update has moved. [T]"""
    return 0.5 * (logprobs_T - old_logprobs_T).square()


def clip_fraction(logprobs_T: Tensor, old_logprobs_T: Tensor, clip: float) -> Tensor:
    """Share of tokens whose ratio left [1−ε, 1+ε]."""
    ratio_T = (logprobs_T - old_logprobs_T).exp()
    return ((ratio_T - 1).abs() > clip).float().mean()
