"""Process rewards: scores of the steps of a solution (Lightman et al. 2023, 2305.20050; Math-Shepherd, 2312.08935).

Steps of all solutions lie end to end, p_S [S] the probability that each is right, with offsets [N+1] of the solutions.
Suffixes: _S steps, _N solutions.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tutelage.algorithms.shapes import require_no_empty, require_packed, require_same_shape

Aggregation = Callable[[Tensor, Tensor], Tensor]


def running_product(p_S: Tensor, offsets: Tensor) -> Tensor:
    """Π_{j≤k} p_j after each step k: that every step so far is right (Lightman et al. 2023, appendix E). [S]"""
    return _running(p_S, offsets, lambda one: one.cumprod(0))


def running_minimum(p_S: Tensor, offsets: Tensor) -> Tensor:
    """min_{j≤k} p_j after each step k: as strong as the weakest step so far (Math-Shepherd, section 3.4). [S]"""
    return _running(p_S, offsets, lambda one: one.cummin(0).values)


def running_last(p_S: Tensor, offsets: Tensor) -> Tensor:
    """p_k after each step k: what the model says of the newest step; the whole of an outcome reward model. [S]"""
    return _running(p_S, offsets, lambda one: one.clone())


def solution_scores(running_S: Tensor, offsets: Tensor) -> Tensor:
    """The aggregate after the last step of each solution. [N]"""
    require_packed(offsets, running_S=running_S)
    require_no_empty(offsets)
    return running_S[offsets[1:] - 1]


def step_differences(running_S: Tensor, offsets: Tensor, start: float = 1.0) -> Tensor:
    """φ_k − φ_{k−1} with φ_0 = start: a reward for each step that sums to φ_K − φ_0, however many steps there are. [S]

    Rewarding φ_k itself would pay for every step, so that more steps pay more; differences are shaping by a potential
    (Ng, Harada and Russell 1999), which leaves the best policy what it was.
    """
    require_packed(offsets, running_S=running_S)
    require_no_empty(offsets)
    before_S = torch.cat([running_S.new_tensor([start]), running_S[:-1]])
    before_S[offsets[:-1]] = start
    return running_S - before_S


def step_loss(logit_S: Tensor, target_S: Tensor) -> Tensor:
    """−(t log σ(z) + (1 − t) log σ(−z)) at the end of each step; t is 0 or 1, or a share (soft labels). [S]"""
    require_same_shape(logit_S=logit_S, target_S=target_S)
    return -(target_S * logsigmoid(logit_S) + (1 - target_S) * logsigmoid(-logit_S))


def hard_labels(right_S: Tensor) -> Tensor:
    """1 where any of the completions from a step came to the right answer (Math-Shepherd, equation 3). [S]

    right_S: share of them that did, which is the soft label (equation 4).
    """
    return (right_S > 0).to(right_S.dtype)


def until_first_error(right_S: Tensor, offsets: Tensor) -> Tensor:
    """True up to and with each solution's first wrong step: what is supervised (Lightman et al. 2023, section 2.6). [S]

    After an error the meaning of right is not clear. right_S: bool.
    """
    require_packed(offsets, right_S=right_S)
    kept = torch.ones_like(right_S, dtype=torch.bool)
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        wrong = (~right_S[start:stop]).nonzero()[:, 0]
        if len(wrong):
            kept[start + int(wrong[0]) + 1 : stop] = False
    return kept


def first_error(right: list[bool]) -> int | None:
    """Place of the first wrong step, from 0; None where all are right."""
    return next((place for place, one in enumerate(right) if not one), None)


def _running(p_S: Tensor, offsets: Tensor, of_one: Callable[[Tensor], Tensor]) -> Tensor:
    require_packed(offsets, p_S=p_S)
    return torch.cat([of_one(one) for one in p_S.split(offsets.diff().tolist())])


AGGREGATIONS: dict[str, Aggregation] = {"product": running_product, "min": running_minimum, "last": running_last}
