"""From one score for an answer to one reward for each of its tokens.

Suffixes: _T response tokens of all sequences end to end, _N sequences; offsets [N+1].
"""

import torch
from torch import Tensor

from tutelage.algorithms.shapes import require_no_empty, require_one_per_sequence, require_packed, require_same_shape


def token_rewards(
    logprobs_T: Tensor, reference_logprobs_T: Tensor, scores_N: Tensor, offsets: Tensor, kl_coef: float
) -> Tensor:
    """R_t = −β (log π − log π_ref)_t + [t = last]·r(x, y) (Ouyang et al. 2022, equation 2, as tokens). [T]

    The penalty is k1 under the policy that sampled; kl_coef is β. scores_N: one reward for each answer.
    """
    require_packed(offsets, logprobs_T=logprobs_T, reference_logprobs_T=reference_logprobs_T)
    require_one_per_sequence(offsets, scores_N=scores_N)
    require_no_empty(offsets)
    rewards_T = -kl_coef * (logprobs_T - reference_logprobs_T)
    return rewards_T.index_add(0, offsets[1:] - 1, scores_N.to(rewards_T.dtype))


def terminal_scores(scores_N: Tensor, ended_N: Tensor, missing_eos_penalty: float) -> Tensor:
    """r where the answer ended by itself, r − penalty where it was cut off before its end token. [N]

    A truncated answer is not a success; without this, answers grow to the length limit (Huang et al. 2024,
    after Stiennon et al. 2020; Ziegler et al. 2019 give a fixed −1 instead). ended_N: bool.
    """
    require_same_shape(scores_N=scores_N, ended_N=ended_N)
    if ended_N.dtype != torch.bool:
        raise ValueError(f"ended_N must be bool, got {ended_N.dtype}")
    if missing_eos_penalty < 0:
        raise ValueError(f"a penalty of {missing_eos_penalty} would reward truncation")
    return torch.where(ended_N, scores_N, scores_N - missing_eos_penalty)


def gain_and_bias(scores_N: Tensor, mean: float = 0.0, std: float = 1.0) -> tuple[Tensor, Tensor]:
    """(g, b) such that g·r + b has this mean and population standard deviation (Ziegler et al. 2019).

    g = std / σ(r), b = mean − g·mean(r). Fit on the reference policy's samples; InstructGPT shifts by a bias alone.
    """
    if scores_N.dim() != 1 or len(scores_N) < 2:
        raise ValueError(f"expected [N] scores with N >= 2, got {list(scores_N.shape)}")
    spread = scores_N.std(correction=0)
    if float(spread) == 0.0:
        raise ValueError("all scores are equal: no gain gives them a spread")
    gain = std / spread
    return gain, mean - gain * scores_N.mean()
