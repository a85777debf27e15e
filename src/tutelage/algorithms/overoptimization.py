"""Gold score as a function of d = √KL(π ‖ π_init), d in √nats (Gao, Schulman and Hilton 2022, section 3).

Fits, not laws: made for d well above 0, noiseless labels and gold scores that start at 0.
"""

import math


def best_of_n_form(d: float, alpha: float, beta: float) -> float:
    """R_bon(d) = d·(α − β·d)."""
    _require_distance(d)
    return d * (alpha - beta * d)


def rl_form(d: float, alpha: float, beta: float) -> float:
    """R_RL(d) = d·(α − β·log d), and its limit 0 at d = 0."""
    _require_distance(d)
    return d * (alpha - beta * math.log(d)) if d > 0 else 0.0


def best_of_n_peak(alpha: float, beta: float) -> tuple[float, float]:
    """(d*, R*) = (α/2β, α²/4β), where more optimization starts to hurt."""
    _require_over_optimization(beta)
    return alpha / (2 * beta), alpha**2 / (4 * beta)


def rl_peak(alpha: float, beta: float) -> tuple[float, float]:
    """(d*, R*) = (e^{α/β − 1}, β·d*), where more optimization starts to hurt."""
    _require_over_optimization(beta)
    d = math.exp(alpha / beta - 1)
    return d, beta * d


def _require_distance(d: float) -> None:
    if d < 0:
        raise ValueError(f"d is a root of a KL and cannot be {d}")


def _require_over_optimization(beta: float) -> None:
    if beta <= 0:
        raise ValueError(f"without a positive beta the score has no peak, got {beta}")
