"""Group-relative policy optimization, and Dr. GRPO's corrections of it.

Every token of an answer has the answer's advantage; the KL penalty is k3 in the *loss*, not in the reward.
Suffixes: _PK prompts by answers, _N answers, _T response tokens of all answers end to end; offsets [N+1].
"""

from torch import Tensor

from tutelage.algorithms.kl import k3
from tutelage.algorithms.ppo import clipped_policy_loss
from tutelage.algorithms.shapes import (
    require_no_empty,
    require_one_per_sequence,
    require_packed,
    sequence_index,
    sum_by,
)


def group_advantages(rewards_PK: Tensor, eps: float = 1e-4) -> Tensor:
    """(R − mean) / (σ + ε) over a prompt's answers, σ the population's (Shao et al. 2024, section 4.1.2). [P, K]

    A group of equal rewards teaches nothing: 0. Dividing by σ gives prompts that are nearly always or nearly
    never solved more weight (`centered_advantages` does not).
    """
    centered_PK = centered_advantages(rewards_PK)
    return centered_PK / (rewards_PK.std(-1, correction=0, keepdim=True) + eps)


def centered_advantages(rewards_PK: Tensor) -> Tensor:
    """R − mean over a prompt's answers (Liu et al. 2025, Dr. GRPO: no division by the spread). [P, K]"""
    if rewards_PK.dim() != 2 or rewards_PK.shape[-1] < 2:
        raise ValueError(f"expected [P, K] rewards with K >= 2, got {list(rewards_PK.shape)}")
    return rewards_PK - rewards_PK.mean(-1, keepdim=True)


def grpo_loss(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    reference_logprobs_T: Tensor,
    advantages_N: Tensor,
    offsets: Tensor,
    clip: float,
    kl_coef: float,
    weights_T: Tensor | None = None,
) -> Tensor:
    """1/|y| · Σ_t [max(−A·ρ, −A·clip(ρ, 1−ε, 1+ε)) + β·k3_t] (Shao et al. 2024, equation 3, negated). [N]

    The mean over an answer's own tokens: a long wrong answer is punished less a token than a short one.
    weights_T: importance weights, which A is multiplied by, of tokens that another policy than π_old drew.
    """
    more = (advantages_N, offsets, clip, kl_coef, weights_T)
    token_T = _token_loss(logprobs_T, old_logprobs_T, reference_logprobs_T, *more)
    return sum_by(sequence_index(offsets), token_T, len(offsets) - 1) / offsets.diff()


def dr_grpo_loss(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    reference_logprobs_T: Tensor,
    advantages_N: Tensor,
    offsets: Tensor,
    clip: float,
    kl_coef: float,
    max_tokens: int,
    weights_T: Tensor | None = None,
) -> Tensor:
    """1/L · Σ_t of the same terms, L the longest answer allowed: a constant (Liu et al. 2025, Dr. GRPO). [N]"""
    more = (advantages_N, offsets, clip, kl_coef, weights_T)
    token_T = _token_loss(logprobs_T, old_logprobs_T, reference_logprobs_T, *more)
    return sum_by(sequence_index(offsets), token_T, len(offsets) - 1) / max_tokens


def _token_loss(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    reference_logprobs_T: Tensor,
    advantages_N: Tensor,
    offsets: Tensor,
    clip: float,
    kl_coef: float,
    weights_T: Tensor | None,
) -> Tensor:
    require_packed(offsets, logprobs_T=logprobs_T, old_logprobs_T=old_logprobs_T)
    require_packed(offsets, reference_logprobs_T=reference_logprobs_T)
    require_one_per_sequence(offsets, advantages_N=advantages_N)
    require_no_empty(offsets)
    advantages_T = advantages_N.detach()[sequence_index(offsets)]
    if weights_T is not None:
        require_packed(offsets, weights_T=weights_T)
        advantages_T = advantages_T * weights_T.detach()
    policy_T = clipped_policy_loss(logprobs_T, old_logprobs_T, advantages_T, clip)
    return policy_T + kl_coef * k3(logprobs_T, reference_logprobs_T)
