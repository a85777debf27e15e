"""Cutting a batch into micro-batches by tokens: nothing is padded, so tokens are what memory and time depend on."""

from collections.abc import Sequence


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths` in micro-batches of at most `budget` tokens each, longest sequences first.

    Neighbors in length share a micro-batch. The number of micro-batches is the least that the order allows, and
    the fullest of them is as small as that number allows. A sequence longer than the budget gets one by itself.
    Deterministic: equal lengths keep their order.
    """
    if budget < 1:
        raise ValueError(f"budget must be at least 1 token, got {budget}")
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    if not order:
        return []
    fewest = len(_cut(order, lengths, budget))
    low, high = min(lengths[order[0]], budget), budget
    while low < high:  # the smallest cap that needs no more micro-batches
        middle = (low + high) // 2
        if len(_cut(order, lengths, middle)) <= fewest:
            high = middle
        else:
            low = middle + 1
    return _cut(order, lengths, low)


def _cut(order: Sequence[int], lengths: Sequence[int], cap: int) -> list[list[int]]:
    batches: list[list[int]] = []
    room = 0
    for i in order:
        if not batches or lengths[i] > room:
            batches.append([])
            room = cap
        batches[-1].append(i)
        room -= lengths[i]
    return batches
