"""DPO, its variants for noisy labels, and IPO: hand-worked values, gradients, and what they must not be."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from tutelage.algorithms.dpo import (
    chosen_nll,
    conservative_dpo_loss,
    dpo_loss,
    implicit_reward,
    robust_dpo_loss,
)
from tutelage.algorithms.ipo import ipo_loss

from .checks import close, f64, holds_and_rejects, numerical_gradient

# chosen -10 (reference -11, 5 tokens), rejected -12 (reference -11.5, 6 tokens): margin 1.5
CHOSEN, REJECTED, BETA = f64(-10 + 11), f64(-12 + 11.5), 0.1


def test_dpo_by_hand():
    def check(candidate):
        close(candidate(CHOSEN, REJECTED, BETA), [0.620957])
        close(candidate(CHOSEN - CHOSEN, REJECTED - REJECTED, BETA), [math.log(2)])

    holds_and_rejects(
        check,
        dpo_loss,
        {
            "sign": lambda w, x, b: dpo_loss(x, w, b),
            "no beta": lambda w, x, b: dpo_loss(w, x, 1.0),
            "no logarithm": lambda w, x, b: -(b * (w - x)).sigmoid(),
            "each by itself": lambda w, x, b: -logsigmoid(b * w) - logsigmoid(-b * x),
        },
    )


def test_dpo_gradient_by_hand():
    """-beta sigma(-beta h) on the chosen log-probability, the opposite on the rejected one."""
    at = torch.cat([CHOSEN, REJECTED]).requires_grad_()
    gradient = torch.autograd.grad(dpo_loss(at[:1], at[1:], BETA).sum(), at)[0]
    close(gradient, [-0.046257, 0.046257])


def test_implicit_rewards_by_hand_and_without_gradient():
    close(implicit_reward(torch.cat([CHOSEN, REJECTED]), BETA), [0.1, -0.05])
    assert not implicit_reward(CHOSEN.clone().requires_grad_(), BETA).requires_grad


def test_a_margin_may_grow_while_both_fall():
    """Why the chosen log-probability falls: the loss sees the difference only."""
    before, after = dpo_loss(f64(0), f64(0), BETA), dpo_loss(f64(-5), f64(-9), BETA)
    assert after < before
    close(after, dpo_loss(f64(3), f64(-1), BETA))


def test_conservative_by_hand():
    def check(candidate):
        close(candidate(CHOSEN, REJECTED, BETA, 0.1), [0.635957])
        close(candidate(CHOSEN, REJECTED, BETA, 0.0), dpo_loss(CHOSEN, REJECTED, BETA))

    holds_and_rejects(
        check,
        conservative_dpo_loss,
        {
            "robust": robust_dpo_loss,
            "shares exchanged": lambda w, x, b, e: conservative_dpo_loss(x, w, b, e),
            "one term": lambda w, x, b, e: (1 - e) * dpo_loss(w, x, b),
        },
    )


def test_conservative_is_best_at_a_finite_margin():
    """d/dh = 0 at beta h = log((1 - eps)/eps)."""
    best = f64(math.log(0.9 / 0.1) / BETA).requires_grad_()
    gradient = torch.autograd.grad(conservative_dpo_loss(best, f64(0), BETA, 0.1).sum(), best)[0]
    close(gradient, [0.0], digits=9)


def test_robust_by_hand():
    def check(candidate):
        close(candidate(CHOSEN, REJECTED, BETA, 0.1), [0.602207])

    holds_and_rejects(
        check,
        robust_dpo_loss,
        {
            "conservative": conservative_dpo_loss,
            "not divided": lambda w, x, b, e: robust_dpo_loss(w, x, b, e) * (1 - 2 * e),
            "plus": lambda w, x, b, e: conservative_dpo_loss(w, x, b, e) / (1 - 2 * e),
        },
    )


def test_robust_is_unbiased_under_flips():
    """Its mean over labels flipped at rate eps is the loss of the true labels; conservative DPO's is not."""
    flip, h = 0.2, f64(1.5, -2.0, 0.3)

    def check(candidate):
        noisy = (1 - flip) * candidate(h, 0 * h, 0.5, flip) + flip * candidate(0 * h, h, 0.5, flip)
        close(noisy, dpo_loss(h, 0 * h, 0.5), digits=9)

    holds_and_rejects(check, robust_dpo_loss, {"conservative": conservative_dpo_loss})


def test_ipo_by_hand():
    def check(candidate):
        close(candidate(CHOSEN, REJECTED, 0.1), [12.25])
        close(candidate(CHOSEN / 5, REJECTED / 6, 0.1), [22.246944])

    holds_and_rejects(
        check,
        ipo_loss,
        {
            "target 1/tau": lambda w, x, t: ipo_loss(w, x, t / 2),
            "halved": lambda w, x, t: ipo_loss(w, x, t) / 2,
            "sign": lambda w, x, t: ipo_loss(x, w, t),
        },
    )
    close(ipo_loss(f64(5), f64(0), 0.1), [0.0])


def test_ipo_pulls_a_margin_that_is_too_large_back():
    at = f64(7.0).requires_grad_()
    close(torch.autograd.grad(ipo_loss(at, f64(0), 0.1).sum(), at)[0], [4.0])


def test_chosen_nll_by_hand():
    def check(candidate):
        close(candidate(f64(-10, -3), f64(5, 2)), [2.0, 1.5])

    holds_and_rejects(
        check,
        chosen_nll,
        {"sum": lambda lp, n: -lp, "sign": lambda lp, n: lp / n, "tokens of the batch": lambda lp, n: -lp / n.sum()},
    )


@pytest.mark.parametrize("loss", [dpo_loss, conservative_dpo_loss, robust_dpo_loss, ipo_loss])
def test_gradients_by_finite_differences(loss):
    more = (0.2,) if loss in (conservative_dpo_loss, robust_dpo_loss) else ()
    at = f64(0.4, -1.2, 2.0, 0.1)

    def total(x):
        return loss(x[:2], x[2:], 0.3, *more).sum()

    x = at.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(total(x), x)[0], numerical_gradient(total, at), rtol=1e-6, atol=1e-7)


def test_wrong_input_is_refused():
    for loss in (conservative_dpo_loss, robust_dpo_loss):
        with pytest.raises(ValueError, match="flipped labels"):
            loss(CHOSEN, REJECTED, BETA, 0.5)
    with pytest.raises(ValueError, match="shapes differ"):
        dpo_loss(f64(1, 2), f64(1), BETA)
    with pytest.raises(ValueError, match="tau"):
        ipo_loss(CHOSEN, REJECTED, 0.0)
