"""Odds-ratio preference optimization: fine-tuning and preference in one loss, no reference. Suffix: _M pairs.

Odds are of the *mean* log-probability of an answer's tokens, m < 0: odds = e^m / (1 − e^m).
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tutelage.algorithms.shapes import require_same_shape


def log_odds(mean_logprob_M: Tensor) -> Tensor:
    """m − log(1 − e^m) (Hong et al. 2024, equation 4). [M]

    log(1 − e^m) keeps its digits at both ends (Mächler 2012); m is kept a hair below 0, where the odds end.
    """
    m = mean_logprob_M.clamp(max=-torch.finfo(mean_logprob_M.dtype).eps)
    near = m > -math.log(2)
    # The branch not taken is fed a harmless value, or its infinite gradient would spoil the other's.
    by_expm1 = (-m.masked_fill(~near, -1.0).expm1()).log()
    by_log1p = torch.log1p(-m.masked_fill(near, -1.0).exp())
    return m - torch.where(near, by_expm1, by_log1p)


def log_odds_ratio(chosen_mean_logprob_M: Tensor, rejected_mean_logprob_M: Tensor) -> Tensor:
    """log of odds(y_w|x) / odds(y_l|x) (Hong et al. 2024, equation 5). [M]"""
    require_same_shape(chosen_mean_logprob_M=chosen_mean_logprob_M, rejected_mean_logprob_M=rejected_mean_logprob_M)
    return log_odds(chosen_mean_logprob_M) - log_odds(rejected_mean_logprob_M)


def orpo_loss(chosen_mean_logprob_M: Tensor, rejected_mean_logprob_M: Tensor, odds_weight: float) -> Tensor:
    """−m_w − λ·log σ(log odds ratio): the chosen answer's NLL a token and the odds-ratio term (equations 6 and 7). [M]"""
    ratio_M = log_odds_ratio(chosen_mean_logprob_M, rejected_mean_logprob_M)
    return -chosen_mean_logprob_M - odds_weight * logsigmoid(ratio_M)
