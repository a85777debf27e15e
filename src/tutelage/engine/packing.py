"""Sequences end to end: `[T]` tokens with the `[N+1]` offsets of the N sequences, no padding.

Sequences that begin alike can share their beginning: `pack(..., share=True)` says which tokens a model has to
compute, and everything else stays on the [T] axis, as if nothing were shared.

Suffixes: _T packed tokens, _N sequences, _U computed tokens (T less what is shared).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor

from tutelage.engine.device import moved

WORTH_SHARING = 20  # what is shared is at least so small a part of all tokens: it costs some copies
WASTE = 1.25  # sequences of like length are lifted together as long as the longest exceeds none by more
SMALL_WASTE = 2**15  # or the padding of a bucket makes no more scores than this: another bucket would cost more


@dataclass(frozen=True, eq=False)
class Shared:
    """kept: [U] packed tokens that are computed. place: [T] where on the U axis each packed token's value is."""

    kept: Tensor
    place: Tensor


@dataclass(frozen=True, eq=False)
class Packed:
    """N sequences end to end.

    input_ids: [T] int64. offsets: [N+1] int64; sequence i is `input_ids[offsets[i]:offsets[i+1]]`.
    position_ids: [T], restarting at 0 in each sequence. shared: what sequences have in common, if anything.
    All on the host; what a model reads of it is moved to its device when it does.
    """

    input_ids: Tensor
    offsets: Tensor
    position_ids: Tensor
    shared: Shared | None = None

    @property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    @property
    def last(self) -> Tensor:
        """[N] index of each sequence's last token."""
        return self.offsets[1:] - 1

    @property
    def computed(self) -> tuple[Tensor, Tensor]:
        """[U] token ids and positions of what a model has to compute."""
        if self.shared is None:
            return self.input_ids, self.position_ids
        return self.input_ids[self.shared.kept], self.position_ids[self.shared.kept]

    def place_of(self, where: Tensor) -> Tensor:
        """The computed token [M] that stands for each packed index [M]."""
        return where if self.shared is None else self.shared.place[where]

    @cached_property
    def lifting(self) -> "Lifting":
        return Lifting(self.offsets, self.shared)


class Lifting:
    """The way from packed tokens to right-padded `[n, L]` buckets of sequences of like length, and back.

    lift: [F] the computed token that each place of the buckets reads (padding reads its sequence's first).
    where: [U] the place of the buckets that answers for each computed token.
    buckets: (start on the F axis, sequences, length).
    """

    def __init__(self, offsets: Tensor, shared: Shared | None = None, small_waste: int = SMALL_WASTE):
        lengths = offsets.diff()
        count = int(offsets[-1])
        order = lengths.argsort(descending=True, stable=True)
        ordered = lengths[order].tolist()
        self.buckets: list[tuple[int, int, int]] = []
        lifts: list[Tensor] = []
        back = torch.empty(count, dtype=torch.long)  # packed token -> place in the buckets
        start = filled = 0
        while start < len(ordered):
            longest, stop, wasted = ordered[start], start + 1, 0
            while stop < len(ordered):
                wasted += longest**2 - ordered[stop] ** 2
                if ordered[stop] * WASTE < longest and wasted > small_waste:
                    break
                stop += 1
            rows = order[start:stop]
            column = torch.arange(longest)
            real = column < lengths[rows][:, None]
            first = offsets[:-1][rows][:, None]
            index = torch.where(real, first + column, first)
            places = torch.arange(filled, filled + index.numel()).view_as(index)
            back[index[real]] = places[real]
            lifts.append(index.flatten())
            self.buckets.append((filled, stop - start, longest))
            filled += index.numel()
            start = stop
        lift = torch.cat(lifts)
        self.repeated = shared is not None
        if shared is not None:
            lift, back = shared.place[lift], back[shared.kept]
        self.identity = filled == count and not self.repeated and bool((lift == torch.arange(count)).all())
        self.lift, self.where, self.filled = lift, back, filled

    def on(self, device: torch.device) -> "Lifting":
        """The same way for tensors that are on a device."""
        there = copy.copy(self)
        there.lift, there.where = moved(self.lift, device), moved(self.where, device)
        return there


def pack(sequences: Sequence[Sequence[int]], *, share: bool = False) -> Packed:
    """Lay sequences of token ids end to end; with share, equal beginnings are computed once (exactly)."""
    if not sequences or any(len(s) == 0 for s in sequences):
        raise ValueError("pack needs at least one sequence and no empty one")
    lengths = torch.tensor([len(s) for s in sequences])
    offsets = offsets_of(lengths)
    flat = torch.tensor(list(chain.from_iterable(sequences)))
    shared = _share([list(s) for s in sequences], offsets.tolist()) if share and len(sequences) > 1 else None
    return Packed(flat, offsets, positions_in(offsets), shared)


def _share(sequences: list[list[int]], offsets: list[int]) -> Shared | None:
    """In lexicographic order each sequence shares with the one before it all that both begin with.

    So each distinct beginning is computed once, as in a tree: a system message for all, a prompt for its answers.
    """
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    place = list(range(offsets[-1]))  # on the packed axis first: which token answers for each
    saved = 0
    for before, index in pairwise(order):
        common = _common(sequences[before], sequences[index])
        start, other = offsets[index], offsets[before]
        place[start : start + common] = place[other : other + common]
        saved += common
    if saved * WORTH_SHARING < len(place):
        return None
    answers = torch.tensor(place)
    kept = (answers == torch.arange(len(place))).nonzero()[:, 0]
    number = torch.empty(len(place), dtype=torch.long)
    number[kept] = torch.arange(len(kept))
    return Shared(kept, number[answers])


def _common(a: list[int], b: list[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def context_of(model: Any) -> int:
    """How many positions a model has; without a stated number as many as are asked for."""
    return context_of_config(model.config)


def context_of_config(config: Any) -> int:
    """The same of a configuration; a model of several kinds of input has its text's apart."""
    text = config.get_text_config()
    return int(getattr(text, "max_position_embeddings", 0) or getattr(text, "max_seq_len", 0) or 2**30)


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
