"""Which examples make up a step: pure functions of (sizes, batch size, seed, step), so that resuming is exact.

No iterator holds state: a run that was stopped after step k asks for batch k + 1 and gets what it would have got.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_GOLDEN = 0.6180339887498949


def batch_order(n: int, batch_size: int, seed: int, step: int) -> list[int]:
    """[batch_size] indices below n for a step (counted from 0): every example once an epoch, reshuffled each epoch.

    Batches run on over the end of an epoch, so that none is short.
    """
    if n < 1 or batch_size < 1 or step < 0:
        raise ValueError(f"batch_order needs n, batch_size >= 1 and step >= 0, got {n}, {batch_size}, {step}")
    return _positions(n, seed, range(step * batch_size, (step + 1) * batch_size))


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Steps in which every example is seen at least once."""
    return -(-n // batch_size)


def mixture_order(
    sizes: Sequence[int], weights: Sequence[float], batch_size: int, seed: int, step: int
) -> list[tuple[int, int]]:
    """[batch_size] (source, index) for a step; source s fills the share weights[s] / sum(weights) of the slots.

    The slots of a source are spread evenly (a Weyl sequence: after any number of slots the count is within a few of
    its share), and each source is gone through as in `batch_order`, however often the others are repeated.
    """
    if len(sizes) != len(weights) or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"mixture_order needs one weight >= 0 a source, got {list(weights)} for {len(sizes)} sources")
    if any(size < 1 and weight > 0 for size, weight in zip(sizes, weights, strict=True)):
        raise ValueError("a source with a weight has no examples")
    slots = np.arange((step + 1) * batch_size)
    shift = np.random.default_rng([seed % 2**32, 0x3A17]).random()
    edges = np.cumsum(np.asarray(weights, dtype=np.float64) / sum(weights))
    edges[-1] = 1.0
    sources = np.searchsorted(edges, (slots * _GOLDEN + shift) % 1.0, side="right")
    order = []
    seen = np.bincount(sources[: step * batch_size], minlength=len(sizes))
    for source in sources[step * batch_size :].tolist():
        order.append((source, _positions(sizes[source], seed + source, [int(seen[source])])[0]))
        seen[source] += 1
    return order


def _positions(n: int, seed: int, positions: Sequence[int]) -> list[int]:
    return [int(_permutation(n, seed, position // n)[position % n]) for position in positions]


@lru_cache(maxsize=8)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed % 2**32, epoch]).permutation(n)
