"""KL estimators: the exact value, their bias and their gradients by full enumeration; the controller by hand."""

import math

import pytest
import torch

from tutelage.algorithms.kl import adaptive_kl_coef, exact_kl, k1, k2, k3, mean_and_standard_error, sequence_kl

from .checks import close, f64, holds_and_rejects, ints

PI, REFERENCE = f64(0.5, 0.3, 0.2), f64(0.4, 0.4, 0.2)
KL = 0.025267


def expectation(estimator):
    return (PI * estimator(PI.log(), REFERENCE.log())).sum()


@pytest.mark.parametrize(
    ("estimator", "expected", "mutants"),
    [
        (k1, KL, {"sign": lambda p, q: q - p}),
        (k2, 0.024862, {"no half": lambda p, q: (p - q).square()}),
        (k3, KL, {"ratio upside down": lambda p, q: (p - q).expm1() - (p - q), "no -L": lambda p, q: (q - p).expm1()}),
    ],
)
def test_expectation_by_enumeration(estimator, expected, mutants):
    def check(candidate):
        close(expectation(candidate), expected)
        if candidate is not k1:
            assert (candidate(PI.log(), REFERENCE.log()) >= 0).all()

    holds_and_rejects(check, estimator, mutants)


def test_k2_and_k3_agree_with_k1_squared_for_small_steps():
    logprobs, reference = f64(-1.0, -2.0), f64(-1.001, -1.9995)
    torch.testing.assert_close(k2(logprobs, reference), k3(logprobs, reference), rtol=1e-3, atol=0)


def test_k3_keeps_its_digits_near_zero_in_float32():
    logprobs = torch.tensor([-1.0])
    reference = logprobs + 2**-12
    assert float(k3(logprobs, reference)) == pytest.approx(2**-25, rel=1e-3)


@pytest.mark.parametrize(("estimator", "expected"), [(k1, 0.0), (k2, 0.172457), (k3, 0.174443)])
def test_expected_gradient_as_a_loss(estimator, expected):
    """No gradient flows through sampling: only k2's is the gradient of KL(pi || ref), at logit 0.3."""
    logit = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    probabilities = torch.stack([logit.sigmoid(), 1 - logit.sigmoid()])
    reference = f64(0.4, 0.6).log()
    loss = (probabilities.detach() * estimator(probabilities.log(), reference)).sum()
    close(torch.autograd.grad(loss, logit)[0], expected)


def test_exact_kl():
    def check(candidate):
        close(candidate(PI.log(), REFERENCE.log()), KL)
        close(candidate(torch.stack([PI, REFERENCE]).log(), torch.stack([REFERENCE] * 2).log()), [KL, 0.0])

    holds_and_rejects(
        check,
        exact_kl,
        {
            "reversed": lambda p, q: exact_kl(q, p),
            "sign": lambda p, q: -exact_kl(p, q),
            "mean over the vocabulary": lambda p, q: (p.exp() * (p - q)).mean(-1),
        },
    )


def test_exact_kl_gradient_matches_k2s():
    logit = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    probabilities = torch.stack([logit.sigmoid(), 1 - logit.sigmoid()])
    close(torch.autograd.grad(exact_kl(probabilities.log(), f64(0.4, 0.6).log()), logit)[0], 0.172457)


def test_exact_kl_with_impossible_tokens():
    logprobs = f64(0.5, 0.5, 0.0).log().requires_grad_()
    value = exact_kl(logprobs, f64(0.25, 0.75, 0.0).log())
    close(value, 0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert torch.autograd.grad(value, logprobs)[0].isfinite().all()
    assert exact_kl(f64(0.5, 0.5).log(), f64(1.0, 0.0).log()).item() == math.inf


def test_sequence_kl_sums_each_sequence():
    logprobs, reference = f64(-1, -2, -0.5, -3), f64(-1.2, -1.5, -0.6, -3.5)

    def check(candidate):
        close(candidate(k1(logprobs, reference), ints(0, 3, 4)), [-0.2, 0.5])

    holds_and_rejects(
        check,
        sequence_kl,
        {
            "mean over tokens": lambda k, o: sequence_kl(k, o) / o.diff(),
            "last token dropped": lambda k, o: torch.stack([k[0:2].sum(), k[3:3].sum()]),
        },
    )


def test_mean_and_standard_error():
    def check(candidate):
        mean, error = candidate(f64(1, 2, 3, 4, 5))
        close(mean, 3.0)
        close(error, math.sqrt((4 + 1 + 0 + 1 + 4) / 4 / 5))
        close(torch.stack(candidate(f64(1, 3))), [2.0, 1.0])

    holds_and_rejects(
        check,
        mean_and_standard_error,
        {
            "population variance": lambda x: (x.mean(), x.std(correction=0) / len(x) ** 0.5),
            "no root of N": lambda x: (x.mean(), x.std()),
        },
    )
    mean, error = mean_and_standard_error(f64(2.0))
    assert mean == 2.0 and error.isnan()


def test_adaptive_controller_by_hand():
    """Ziegler: 0.15, target 6 nats, 512 episodes, horizon 10 000; 6.3 is inside the clip, 9 and 0 are outside."""

    def check(candidate):
        for kl, expected in [(9.0, 0.151536), (6.3, 0.150384), (0.0, 0.148464), (6.0, 0.15)]:
            close(candidate(0.15, kl, 512, 6.0, 10_000), expected)

    holds_and_rejects(
        check,
        adaptive_kl_coef,
        {
            "sign": lambda c, kl, n, target, h: c * (1 - min(max(kl / target - 1, -0.2), 0.2) * n / h),
            "no clip": lambda c, kl, n, target, h: c * (1 + (kl / target - 1) * n / h),
            "constant gain": lambda c, kl, n, target, h: c * (1 + min(max(kl / target - 1, -0.2), 0.2) * 0.1),
        },
    )


def test_wrong_shapes_are_refused_before_they_broadcast():
    with pytest.raises(ValueError, match="shapes differ"):
        k1(torch.zeros(3), torch.zeros(1))
    with pytest.raises(ValueError, match="offsets end at 4"):
        sequence_kl(torch.zeros(3), ints(0, 4))
    with pytest.raises(ValueError, match="int64"):
        sequence_kl(torch.zeros(3), torch.tensor([0, 3], dtype=torch.int32))
    with pytest.raises(ValueError, match="start at 0"):
        sequence_kl(torch.zeros(3), ints(1, 3))
    with pytest.raises(ValueError, match="positive"):
        adaptive_kl_coef(0.1, 1.0, 10, 0.0, 100)
    with pytest.raises(ValueError, match="positive"):
        adaptive_kl_coef(0.1, 1.0, 10, 6.0, 0.0)
