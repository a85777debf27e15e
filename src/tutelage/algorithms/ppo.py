"""Proximal policy optimization's losses (Schulman et al. 2017), per token and unreduced, and PPO-ptx.

Suffix: _T response tokens. No statistic carries a gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.algorithms.shapes import require_same_shape


def clipped_policy_loss(logprobs_T: Tensor, old_logprobs_T: Tensor, advantages_T: Tensor, clip: float) -> Tensor:
    """max(−A·ρ, −A·clip(ρ, 1−ε, 1+ε)), ρ = exp(log π − log π_old) (Schulman et al. 2017, equation 7, negated). [T]"""
    require_same_shape(logprobs_T=logprobs_T, old_logprobs_T=old_logprobs_T, advantages_T=advantages_T)
    ratio_T = (logprobs_T - old_logprobs_T).exp()
    return torch.maximum(-advantages_T * ratio_T, -advantages_T * ratio_T.clamp(1 - clip, 1 + clip))


def clipped_value_loss(values_T: Tensor, old_values_T: Tensor, returns_T: Tensor, clip: float) -> Tensor:
    """½ max((V − R)², (V_old + clip(V − V_old, −ε, ε) − R)²) (Ziegler et al. 2019, released code). [T]"""
    require_same_shape(values_T=values_T, old_values_T=old_values_T, returns_T=returns_T)
    clipped_T = old_values_T + (values_T - old_values_T).clamp(-clip, clip)
    return 0.5 * torch.maximum((values_T - returns_T).square(), (clipped_T - returns_T).square())


def ptx_objective(policy_loss: Tensor, pretraining_loss: Tensor, ptx_coef: float) -> Tensor:
    """L = L_policy + γ·L_pretraining (Ouyang et al. 2022, equation 2, negated). []

    Both losses are already reduced, pretraining_loss to the mean −log π(x); the gradient is the policy's plus γ
    times the pretraining one, so the two may also be computed one after the other and summed. The paper's
    γ = 27.8 belongs to its own, unstated reductions.
    """
    if policy_loss.dim() or pretraining_loss.dim():
        shapes = f"{list(policy_loss.shape)} and {list(pretraining_loss.shape)}"
        raise ValueError(f"both losses must be reduced to one number, got {shapes}")
    return policy_loss + ptx_coef * pretraining_loss


class RatioStatistics(NamedTuple):
    """How far an update has moved the policy from the one that sampled: four numbers, means over tokens."""

    clip_fraction: Tensor
    approximate_kl: Tensor
    ratio_mean: Tensor
    ratio_variance: Tensor


def approximate_kl(logprobs_T: Tensor, old_logprobs_T: Tensor) -> Tensor:
    """½ (log π − log π_old)², nats: k2 against the policy that sampled. [T]"""
    require_same_shape(logprobs_T=logprobs_T, old_logprobs_T=old_logprobs_T)
    return 0.5 * (logprobs_T - old_logprobs_T).detach().square()


def clip_fraction(logprobs_T: Tensor, old_logprobs_T: Tensor, clip: float) -> Tensor:
    """Share of tokens with |ρ − 1| > ε, whatever the advantage's sign. []"""
    require_same_shape(logprobs_T=logprobs_T, old_logprobs_T=old_logprobs_T)
    ratio_T = (logprobs_T - old_logprobs_T).detach().exp()
    return ((ratio_T - 1).abs() > clip).to(ratio_T.dtype).mean()


def ratio_statistics(logprobs_T: Tensor, old_logprobs_T: Tensor, clip: float) -> RatioStatistics:
    """Clip fraction, ½ mean (Δ log π)² in nats, and mean and population variance of ρ. Each [], no gradient."""
    require_same_shape(logprobs_T=logprobs_T, old_logprobs_T=old_logprobs_T)
    ratio_T = (logprobs_T - old_logprobs_T).detach().exp()
    return RatioStatistics(
        clip_fraction=clip_fraction(logprobs_T, old_logprobs_T, clip),
        approximate_kl=approximate_kl(logprobs_T, old_logprobs_T).mean(),
        ratio_mean=ratio_T.mean(),
        ratio_variance=ratio_T.var(correction=0),
    )
