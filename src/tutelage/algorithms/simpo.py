"""Simple preference optimization: mean log-probabilities with a target margin, no reference. Suffix: _M pairs."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from tutelage.algorithms.shapes import require_same_shape


def simpo_loss(
    chosen_mean_logprob_M: Tensor, rejected_mean_logprob_M: Tensor, beta: float, target_margin: float
) -> Tensor:
    """−log σ(β·(m_w − m_l) − γ), m the mean log-probability of an answer's tokens (Meng et al. 2024, equation 6). [M]

    target_margin is γ, in units of the reward β·m. Nothing holds the policy near its start but the step size.
    """
    require_same_shape(chosen_mean_logprob_M=chosen_mean_logprob_M, rejected_mean_logprob_M=rejected_mean_logprob_M)
    return -logsigmoid(beta * (chosen_mean_logprob_M - rejected_mean_logprob_M) - target_margin)
