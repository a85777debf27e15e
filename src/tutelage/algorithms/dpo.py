"""Direct preference optimization: a classification loss in place of a reward model and reinforcement learning.

A log-ratio is log π(y|x) − log π_ref(y|x), the *sum* over an answer's tokens, end token included (divide both
log-ratios of a pair by their numbers of tokens for the length-normalized variant). β times it is the implicit
reward. At the start every log-ratio is 0 and the loss log 2.
Suffixes: _M pairs, _N answers.
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from tutelage.algorithms.shapes import require_same_shape


def implicit_reward(log_ratio_N: Tensor, beta: float) -> Tensor:
    """β·(log π − log π_ref): the reward up to a function of the prompt (Rafailov et al. 2023, equation 5). [N]"""
    return beta * log_ratio_N.detach()


def margin(chosen_log_ratio_M: Tensor, rejected_log_ratio_M: Tensor) -> Tensor:
    """h = (log π − log π_ref)(y_w) − (log π − log π_ref)(y_l). [M]"""
    require_same_shape(chosen_log_ratio_M=chosen_log_ratio_M, rejected_log_ratio_M=rejected_log_ratio_M)
    return chosen_log_ratio_M - rejected_log_ratio_M


def dpo_loss(chosen_log_ratio_M: Tensor, rejected_log_ratio_M: Tensor, beta: float) -> Tensor:
    """−log σ(β·h) (Rafailov et al. 2023, equation 7). [M]

    Only the difference is trained: both log-probabilities may fall while it grows.
    """
    return -logsigmoid(beta * margin(chosen_log_ratio_M, rejected_log_ratio_M))


def conservative_dpo_loss(
    chosen_log_ratio_M: Tensor, rejected_log_ratio_M: Tensor, beta: float, flip_rate: float
) -> Tensor:
    """−(1 − ε)·log σ(β·h) − ε·log σ(−β·h): cDPO, smoothed labels (Mitchell 2023, "A note on DPO with noisy
    preferences"). [M]

    ε is the share of labels that are thought to be flipped; the best βh is log((1 − ε)/ε), not infinite.
    """
    _require_flip_rate(flip_rate)
    logits_M = beta * margin(chosen_log_ratio_M, rejected_log_ratio_M)
    return -(1 - flip_rate) * logsigmoid(logits_M) - flip_rate * logsigmoid(-logits_M)


def robust_dpo_loss(chosen_log_ratio_M: Tensor, rejected_log_ratio_M: Tensor, beta: float, flip_rate: float) -> Tensor:
    """[−(1 − ε)·log σ(β·h) + ε·log σ(−β·h)] / (1 − 2ε): unbiased under flips (Chowdhury et al. 2024). [M]

    Its mean over labels flipped at rate ε is the DPO loss of the true labels. Not bounded below.
    """
    _require_flip_rate(flip_rate)
    logits_M = beta * margin(chosen_log_ratio_M, rejected_log_ratio_M)
    return (-(1 - flip_rate) * logsigmoid(logits_M) + flip_rate * logsigmoid(-logits_M)) / (1 - 2 * flip_rate)


def chosen_nll(chosen_logprob_M: Tensor, chosen_tokens_M: Tensor) -> Tensor:
    """−log π(y_w|x) / |y_w|: the term that keeps the chosen answer likely (Pang et al. 2024, equation 1, over the
    answer's tokens). [M] nats a token; added to a preference loss with a weight."""
    require_same_shape(chosen_logprob_M=chosen_logprob_M, chosen_tokens_M=chosen_tokens_M)
    return -chosen_logprob_M / chosen_tokens_M


def _require_flip_rate(flip_rate: float) -> None:
    if not 0 <= flip_rate < 0.5:
        raise ValueError(f"the share of flipped labels must be in [0, 0.5), got {flip_rate}")
