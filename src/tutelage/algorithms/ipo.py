"""Identity preference optimization: a regression of the margin to a finite target. Suffix: _M pairs."""

from torch import Tensor

from tutelage.algorithms.dpo import margin


def ipo_loss(chosen_log_ratio_M: Tensor, rejected_log_ratio_M: Tensor, tau: float) -> Tensor:
    """(h − 1/(2τ))², h the margin of the log-ratios (Azar et al. 2024, equation 17). [M]

    The target is finite, so that a pair that is always won does not drive the policy off. The paper does not say
    whether log-ratios are sums over tokens (the DPO authors' code) or means (what its authors told TRL they
    used): the caller chooses, and the useful τ moves by about the length of an answer.
    """
    if tau <= 0:
        raise ValueError(f"tau must be positive, got {tau}")
    return (margin(chosen_log_ratio_M, rejected_log_ratio_M) - 1 / (2 * tau)).square()
