"""Exponential moving average of weights (Ouyang et al. 2022, appendix C: decay 0.992)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.algorithms.shapes import require_same_shape


@torch.no_grad()
def ema_update(averages: Sequence[Tensor], weights: Sequence[Tensor], decay: float) -> None:
    """a ← d·a + (1 − d)·w for every pair, in place; the averages keep their dtype.

    Keep the averages in float32: bfloat16 rounds most steps of (1 − d) = 0.008 away.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), got {decay}")
    if len(averages) != len(weights):
        raise ValueError(f"{len(averages)} averages for {len(weights)} weights")
    for average, weight in zip(averages, weights, strict=True):
        require_same_shape(average=average, weight=weight)
        average.lerp_(weight.to(average), 1 - decay)


def ema_half_life(decay: float) -> float:
    """log ½ / log d: updates until a weight's share in the average has halved."""
    return math.log(0.5) / math.log(decay)
