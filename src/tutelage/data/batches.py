"""Which examples make a step, and how a step is cut to fit: pure functions, so that resuming is exact."""

import hashlib
import random
from collections.abc import Sequence
from functools import lru_cache


def step_seed(seed: int, *names: object) -> int:
    """A seed for one purpose at one step, independent of all that ran before."""
    digest = hashlib.blake2b(repr((seed, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def batch_order(count: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Examples of a step (from 0): epochs are shuffled anew and batches run on across their borders."""
    batch_size = min(batch_size, count)
    chosen: list[int] = []
    position = step * batch_size
    while len(chosen) < batch_size:
        epoch, start = divmod(position, count)
        order = _shuffled(count, step_seed(seed, "epoch", epoch))
        part = order[start : start + batch_size - len(chosen)]
        chosen += part
        position += len(part)
    return chosen


@lru_cache(maxsize=8)
def _shuffled(count: int, seed: int) -> list[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in micro-batches of at most `budget` tokens, like lengths together; one over it stands alone."""
    batches: list[list[int]] = []
    total = budget + 1
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if total + lengths[index] > budget:
            batches.append([])
            total = 0
        batches[-1].append(index)
        total += lengths[index]
    return batches
