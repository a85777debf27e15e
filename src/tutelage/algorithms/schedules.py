"""Learning-rate schedules: pure functions from the step (counted from 0) to a multiplier of the peak rate.

`total` counts warm-up steps too. Warm-up from nothing gives (step + 1) / warmup, so that no step is lost at rate 0.
"""

import math


def cosine_to_fraction(step: int, total: int, warmup: int = 0, final_fraction: float = 0.1) -> float:
    """Warm-up, then f + (1 − f)·(1 + cos πs)/2 with s from 0 to 1 at `total`, f after (Ouyang et al. 2022: f = 0.1)."""
    if step < warmup:
        return (step + 1) / warmup
    cosine = (1 + math.cos(math.pi * _share_after_warmup(step, total, warmup))) / 2
    return final_fraction + (1 - final_fraction) * cosine


def linear_to_fraction(step: int, total: int, warmup: int = 0, final_fraction: float = 0.0) -> float:
    """Warm-up, then 1 − (1 − f)·s with s from 0 to 1 at `total`, f after (Ziegler et al. 2019: f = 0)."""
    if step < warmup:
        return (step + 1) / warmup
    return 1 - (1 - final_fraction) * _share_after_warmup(step, total, warmup)


def constant_after_warmup(step: int, warmup: int, start_fraction: float = 0.1) -> float:
    """Linear from `start_fraction` at step 0 to 1 at step `warmup`, then 1 (PPO in Ouyang et al. 2022: 10 from 0.1)."""
    return start_fraction + (1 - start_fraction) * min(1.0, step / warmup) if warmup > 0 else 1.0


def _share_after_warmup(step: int, total: int, warmup: int) -> float:
    return min(1.0, (step - warmup) / max(1, total - warmup))
