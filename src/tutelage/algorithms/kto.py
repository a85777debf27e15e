"""Kahneman-Tversky optimization: single answers with a thumb up or down, no pairs. Suffix: _N answers."""

import torch
from torch import Tensor

from tutelage.algorithms.shapes import require_same_shape


def kl_baseline(mismatched_log_ratio_N: Tensor) -> Tensor:
    """z_0 = max(0, mean of log π − log π_ref over prompts with *another* prompt's answer), no gradient. []

    (Ethayarajh et al. 2024, section 4.1.) Two pairs or more: one alone is no estimate.
    """
    if len(mismatched_log_ratio_N) < 2:
        raise ValueError(f"the baseline needs two mismatched pairs, got {len(mismatched_log_ratio_N)}")
    return mismatched_log_ratio_N.detach().mean().clamp(min=0)


def kto_loss(
    log_ratio_N: Tensor,
    desirable_N: Tensor,
    baseline: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """λ_D·(1 − σ(β(k − z_0))) for a thumb up, λ_U·(1 − σ(β(z_0 − k))) for one down (Ethayarajh et al. 2024,
    section 4.1: λ_y − v(x, y)). [N]

    k = log_ratio_N, sums over tokens; z_0 = baseline. The paper advises λ_D·n_D / (λ_U·n_U) in [1, 4/3].
    """
    require_same_shape(log_ratio_N=log_ratio_N, desirable_N=desirable_N)
    if desirable_N.dtype != torch.bool:
        raise ValueError(f"desirable_N must be bool, got {desirable_N.dtype}")
    gain_N = beta * (log_ratio_N - baseline)
    up_N = desirable_weight * (1 - gain_N.sigmoid())
    down_N = undesirable_weight * (1 - (-gain_N).sigmoid())
    return torch.where(desirable_N, up_N, down_N)
