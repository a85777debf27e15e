"""Labels that a language model gives, as probabilities (Constitutional AI, Bai et al. 2022, arXiv 2212.08073).

Suffixes: _M comparisons of two answers, (A) and (B).
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tutelage.algorithms.shapes import require_same_shape


def choice_probability(logprob_a_M: Tensor, logprob_b_M: Tensor) -> Tensor:
    """e^{l_A} / (e^{l_A} + e^{l_B}): the options' probabilities, normalized over the two (section 4.1). [M]"""
    require_same_shape(logprob_a_M=logprob_a_M, logprob_b_M=logprob_b_M)
    return torch.sigmoid(logprob_a_M - logprob_b_M)


def both_orders_probability(first_M2: Tensor, second_M2: Tensor) -> Tensor:
    """P(x better) of option log-probs asked in both orders, ½ the sum of the log-odds. [M]

    first_M2: log-probs of (A), (B) with x as (A); second_M2: with x as (B). A constant liking for a letter cancels.
    Not in the paper, which asks once.
    """
    require_same_shape(first_M2=first_M2, second_M2=second_M2)
    first_M = first_M2[:, 0] - first_M2[:, 1]
    second_M = second_M2[:, 1] - second_M2[:, 0]
    return torch.sigmoid((first_M + second_M) / 2)


def clamped(probability_M: Tensor, low: float) -> Tensor:
    """min(max(p, low), 1 − low): after a chain of thought p is nearly 0 or 1; the paper clamps to 0.4–0.6. [M]"""
    if not 0 <= low <= 0.5:
        raise ValueError(f"expected 0 <= low <= 0.5, got {low}")
    return probability_M.clamp(low, 1 - low)


def soft_pairwise_loss(difference_M: Tensor, probability_M: Tensor) -> Tensor:
    """−(p log σ(d) + (1 − p) log σ(−d)), d = r_1 − r_2: Bradley–Terry with a soft label, p = P(first better). [M]

    With p = 1 it is −log σ(d). Its minimum over d is the entropy of p, at d = log(p / (1 − p)).
    """
    require_same_shape(difference_M=difference_M, probability_M=probability_M)
    return -(probability_M * logsigmoid(difference_M) + (1 - probability_M) * logsigmoid(-difference_M))
