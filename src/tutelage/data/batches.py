"""Which examples make a step, and how a step is cut to fit: pure functions, so that resuming is exact."""

import hashlib
import random
from collections.abc import Sequence
from functools import lru_cache

from tutelage.errors import UserError
from tutelage.processes import in_step, rank, world_size


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


def rank_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """The micro-batches of this process: its share of a batch that all processes divide among them."""
    if in_step() and len(lengths) < world_size():
        raise UserError(
            f"{len(lengths)} examples cannot be divided among {world_size()} processes that share one model",
            where="option --batch-size (batch_size)",
            mend="raise it, or choose --parallel data",
        )
    return shares(lengths, budget, world_size())[rank()]


def shares(lengths: Sequence[int], budget: int, processes: int) -> list[list[list[int]]]:
    """The micro-batches of each process: about as many tokens for all, and the same number of micro-batches.

    The longest example goes to the process with the fewest tokens, then the next. Those with fewer micro-batches cut
    theirs smaller, because sharded models are computed in step; where one has too few examples for that, the others
    exceed the budget.
    """
    if processes == 1:
        return [token_budget_batches(lengths, budget)]
    indices: list[list[int]] = [[] for _ in range(processes)]
    totals = [0] * processes
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        lightest = min(range(processes), key=lambda r: (totals[r], r))
        indices[lightest].append(index)
        totals[lightest] += lengths[index]
    cut = [token_budget_batches([lengths[i] for i in some], budget) for some in indices]
    wanted = min(max(map(len, cut)), max(1, min(map(len, indices))))
    return [
        [[some[i] for i in micro] for micro in _cut_into(wanted, micros, [lengths[i] for i in some])]
        for some, micros in zip(indices, cut, strict=True)
    ]


def _cut_into(wanted: int, micros: list[list[int]], lengths: Sequence[int]) -> list[list[int]]:
    """As many micro-batches as wanted: the largest is halved, or the two smallest are joined."""
    size = lambda micro: sum(lengths[i] for i in micro)  # noqa: E731
    micros = list(micros)
    while micros and len(micros) != wanted:
        if len(micros) < wanted:
            largest = max((m for m in micros if len(m) > 1), key=size)
            micros.remove(largest)
            micros += [largest[::2], largest[1::2]]
        else:
            micros.sort(key=size)
            micros = [micros[0] + micros[1], *micros[2:]]
    return micros
