"""Step scores: aggregates, differences and labels against numbers worked out by hand."""

import math

import pytest
import torch

from tutelage.algorithms.process import (
    AGGREGATIONS,
    first_error,
    hard_labels,
    running_minimum,
    running_product,
    solution_scores,
    step_differences,
    step_loss,
    until_first_error,
)

P, OFFSETS = torch.tensor([0.9, 0.8, 0.95, 0.5, 0.6]), torch.tensor([0, 3, 5])


def test_aggregates():
    found = {name: solution_scores(of(P, OFFSETS), OFFSETS).tolist() for name, of in AGGREGATIONS.items()}
    assert found["product"] == pytest.approx([0.684, 0.3])
    assert found["min"] == pytest.approx([0.8, 0.5])
    assert found["last"] == pytest.approx([0.95, 0.6])
    assert math.log(found["product"][0]) == pytest.approx(-0.379797, abs=1e-6)


def test_differences_telescope_and_more_steps_do_not_pay():
    running = running_minimum(P, OFFSETS)
    differences = step_differences(running, OFFSETS)
    assert differences.tolist() == pytest.approx([-0.1, -0.1, 0.0, -0.5, 0.0], abs=1e-6)
    for of in AGGREGATIONS.values():
        running = of(P, OFFSETS)
        sums = [float(part.sum()) for part in step_differences(running, OFFSETS, start=0.5).split([3, 2])]
        assert sums == pytest.approx((solution_scores(running, OFFSETS) - 0.5).tolist())
    longer = torch.tensor([0.9, 0.8, 0.8, 0.8, 0.8, 0.8])  # idle steps that are no worse earn nothing
    alone = torch.tensor([0, 6])
    assert float(step_differences(running_minimum(longer, alone), alone).sum()) == pytest.approx(-0.2)
    paid_for_each_step = float(running_minimum(longer, alone).sum())
    assert paid_for_each_step > float(running_minimum(longer[:2], torch.tensor([0, 2])).sum())  # what differences avoid


def test_a_solution_without_steps_is_refused():
    with pytest.raises(ValueError, match="empty"):
        solution_scores(running_product(P, torch.tensor([0, 5, 5])), torch.tensor([0, 5, 5]))


def test_labels():
    shares = torch.tensor([3 / 8, 0.0, 1.0])
    assert hard_labels(shares).tolist() == [1.0, 0.0, 1.0] and float(shares[0]) == 0.375
    right = torch.tensor([True, False, True, True, True])
    assert until_first_error(right, OFFSETS).tolist() == [True, True, False, True, True]
    assert first_error([True, False, False]) == 1 and first_error([True]) is None


def test_the_loss_of_a_step():
    z = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    loss = step_loss(z, torch.tensor([0.375], dtype=torch.float64))
    s = 1 / (1 + math.exp(-0.7))
    assert float(loss.detach()) == pytest.approx(-(0.375 * math.log(s) + 0.625 * math.log(1 - s)))
    loss.sum().backward()
    assert float(z.grad) == pytest.approx(s - 0.375)
