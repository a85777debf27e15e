"""Batches are pure functions of the step, and micro-batches fit their budget."""

from tutelage.data.batches import batch_order, token_budget_batches


def test_an_epoch_meets_every_example_once_and_the_next_one_in_another_order():
    first = [i for step in range(5) for i in batch_order(10, 2, 7, step)]
    second = [i for step in range(5, 10) for i in batch_order(10, 2, 7, step)]
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    assert batch_order(10, 2, 7, 3) == first[6:8]


def test_batches_run_on_across_epochs():
    assert len(batch_order(5, 3, 0, 1)) == 3
    assert sorted(i for step in range(5) for i in batch_order(5, 3, 0, step)) == sorted(list(range(5)) * 3)


def test_micro_batches_hold_everything_within_the_budget():
    lengths = [5, 1, 9, 3, 3, 20]
    batches = token_budget_batches(lengths, 10)
    assert sorted(i for b in batches for i in b) == list(range(6))
    assert all(sum(lengths[i] for i in b) <= 10 or len(b) == 1 for b in batches)
