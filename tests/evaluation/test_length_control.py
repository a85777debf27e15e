"""AlpacaEval's length-controlled rate: its formula by hand, its parameters found again, its fit checked from outside."""

import numpy as np
import pytest
from scipy import optimize

from tutelage.errors import UserError
from tutelage.evaluation.length_control import (
    fit_soft_logistic,
    length_controlled_win_rate,
    length_feature,
    preference_probability,
    separable,
)


def test_the_formula_by_hand():
    # theta .4, phi .8, tanh(1.2) = .833655, psi * difficulty = .1: sigmoid(.4 + .666924 + .1) = .762589
    assert preference_probability(0.4, 0.8, np.tanh(1.2), 1.0, 0.1) == pytest.approx(0.762589, abs=1e-6)
    assert preference_probability(0.4, 0.8, 0.0, 1.0, 0.1) == pytest.approx(0.622459, abs=1e-6)


def test_the_length_feature_by_hand():
    # baseline - model: 2, 0, -2; sd (ddof 1) 2
    np.testing.assert_allclose(length_feature([8, 10, 12], [10, 10, 10]), np.tanh([1, 0, -1]))
    assert (length_feature([5, 6], [5, 6]) == 0).all() and length_feature([5], [7])[0] == 0


def simulated(theta, phi, n=3000, seed=0):
    rng = np.random.default_rng(seed)
    lengths, baseline = rng.integers(100, 3000, n), rng.integers(100, 3000, n)
    truth = preference_probability(theta, phi, length_feature(lengths, baseline))
    return (rng.random(n) < truth).astype(float), lengths, baseline


def test_it_finds_what_the_verdicts_were_drawn_from():
    votes, lengths, baseline = simulated(0.4, -1.5)
    found = length_controlled_win_rate(votes, lengths, baseline, resamples=60)
    assert found["theta"] == pytest.approx(0.4, abs=0.1) and found["phi"] == pytest.approx(-1.5, abs=0.15)
    assert found["win_rate"] == pytest.approx(1 / (1 + np.exp(-found["theta"])))
    assert found["ci95"][0] < 0.5987 < found["ci95"][1] and found["ci95"][1] - found["ci95"][0] < 0.06
    assert found["raw"] == votes.mean()


def test_a_win_by_length_alone_is_taken_away():
    rng = np.random.default_rng(1)
    baseline = rng.integers(400, 600, 1000)
    lengths = baseline + rng.integers(-100, 900, 1000)
    votes = (rng.random(1000) < 1 / (1 + np.exp(-(lengths - baseline) / 150))).astype(float)
    found = length_controlled_win_rate(votes, lengths, baseline, resamples=20)
    assert found["raw"] > 0.75 and abs(found["win_rate"] - 0.5) < 0.1 and found["phi"] < 0


def test_length_and_quality_can_be_told_apart_only_where_either_may_be_longer():
    assert separable([1, 2, 3, 9], [2, 3, 4, 5]) and not separable([1, 2, 3, 4], [2, 3, 4, 5])
    assert not separable([], []) and not separable([5] * 99 + [3], [4] * 100)


def test_swapping_the_models_mirrors_the_rate():
    votes, lengths, baseline = simulated(-0.3, 0.7, n=500)
    one = length_controlled_win_rate(votes, lengths, baseline, resamples=0)
    other = length_controlled_win_rate(1 - votes, baseline, lengths, resamples=0)
    assert one["win_rate"] == pytest.approx(1 - other["win_rate"], abs=1e-4)


def test_the_fit_minimizes_the_penalized_loss():
    """A second route: the same objective, minimized without derivatives."""
    rng = np.random.default_rng(2)
    x, y = np.column_stack([np.ones(50), rng.normal(size=50)]), rng.random(50)
    for strength in (0.05, 1.0, 100.0):

        def objective(w, strength=strength):
            logits = x @ w
            return np.abs(w).sum() + strength * (np.logaddexp(0, logits) - y * logits).sum()

        plain = optimize.minimize(objective, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
        ours = fit_soft_logistic(x, y, strength)
        assert objective(ours) <= plain.fun + 1e-6
    assert (fit_soft_logistic(x, y, 1e-4) == 0).all()


@pytest.mark.parametrize(
    "bad", [([1, 0], [1, 2], [1, 2]), ([2.0] * 9, [1] * 9, [2] * 9), ([1] * 9, [1] * 9, [1] * 8 + [9.0])]
)
def test_bad_input(bad):
    if bad[0][0] == 1 and len(bad[0]) == 9:
        assert length_controlled_win_rate(*bad, resamples=0)["win_rate"] > 0.5
        return
    with pytest.raises(UserError):
        length_controlled_win_rate(*bad)
