"""Batches are pure functions of their step, epochs are whole; mixtures keep shares, micro-batches their budget."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.batches import token_budget_batches
from tutelage.data.mixtures import batch_order, mixture_order, steps_per_epoch


@given(st.integers(1, 40), st.integers(1, 12), st.integers(-3, 2**40))
def test_an_epoch_shows_every_example_once(n: int, batch_size: int, seed: int) -> None:
    stream = [i for step in range(-(-3 * n // batch_size)) for i in batch_order(n, batch_size, seed, step)]
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_batches_do_not_depend_on_what_was_asked_before() -> None:
    late = batch_order(1000, 32, 1, 77)
    assert [batch_order(1000, 32, 1, k) for k in range(78)][-1] == late
    assert batch_order(1000, 32, 2, 77) != late
    assert batch_order(64, 64, 1, 0) != batch_order(64, 64, 1, 1)  # reshuffled
    assert steps_per_epoch(65, 32) == 3


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="n, batch_size"):
        batch_order(0, 4, 0, 0)
    with pytest.raises(ValueError, match="one weight"):
        mixture_order([3, 4], [1.0], 4, 0, 0)
    with pytest.raises(ValueError, match="no examples"):
        mixture_order([3, 0], [0.9, 0.1], 4, 0, 0)


def test_mixture_keeps_shares_and_goes_through_each_source() -> None:
    sizes, weights, batch = [100, 37, 1], [0.85, 0.1, 0.05], 16
    stream = [item for step in range(60) for item in mixture_order(sizes, weights, batch, 5, step)]
    counts = Counter(source for source, _ in stream)
    for source, weight in enumerate(weights):
        assert abs(counts[source] - weight * len(stream)) <= 3
    second = [index for source, index in stream if source == 1]
    assert sorted(second[:37]) == sorted(second[37:74]) == list(range(37))
    assert mixture_order(sizes, weights, batch, 5, 59) == stream[-batch:]


def test_mixture_of_ten_percent_pretraining_data() -> None:
    per_batch = [sum(s == 1 for s, _ in mixture_order([500, 500], [0.9, 0.1], 32, 0, k)) for k in range(50)]
    assert sum(per_batch) == pytest.approx(160, abs=2) and set(per_batch) <= {2, 3, 4}  # 3.2 a batch, evenly


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1000))
def test_micro_batches_hold_everything_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = token_budget_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[i] for i in batch) <= budget
    flat = [lengths[i] for batch in batches for i in batch]
    assert flat == sorted(lengths, reverse=True)
    assert batches == token_budget_batches(lengths, budget)


def test_micro_batches_are_balanced() -> None:
    batches = token_budget_batches([10] * 12, 100)
    assert [len(batch) for batch in batches] == [6, 6]  # not 10 and 2
    assert token_budget_batches([], 10) == []
    assert token_budget_batches([500, 20, 20], 50) == [[0], [1, 2]]
    with pytest.raises(ValueError, match="at least 1"):
        token_budget_batches([1], 0)
