"""REINFORCE leave-one-out: K answers a prompt are each other's baseline, so that no value model is needed.

Suffixes: _PK prompts by answers, _N answers.
"""

from torch import Tensor

from tutelage.algorithms.shapes import require_same_shape


def penalized_rewards(scores_N: Tensor, sequence_kl_N: Tensor, kl_coef: float) -> Tensor:
    """R(x, y) = r(x, y) − β·(log π − log π_ref)(y|x), of the whole answer (Ahmadian et al. 2024, section 3). [N]

    sequence_kl_N: sums over tokens under the policy that sampled.
    """
    require_same_shape(scores_N=scores_N, sequence_kl_N=sequence_kl_N)
    return scores_N - kl_coef * sequence_kl_N.detach()


def leave_one_out_advantages(rewards_PK: Tensor) -> Tensor:
    """A_i = R_i − mean of the other K − 1 = K/(K − 1)·(R_i − mean) (Kool et al. 2019; Ahmadian et al. 2024). [P, K]"""
    count = rewards_PK.shape[-1]
    if rewards_PK.dim() != 2 or count < 2:
        raise ValueError(f"expected [P, K] rewards with K >= 2, got {list(rewards_PK.shape)}")
    return (rewards_PK - rewards_PK.mean(-1, keepdim=True)) * (count / (count - 1))


def reinforce_loss(sequence_logprobs_N: Tensor, advantages_N: Tensor) -> Tensor:
    """−A·log π(y|x): the whole answer is one action (Williams 1992; Ahmadian et al. 2024). [N]"""
    require_same_shape(sequence_logprobs_N=sequence_logprobs_N, advantages_N=advantages_N)
    return -advantages_N.detach() * sequence_logprobs_N
