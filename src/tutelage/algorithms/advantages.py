"""Generalized advantage estimation and whitening, on packed sequences.

Suffixes: _T response tokens of all sequences end to end, _N sequences, _LN padded from each sequence's end.
"""

import torch
from torch import Tensor

from tutelage.algorithms.shapes import require_no_empty, require_packed, require_same_shape, sequence_index


def gae(rewards_T: Tensor, values_T: Tensor, offsets: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages [T] and returns [T] (Schulman et al. 2016, equation 16, as its backward recursion).

    δ_t = R_t + γ V_{t+1} − V_t with V = 0 after the last token; A_t = δ_t + γλ A_{t+1}; return_t = A_t + V_t.
    values_T[t] belongs to the state *before* token t (hidden state at the position that predicts it).
    Returns are of the unwhitened advantages.
    """
    require_packed(offsets, rewards_T=rewards_T, values_T=values_T)
    require_same_shape(rewards_T=rewards_T, values_T=values_T)
    require_no_empty(offsets)
    sequence_T = sequence_index(offsets)
    last_N = offsets[1:] - 1
    from_end_T = last_N[sequence_T] - torch.arange(len(rewards_T), device=offsets.device)

    next_values_T = torch.cat([values_T[1:], values_T.new_zeros(1)]).index_fill(0, last_N, 0.0)
    deltas_T = rewards_T + gamma * next_values_T - values_T

    # Row k holds the k-th token from each sequence's end. A row past a short sequence's first token is
    # computed and never read, so that the loop needs no mask and no transfer from the device.
    longest = int(offsets.diff().max())
    deltas_LN = deltas_T.new_zeros(longest, len(last_N)).index_put((from_end_T, sequence_T), deltas_T)
    rows = [deltas_LN[0]]
    for delta_N in deltas_LN[1:]:
        rows.append(delta_N + gamma * lam * rows[-1])
    advantages_T = torch.stack(rows)[from_end_T, sequence_T]
    return advantages_T, advantages_T + values_T


def whiten(values_T: Tensor, mask_T: Tensor | None = None, eps: float = 1e-8) -> Tensor:
    """(x − mean) / √(var + ε) with the population variance (Huang et al. 2024, detail 16: advantages). Same shape.

    With a mask, mean and variance are of the True entries, and the others come back as 0.
    """
    centered, scale, _ = _center(values_T, mask_T, eps)
    return _keep(centered * scale, mask_T)


def scale_by_std(values_T: Tensor, mask_T: Tensor | None = None, eps: float = 1e-8) -> Tensor:
    """(x − mean) / √(var + ε) + mean: spread 1, mean kept (Huang et al. 2024, detail 16: rewards). Same shape.

    Mask as in `whiten`.
    """
    centered, scale, mean = _center(values_T, mask_T, eps)
    return _keep(centered * scale + mean, mask_T)


def explained_variance(values_T: Tensor, returns_T: Tensor) -> Tensor:
    """1 − Var(R − V) / Var(R): 1 is a perfect value model, 0 no better than a constant, below 0 worse. []

    Where all returns are equal it is 1 for values right up to a constant and 0 otherwise (scikit-learn's
    convention), so that the metric stays finite.
    """
    require_same_shape(values_T=values_T, returns_T=returns_T)
    unexplained = (returns_T - values_T).var(correction=0)
    total = returns_T.var(correction=0)
    constant = (unexplained == 0).to(total.dtype)
    return torch.where(total > 0, 1 - unexplained / total.clamp(min=torch.finfo(total.dtype).tiny), constant)


def _center(values_T: Tensor, mask_T: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    if mask_T is None:
        counted = values_T
    else:
        require_same_shape(values_T=values_T, mask_T=mask_T)
        if mask_T.dtype != torch.bool:
            raise ValueError(f"mask_T must be bool, got {mask_T.dtype}")
        counted = values_T[mask_T]
    if counted.numel() == 0:
        raise ValueError("no values to whiten")
    mean = counted.mean()
    return values_T - mean, (counted.var(correction=0) + eps).rsqrt(), mean


def _keep(values_T: Tensor, mask_T: Tensor | None) -> Tensor:
    return values_T if mask_T is None else values_T.masked_fill(~mask_T, 0.0)
