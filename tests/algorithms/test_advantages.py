"""GAE against hand-worked numbers, the double sum that defines it, and its two limits."""

import math

import pytest
import torch

from tutelage.algorithms.advantages import explained_variance, gae, scale_by_std, whiten

from .checks import close, f64, holds_and_rejects, ints, offsets_of, random_lengths

REWARDS, VALUES = f64(-0.004, 0.01, 1.498), f64(0.5, 0.8, 1.0)
ADVANTAGES = f64(0.944945, 0.683100, 0.498000)


def gae_by_definition(rewards, values, offsets, gamma, lam):
    """A_t = sum_l (gamma lam)^l delta_{t+l}: the double sum, one sequence after the other."""
    advantages = torch.zeros_like(rewards)
    for n in range(len(offsets) - 1):
        start, end = int(offsets[n]), int(offsets[n + 1])
        for t in range(start, end):
            for later in range(t, end):
                next_value = float(values[later + 1]) if later + 1 < end else 0.0
                delta = float(rewards[later]) + gamma * next_value - float(values[later])
                advantages[t] += (gamma * lam) ** (later - t) * delta
    return advantages, advantages + values


def random_batch(seed, count=9):
    generator = torch.Generator().manual_seed(seed)
    offsets = offsets_of(random_lengths(generator, count))
    rewards, values = torch.randn(2, int(offsets[-1]), generator=generator, dtype=torch.float64)
    return rewards, values, offsets


def one_long_sequence(rewards, values, offsets, gamma, lam):
    return gae(rewards, values, offsets[[0, -1]], gamma, lam)


def value_after_the_token(rewards, values, offsets, gamma, lam):
    return gae(rewards, values.roll(-1), offsets, gamma, lam)


def without_next_value(rewards, values, offsets, gamma, lam):
    advantages, _ = gae(rewards - values, torch.zeros_like(values), offsets, gamma, lam)
    return advantages, advantages + values


def gamma_forgotten_in_the_carry(rewards, values, offsets, gamma, lam):
    return gae(rewards, values, offsets, gamma, lam / gamma)


def returns_are_advantages(rewards, values, offsets, gamma, lam):
    advantages, _ = gae(rewards, values, offsets, gamma, lam)
    return advantages, advantages


MUTANTS = {f.__name__: f for f in (value_after_the_token, without_next_value, returns_are_advantages)}


def test_by_hand():
    def check(candidate):
        advantages, returns = candidate(REWARDS, VALUES, ints(0, 3), 1.0, 0.95)
        close(advantages, ADVANTAGES)
        close(returns, [1.444945, 1.483100, 1.498000])

    holds_and_rejects(check, gae, MUTANTS)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.97, 0.0)])
def test_equals_the_double_sum(gamma, lam):
    def check(candidate):
        for seed in range(4):
            batch = random_batch(seed)
            advantages, returns = candidate(*batch, gamma, lam)
            expected, expected_returns = gae_by_definition(*batch, gamma, lam)
            torch.testing.assert_close(advantages, expected)
            torch.testing.assert_close(returns, expected_returns)

    mutants = dict(MUTANTS)
    if lam > 0:  # with lambda 0 nothing is carried, so these two are the same formula
        mutants["sequences run together"] = one_long_sequence
        if gamma < 1:
            mutants["gamma forgotten in the carry"] = gamma_forgotten_in_the_carry
    holds_and_rejects(check, gae, mutants)


def test_lambda_one_is_reward_to_go_minus_value():
    rewards, values, offsets = random_batch(5)
    advantages, returns = gae(rewards, values, offsets, 1.0, 1.0)
    to_go = torch.cat([part.flip(0).cumsum(0).flip(0) for part in rewards.split(offsets.diff().tolist())])
    torch.testing.assert_close(returns, to_go)
    torch.testing.assert_close(advantages, to_go - values)


def test_lambda_zero_is_the_one_step_error():
    advantages, _ = gae(REWARDS, VALUES, ints(0, 3), 1.0, 0.0)
    close(advantages, [-0.004 + 0.8 - 0.5, 0.01 + 1.0 - 0.8, 1.498 - 1.0])


def test_a_batch_is_its_sequences():
    rewards, values, offsets = random_batch(6)
    together, _ = gae(rewards, values, offsets, 0.9, 0.7)
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        alone, _ = gae(rewards[start:end], values[start:end], ints(0, end - start), 0.9, 0.7)
        torch.testing.assert_close(together[start:end], alone)


