"""Sequences end to end: `[T]` tokens with the `[N+1]` offsets of the N sequences, no padding.

Suffixes: _T packed tokens, _N sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """N sequences end to end.

    input_ids: [T] int64. offsets: [N+1] int64; sequence i is `input_ids[offsets[i]:offsets[i+1]]`.
    position_ids: [T], restarting at 0 in each sequence.
    """

    input_ids: Tensor
    offsets: Tensor
    position_ids: Tensor

    @property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    @property
    def last(self) -> Tensor:
        """[N] index of each sequence's last token."""
        return self.offsets[1:] - 1


def pack(sequences: Sequence[Sequence[int]]) -> Packed:
    """Lay sequences of token ids end to end."""
    if not sequences or any(len(s) == 0 for s in sequences):
        raise ValueError("pack needs at least one sequence and no empty one")
    lengths = torch.tensor([len(s) for s in sequences])
    offsets = offsets_of(lengths)
    flat = torch.tensor([token for sequence in sequences for token in sequence])
    return Packed(flat, offsets, positions_in(offsets))


def offsets_of(lengths: Tensor) -> Tensor:
    """[N] lengths -> [N+1] offsets."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def positions_in(offsets: Tensor) -> Tensor:
    """[N+1] offsets -> [T] position of each token in its own sequence."""
    lengths = offsets.diff()
    return torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(lengths)


def sequence_index(offsets: Tensor) -> Tensor:
    """[N+1] offsets -> [T] number of the sequence each token belongs to."""
    return torch.arange(len(offsets) - 1).repeat_interleave(offsets.diff())


def segment_sum(values_T: Tensor, offsets: Tensor) -> Tensor:
    """Sum of each sequence's values: [T], [N+1] -> [N]."""
    total = values_T.new_zeros(len(offsets) - 1)
    return total.index_add(0, sequence_index(offsets), values_T)
