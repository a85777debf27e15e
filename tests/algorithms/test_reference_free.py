"""ORPO and SimPO: hand-worked values, gradients, and odds at both ends."""

import math

import pytest
import torch

from tutelage.algorithms.orpo import log_odds, log_odds_ratio, orpo_loss
from tutelage.algorithms.simpo import simpo_loss

from .checks import close, f64, holds_and_rejects, numerical_gradient

CHOSEN, REJECTED = f64(-2.0), f64(-3.0)


def test_orpo_by_hand():
    def check(candidate):
        close(candidate(CHOSEN, REJECTED, 0.1), [2.028875])

    holds_and_rejects(
        check,
        orpo_loss,
        {
            "sign of the odds": lambda w, x, lam: 2 * -w - orpo_loss(w, x, lam),
            "answers exchanged": lambda w, x, lam: orpo_loss(x, w, lam),
            "probabilities, not odds": lambda w, x, lam: -w + lam * torch.log1p((x - w).exp()),
            "no fine-tuning term": lambda w, x, lam: orpo_loss(w, x, lam) + w,
        },
    )
    close(orpo_loss(CHOSEN, REJECTED, 1.0) + CHOSEN, [0.288751])


def test_log_odds_by_hand_and_at_the_ends():
    """A probability of 0.8 has odds 4; near probability 1 and 0 the digits are kept and gradients stay finite."""

    def check(candidate):
        close(candidate(f64(math.log(0.8), math.log(0.2))), [math.log(4), -math.log(4)])
        close(candidate(f64(-1e-10)), [-math.log(1e-10)], digits=4)
        close(candidate(f64(-60.0)), [-60.0])

    holds_and_rejects(
        check,
        log_odds,
        {"sign": lambda m: -log_odds(m), "log p": lambda m: m, "1 + p": lambda m: m - torch.log1p(m.exp())},
    )
    at = f64(0.0, -1e-12, -80.0, -0.7).requires_grad_()
    gradient = torch.autograd.grad(log_odds(at).sum(), at)[0]
    assert torch.isfinite(log_odds(at)).all() and torch.isfinite(gradient).all()


def test_log_odds_ratio_is_a_difference():
    close(log_odds_ratio(f64(math.log(0.8)), f64(math.log(0.5))), [math.log(4)])


def test_simpo_by_hand():
    def check(candidate):
        close(candidate(CHOSEN, REJECTED, 2.0, 1.0), [0.313262])
        close(candidate(f64(-2.0), f64(-2.0), 2.0, 0.0), [math.log(2)])

    holds_and_rejects(
        check,
        simpo_loss,
        {
            "margin added": lambda w, x, b, g: simpo_loss(w, x, b, -g),
            "margin times beta": lambda w, x, b, g: simpo_loss(w, x, b, b * g),
            "answers exchanged": lambda w, x, b, g: simpo_loss(x, w, b, g),
        },
    )


@pytest.mark.parametrize("loss", [lambda w, x: orpo_loss(w, x, 0.3), lambda w, x: simpo_loss(w, x, 2.0, 0.5)])
def test_gradients_by_finite_differences(loss):
    at = f64(-0.4, -1.2, -2.0, -0.1)

    def total(x):
        return loss(x[:2], x[2:]).sum()

    x = at.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(total(x), x)[0], numerical_gradient(total, at), rtol=1e-6, atol=1e-7)