def test_perfect_values_leave_no_advantage():
    rewards, _, offsets = random_batch(7)
    to_go = torch.cat([part.flip(0).cumsum(0).flip(0) for part in rewards.split(offsets.diff().tolist())])
    advantages, returns = gae(rewards, to_go, offsets, 1.0, 0.95)
    torch.testing.assert_close(advantages, torch.zeros_like(advantages), rtol=0, atol=1e-12)
    torch.testing.assert_close(returns, to_go)


def test_inputs_are_not_changed():
    rewards, values, offsets = random_batch(8)
    before = rewards.clone(), values.clone()
    gae(rewards, values, offsets, 1.0, 0.95)
    assert torch.equal(rewards, before[0]) and torch.equal(values, before[1])


def test_whiten_by_hand():
    def check(candidate):
        close(candidate(ADVANTAGES), [1.288529, -0.139517, -1.149012], digits=5)

    holds_and_rejects(
        check,
        whiten,
        {
            "sample variance": lambda x: (x - x.mean()) / x.std(),
            "mean kept": scale_by_std,
            "not scaled": lambda x: x - x.mean(),
        },
    )


def test_scale_by_std_by_hand():
    def check(candidate):
        close(candidate(ADVANTAGES), [1.997210, 0.569165, -0.440330], digits=5)

    holds_and_rejects(
        check,
        scale_by_std,
        {"mean removed": whiten, "mean scaled too": lambda x: x / x.std(correction=0)},
    )


def test_sample_variance_is_the_other_one():
    """The number that a wrong correction gives, so that the two are never confused."""
    close((ADVANTAGES - ADVANTAGES.mean()) / ADVANTAGES.std(), [1.052079, -0.113915, -0.938164], digits=5)


@pytest.mark.parametrize("function", [whiten, scale_by_std])
def test_mask_leaves_padding_out_of_mean_and_variance(function):
    mask = torch.tensor([True, False, True, True, False])
    padded = f64(0.944945, 99.0, 0.6831, 0.498, -5.0)

    def check(candidate):
        out = candidate(padded, mask)
        close(out[mask], function(ADVANTAGES))
        close(out[~mask], [0, 0])

    holds_and_rejects(
        check,
        function,
        {
            "mask ignored": lambda x, m: function(x).masked_fill(~m, 0.0),
            "padding returned": lambda x, m: function(x),
            "padding counted as zeros": lambda x, m: function(x * m).masked_fill(~m, 0.0),
        },
    )


def test_equal_values_whiten_to_zero():
    close(whiten(f64(2, 2, 2)), [0, 0, 0])
    close(scale_by_std(f64(2, 2, 2)), [2, 2, 2])


def test_explained_variance():
    returns = f64(1, 2, 3, 4)

    def check(candidate):
        close(candidate(returns, returns), 1.0)
        close(candidate(returns + 7, returns), 1.0)
        close(candidate(torch.full_like(returns, 2.5), returns), 0.0)
        close(candidate(-returns, returns), -3.0)
        close(candidate(f64(1, 2, 3, 0), returns), 1 - 3 / 1.25)
        close(candidate(f64(1, 2, 3, 0) / 100, returns / 100), 1 - 3 / 1.25)

    holds_and_rejects(
        check,
        explained_variance,
        {
            "variance of the values below": lambda v, r: 1 - (r - v).var() / v.var().clamp(min=1e-8),
            "mean squared error": lambda v, r: 1 - (r - v).square().mean() / r.var(correction=0),
            "unexplained": lambda v, r: (r - v).var() / r.var(),
        },
    )
    constant = f64(1, 1)
    assert explained_variance(constant, constant) == 1 and explained_variance(f64(0, 1), constant) == 0


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="values_T is"):
        gae(REWARDS, VALUES[:2], ints(0, 3), 1.0, 0.95)
    with pytest.raises(ValueError, match="empty"):
        gae(REWARDS, VALUES, ints(0, 0, 3), 1.0, 0.95)
    with pytest.raises(ValueError, match="bool"):
        whiten(REWARDS, f64(1, 1, 0))
    with pytest.raises(ValueError, match="no values"):
        whiten(REWARDS, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="shapes differ"):
        explained_variance(f64(1.0), f64(1.0, 2.0))
    assert math.isfinite(float(whiten(f64(3.0))))
