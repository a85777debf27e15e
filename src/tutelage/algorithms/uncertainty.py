"""How far an ensemble of reward models is from agreeing on an order."""

import torch
from torch import Tensor


def preference_variance(scores_MK: Tensor) -> Tensor:
    """Mean over pairs i < j of the variance over models m of P_m(i ≻ j) = σ(r_mi − r_mj), a scalar.

    Christiano et al. 2017 (1706.03741), section 2.2.4, ask people about the pairs where this variance is highest; K
    completions have K(K − 1)/2 pairs. The variance divides by M: it is 0 for one model, 1/4 at most.
    """
    if scores_MK.ndim != 2 or scores_MK.shape[1] < 2:
        raise ValueError(f"scores must be [models, completions] with two completions, not {tuple(scores_MK.shape)}")
    chance = torch.sigmoid(scores_MK[:, :, None] - scores_MK[:, None, :])
    i, j = torch.triu_indices(scores_MK.shape[1], scores_MK.shape[1], offset=1)
    return chance[:, i, j].var(dim=0, correction=0).mean()
