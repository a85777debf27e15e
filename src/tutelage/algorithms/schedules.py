"""Learning-rate schedules as pure functions of the step: a multiplier of the peak rate."""

import math


def cosine(step: int, total: int, warmup: int = 0, final: float = 0.1) -> float:
    """Linear from 0 over `warmup` steps, then cosine from 1 to `final` at `total` (the paper: final 0.1)."""
    if step < warmup:
        return (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, total - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * share))


def constant_after_warmup(step: int, warmup: int, start: float = 0.1) -> float:
    """Linear from `start` to 1 over `warmup` steps, then constant (PPO in the paper: 10 steps from 1/10)."""
    return start + (1 - start) * min(1.0, step / warmup) if warmup else 1.0
