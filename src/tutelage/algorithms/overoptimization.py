"""Gold reward as a function of d = √KL (Gao, Schulman and Hilton 2022, section 3)."""

import math


def best_of_n_form(d: float, alpha: float, beta: float) -> float:
    """R_bon(d) = d (α − β d)."""
    return d * (alpha - beta * d)


def rl_form(d: float, alpha: float, beta: float) -> float:
    """R_RL(d) = d (α − β log d), and 0 at 0."""
    return d * (alpha - beta * math.log(d)) if d > 0 else 0.0


def best_of_n_peak(alpha: float, beta: float) -> tuple[float, float]:
    """(d*, R*) = (α / 2β, α² / 4β)."""
    return alpha / (2 * beta), alpha**2 / (4 * beta)


def rl_peak(alpha: float, beta: float) -> tuple[float, float]:
    """(d*, R*) = (e^{α/β − 1}, β d*)."""
    d = math.exp(alpha / beta - 1)
    return d, beta * d
