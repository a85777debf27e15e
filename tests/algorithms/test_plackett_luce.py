"""DPO on rankings: the hand-worked likelihood, DPO as its case of two, and a slow literal definition."""

import pytest
import torch

from tutelage.algorithms.dpo import dpo_loss
from tutelage.algorithms.plackett_luce import plackett_luce_dpo_loss
from tutelage.algorithms.ranking import pairwise_ranking_loss

from .checks import close, f64, holds_and_rejects, ints, numerical_gradient


def test_by_hand():
    """beta h = [2, 1, .5, -1] in rank order: 1.251552, wherever the answers stand."""

    def check(candidate):
        close(candidate(f64(20, 10, 5, -10), ints(1, 2, 3, 4), ints(0, 4), 0.1), [1.251552])
        close(candidate(f64(5, -10, 20, 10), ints(3, 4, 1, 2), ints(0, 4), 0.1), [1.251552])

    holds_and_rejects(
        check,
        plackett_luce_dpo_loss,
        {
            "sign": lambda h, r, o, b: -plackett_luce_dpo_loss(h, r, o, b),
            "worst first": lambda h, r, o, b: plackett_luce_dpo_loss(-h, r, o, b),
            "pairs": lambda h, r, o, b: pairwise_ranking_loss(b * h, r, o),
            "no beta": lambda h, r, o, b: plackett_luce_dpo_loss(h, r, o, 1.0),
        },
    )


def test_two_answers_are_dpo():
    log_ratios = f64(1.0, -0.5, 0.3, 2.0)
    loss = plackett_luce_dpo_loss(log_ratios, ints(1, 2, 2, 1), ints(0, 2, 4), 0.1)
    close(loss, dpo_loss(f64(1.0, 2.0), f64(-0.5, 0.3), 0.1), digits=12)
    close(loss[0], 0.620957)


def test_gradient_by_finite_differences():
    at = f64(1.0, -0.5, 0.3, 0.2)

    def total(x):
        return plackett_luce_dpo_loss(x, ints(2, 1, 3, 0), ints(0, 4), 0.7).sum()

    x = at.clone().requires_grad_()
    gradient = torch.autograd.grad(total(x), x)[0]
    torch.testing.assert_close(gradient, numerical_gradient(total, at), rtol=1e-6, atol=1e-8)
    close(gradient[3], 0.0)


def test_ties_are_refused():
    with pytest.raises(ValueError, match="ties"):
        plackett_luce_dpo_loss(f64(1, 2), ints(1, 1), ints(0, 2), 0.1)
