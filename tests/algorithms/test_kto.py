"""KTO: hand-worked values on both sides, the baseline, and gradients."""

import pytest
import torch

from tutelage.algorithms.kto import kl_baseline, kto_loss

from .checks import close, f64, holds_and_rejects, numerical_gradient

UP = torch.tensor([True, False])


def test_by_hand():
    def check(candidate):
        close(candidate(f64(1.0, -0.5), UP, torch.tensor(0.2), 0.1), [0.480011, 0.482507])

    def without_baseline(k, up, z, beta):
        return kto_loss(k, up, torch.tensor(0.0), beta)

    holds_and_rejects(
        check,
        kto_loss,
        {
            "no baseline": without_baseline,
            "sides exchanged": lambda k, up, z, beta: kto_loss(k, ~up, z, beta),
            "no beta": lambda k, up, z, beta: kto_loss(k, up, z, 1.0),
            "value, not loss": lambda k, up, z, beta: 1 - kto_loss(k, up, z, beta),
        },
    )


def test_weights_fall_on_their_side():
    plain, weighted = (kto_loss(f64(1, -0.5), UP, torch.tensor(0.2), 0.1, *w) for w in ((), (2.0, 3.0)))
    close(weighted / plain, [2.0, 3.0])


def test_baseline_is_the_clamped_mean_without_gradient():
    def check(candidate):
        close(candidate(f64(1, -2, 4)), 1.0)
        close(candidate(f64(1, -4)), 0.0)

    holds_and_rejects(
        check,
        kl_baseline,
        {
            "not clamped": lambda k: k.mean(),
            "clamped one by one": lambda k: k.clamp(min=0).mean(),
            "sum": lambda k: k.sum().clamp(min=0),
        },
    )
    assert not kl_baseline(f64(1, 2).requires_grad_()).requires_grad


def test_gradient_vanishes_far_from_the_baseline_and_pushes_up_and_down():
    def total(k):
        return kto_loss(k, torch.tensor([True, False, True]), torch.tensor(0.2), 0.5).sum()

    at = f64(0.3, 0.4, 60.0)
    k = at.clone().requires_grad_()
    gradient = torch.autograd.grad(total(k), k)[0]
    torch.testing.assert_close(gradient, numerical_gradient(total, at), rtol=1e-6, atol=1e-8)
    assert gradient[0] < 0 < gradient[1] and abs(gradient[2]) < 1e-9


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="bool"):
        kto_loss(f64(1, 2), f64(1, 0), torch.tensor(0.0), 0.1)
    with pytest.raises(ValueError, match="two mismatched pairs"):
        kl_baseline(f64(1.0))
