"""Shape checks and sums over packed sequences, shared by the formulas.

A wrong shape is a fault of the calling code, so it raises ValueError, before anything is computed.
"""

import torch
from torch import Tensor


def require_same_shape(**tensors: Tensor) -> None:
    """Raise ValueError, with every name and shape, unless all shapes are equal (nothing broadcasts by accident)."""
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"shapes differ: {shapes}")


def require_packed(offsets: Tensor, **tensors: Tensor) -> None:
    """Raise ValueError unless offsets [N+1] rise from 0 to T and every tensor is [T]."""
    if offsets.dim() != 1 or len(offsets) < 2 or offsets.dtype != torch.int64:
        raise ValueError(f"offsets must be int64 [N+1] with N >= 1, got {offsets.dtype} {list(offsets.shape)}")
    if int(offsets[0]) != 0 or bool((offsets.diff() < 0).any()):
        raise ValueError(f"offsets must start at 0 and not fall: {offsets.tolist()[:8]}")
    total = int(offsets[-1])
    for name, tensor in tensors.items():
        if tensor.shape != (total,):
            raise ValueError(f"{name} is {list(tensor.shape)}, but offsets end at {total}")


def require_one_per_sequence(offsets: Tensor, **tensors: Tensor) -> None:
    """Raise ValueError unless every tensor is [N] for offsets [N+1]."""
    count = len(offsets) - 1
    for name, tensor in tensors.items():
        if tensor.shape != (count,):
            raise ValueError(f"{name} is {list(tensor.shape)}, but offsets hold {count} sequences")


def require_no_empty(offsets: Tensor) -> None:
    """Raise ValueError if a sequence has no token (it has no last token to reward, and no largest score)."""
    if bool((offsets.diff() == 0).any()):
        empty = (offsets.diff() == 0).nonzero()[0].item()
        raise ValueError(f"sequence {empty} is empty")


def sequence_index(offsets: Tensor) -> Tensor:
    """[N+1] offsets -> [T] number of the sequence that each token belongs to."""
    return torch.arange(len(offsets) - 1, device=offsets.device).repeat_interleave(offsets.diff())


def sum_by(index_M: Tensor, values_M: Tensor, count: int) -> Tensor:
    """[count] sums of the values that share an index; 0 where there is none."""
    return values_M.new_zeros(count).index_add(0, index_M, values_M)


def logsumexp_by(index_M: Tensor, values_M: Tensor, count: int) -> Tensor:
    """[count] log Σ exp of the values that share an index; every index must occur."""
    constant_M = values_M.detach()
    largest = constant_M.new_zeros(count).scatter_reduce(0, index_M, constant_M, "amax", include_self=False)
    return sum_by(index_M, (values_M - largest[index_M]).exp(), count).log() + largest
