"""Soft labels of a model that is asked to choose, against numbers worked out by hand."""

import math

import pytest
import torch

from tutelage.algorithms.ai_feedback import both_orders_probability, choice_probability, clamped, soft_pairwise_loss
from tutelage.algorithms.ranking import pairwise_loss


def test_the_two_options_are_normalized():
    found = choice_probability(torch.tensor([-1.2, -3.0]), torch.tensor([-2.0, -3.0]))
    assert found.tolist() == pytest.approx([0.689974, 0.5], abs=1e-6)


def test_a_liking_for_a_letter_cancels_over_both_orders():
    liking = 1.7  # added to (A) whatever stands there
    first = torch.tensor([[-1.2 + liking, -2.0]])
    second = torch.tensor([[-2.0 + liking, -1.2]])
    assert float(both_orders_probability(first, second)) == pytest.approx(0.689974, abs=1e-6)
    assert float(choice_probability(first[:, 0], first[:, 1])) > 0.9


def test_only_what_is_outside_is_clamped():
    assert clamped(torch.tensor([0.02, 0.45, 0.97]), 0.4).tolist() == pytest.approx([0.4, 0.45, 0.6])
    with pytest.raises(ValueError):
        clamped(torch.tensor([0.5]), 0.6)


def test_the_soft_loss():
    difference = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    loss = soft_pairwise_loss(difference, torch.tensor([0.6], dtype=torch.float64))
    assert float(loss.detach()) == pytest.approx(0.674077, abs=1e-6)
    loss.sum().backward()
    assert float(difference.grad) == pytest.approx(1 / (1 + math.exp(-0.5)) - 0.6, abs=1e-9)  # sigma(d) - p
    best = torch.tensor([math.log(0.6 / 0.4)], dtype=torch.float64)
    assert float(soft_pairwise_loss(best, torch.tensor([0.6], dtype=torch.float64))) == pytest.approx(
        0.673012, abs=1e-6
    )
    hard = soft_pairwise_loss(torch.tensor([0.5, -1.0]), torch.ones(2))
    assert torch.equal(
        hard, pairwise_loss(torch.tensor([0.5, 0.0, -1.0, 0.0]), torch.tensor([0, 2]), torch.tensor([1, 3]))
    )
