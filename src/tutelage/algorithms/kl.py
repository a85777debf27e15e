"""KL divergence between policy and reference: estimators, the exact value, the adaptive coefficient.

With L = log(pi_ref / pi) at tokens sampled from pi (Schulman, "Approximating KL divergence", 2020):
k1 = -L (unbiased, signed), k2 = L^2/2 (biased, low variance), k3 = e^L - 1 - L (unbiased, not negative).

Suffixes: _T tokens, _N sequences.
"""

import torch
from torch import Tensor


def k1(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """[T] log π − log π_ref: unbiased for KL(π ‖ π_ref); single values may be negative."""
    _same_shape(logprobs_T, reference_logprobs_T)
    return logprobs_T - reference_logprobs_T


def k2(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """[T] (log π − log π_ref)² / 2: biased, low variance."""
    return k1(logprobs_T, reference_logprobs_T).square() / 2


def k3(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """[T] e^L − 1 − L with L = log π_ref − log π: unbiased and never negative."""
    log_ratio = -k1(logprobs_T, reference_logprobs_T)
    return log_ratio.expm1() - log_ratio


def exact_kl(probabilities: Tensor, reference_probabilities: Tensor) -> Tensor:
    """Σ p log(p/q) over the last axis; terms with p = 0 are 0."""
    _same_shape(probabilities, reference_probabilities)
    return torch.special.xlogy(probabilities, probabilities / reference_probabilities).sum(-1)


def adaptive_kl_coef(coef: float, kl: float, episodes: int, target: float, horizon: float) -> float:
    """β ← β·(1 + clip(KL/target − 1, ±0.2)·n/horizon) (Ziegler et al. 2019, section 2.2, as released).

    kl: mean over sequences of the summed per-token KL, nats. episodes: n of this iteration.
    """
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return coef * (1.0 + error * episodes / horizon)


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")
