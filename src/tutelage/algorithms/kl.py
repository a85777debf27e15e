"""KL divergence between policy and reference: three estimators, the exact value, the adaptive coefficient.

With L = log π_ref − log π at tokens sampled from π (Schulman, "Approximating KL divergence", 2020):
k1 = −L, k2 = L²/2, k3 = e^L − 1 − L. As *losses* they differ (no gradient flows through sampling):
E ∇k1 = 0, E ∇k2 = ∇KL(π ‖ π_ref), E ∇k3 = ∇KL(π_ref ‖ π). InstructGPT puts k1 into the reward.
"""

import torch
from torch import Tensor

from tutelage.algorithms.shapes import require_packed, require_same_shape, sequence_index, sum_by


def k1(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """log π − log π_ref: unbiased for KL(π ‖ π_ref); single values may be negative. Nats. [T]"""
    require_same_shape(logprobs_T=logprobs_T, reference_logprobs_T=reference_logprobs_T)
    return logprobs_T - reference_logprobs_T


def k2(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """(log π − log π_ref)² / 2: biased, low variance, never negative. Nats. [T]"""
    return k1(logprobs_T, reference_logprobs_T).square() / 2


def k3(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """e^L − 1 − L with L = log π_ref − log π: unbiased and never negative. Nats. [T]

    Its variance explodes where π_ref is much larger than π on rare samples.
    """
    log_ratio_T = -k1(logprobs_T, reference_logprobs_T)
    # expm1 keeps the digits that e^L − 1 loses near L = 0, where a policy starts.
    return log_ratio_T.expm1() - log_ratio_T


def exact_kl(logprobs_V: Tensor, reference_logprobs_V: Tensor) -> Tensor:
    """Σ_v π(v)·(log π(v) − log π_ref(v)) over the last axis; [..., V] log-probabilities -> [...] nats.

    Terms with π(v) = 0 are 0; infinite where π_ref(v) = 0 and π(v) > 0.
    """
    require_same_shape(logprobs_V=logprobs_V, reference_logprobs_V=reference_logprobs_V)
    impossible = logprobs_V == -torch.inf
    # Both are filled before the product, or 0·∞ gives NaN in the value or the gradient.
    log_ratio = logprobs_V.masked_fill(impossible, 0.0) - reference_logprobs_V.masked_fill(impossible, 0.0)
    return (logprobs_V.exp() * log_ratio).sum(-1)


def sequence_kl(k_T: Tensor, offsets: Tensor) -> Tensor:
    """Sum of a per-token estimate over each sequence: [T], [N+1] -> [N] nats a sequence."""
    require_packed(offsets, k_T=k_T)
    return sum_by(sequence_index(offsets), k_T, len(offsets) - 1)


def mean_and_standard_error(values_N: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and s/√N with the sample standard deviation s, of independent values; one value: NaN as its error."""
    if values_N.dim() != 1 or len(values_N) == 0:
        raise ValueError(f"expected [N] values with N >= 1, got {list(values_N.shape)}")
    count = len(values_N)
    error = values_N.std(correction=1) / count**0.5 if count > 1 else torch.full_like(values_N[0], torch.nan)
    return values_N.mean(), error


def adaptive_kl_coef(coef: float, kl: float, n_episodes: int, target: float, horizon: float) -> float:
    """β ← β·(1 + e·n/horizon), e = clip(KL/target − 1, −0.2, 0.2) (Ziegler et al. 2019, section 2.2, as released).

    kl: this iteration's mean over sequences of the summed k1, nats. n_episodes: its number of sequences.
    The paper prints a constant gain of 0.1 for n/horizon; the released code has n/horizon with horizon 10 000.
    A fixed β is the same loop without this call.
    """
    if not (target > 0 and horizon > 0):
        raise ValueError(f"target and horizon must be positive, got {target} and {horizon}")
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return coef * (1.0 + error * n_episodes / horizon)
