"""AlpacaEval's length-controlled rate: its formula by hand, its parameters found again, its fit checked from outside."""

import numpy as np
import pytest
from scipy import optimize

from tutelage.errors import UserError
from tutelage.evaluation.length_control import (
    GAMED_WEIGHT,
    STRENGTHS,
    Gamed,
    controlled,
    fit_soft_logistic,
    length_controlled_win_rate,
    length_feature,
    preference_probability,
    resampled,
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
        assert objective(ours) <= plain.fun + 1e-9
    assert (fit_soft_logistic(x, y, 1e-4) == 0).all()


def judged_with_difficulty(theta, phi, psi, longer=0, n=400, seed=0, gamed_each=400):
    """Verdicts drawn from the whole model: the model's own, and of two baselines that differ in length alone."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(size=n)
    baseline = rng.integers(400, 1600, n)
    lengths = np.maximum(baseline + rng.normal(longer, 400, n), 10).astype(int)
    truth = preference_probability(theta, phi, length_feature(lengths, baseline), psi, difficulty)
    votes = (rng.random(n) < truth).astype(float)
    delta = np.concatenate([rng.normal(side, 1, gamed_each) for side in (1.5, -1.5)])
    hard = np.tile(difficulty[:gamed_each], 2)
    liked = (rng.random(len(delta)) < preference_probability(0.0, phi, np.tanh(delta))).astype(float)
    return votes, lengths, baseline, difficulty, Gamed(liked, delta, hard)


def alpaca_eval(votes, lengths, baseline, difficulty, gamed):
    """AlpacaEval 2's length_controlled_v1 from its description, by another route: each row twice, once for each label,
    weighted by its share; the L1 penalty by proximal gradient steps (soft thresholds) instead of a split in two parts.
    """
    delta = np.asarray(baseline, float) - np.asarray(lengths, float)
    own = np.column_stack([np.tanh(delta / np.std(delta, ddof=1)), difficulty, np.ones(len(votes))])
    gamed_x = np.column_stack([np.tanh(gamed.std_delta_len), gamed.difficulty, np.zeros(len(gamed.preferences))])
    x, y = np.vstack([gamed_x, own]), np.concatenate([gamed.preferences, votes])
    weight = np.where(x[:, 2] == 1, 1.0, 0.1)

    def fit(rows, strength):
        twice = np.vstack([x[rows], x[rows]])
        sign = np.repeat([1.0, -1.0], len(rows))
        share = np.concatenate([y[rows], 1 - y[rows]]) * np.tile(weight[rows], 2)
        w = ahead = np.zeros(3)
        rate, t = 4 / (strength * np.linalg.norm(twice * np.sqrt(share)[:, None], 2) ** 2), 1.0
        for _ in range(600):
            margin = sign * (twice @ ahead)
            slope = -strength * twice.T @ (share * sign / (1 + np.exp(np.clip(margin, -500, 500))))
            moved = ahead - rate * slope
            new = np.sign(moved) * np.maximum(np.abs(moved) - rate, 0)
            t_new = (1 + np.sqrt(1 + 4 * t * t)) / 2
            ahead, w, t = new + (t - 1) / t_new * (new - w), new, t_new
        return w

    losses = []
    for strength in STRENGTHS:
        held_out = []
        for k in range(5):
            out = np.arange(len(y)) % 5 == k
            p = 1 / (1 + np.exp(-(x[out] @ fit(np.flatnonzero(~out), strength))))
            p = np.clip(p, 1e-15, 1 - 1e-15)
            held_out.append(-np.mean(weight[out] * (y[out] * np.log(p) + (1 - y[out]) * np.log(1 - p))))
        losses.append(np.mean(held_out))
    w = fit(np.arange(len(y)), STRENGTHS[int(np.argmin(losses))])
    return w, np.mean(1 / (1 + np.exp(-(w[2] + w[1] * difficulty))))


@pytest.mark.parametrize(("theta", "phi", "psi"), [(0.5, -1.2, 0.8), (-1.5, 0.0, 0.4)])
def test_with_all_its_terms_it_is_alpaca_evals_model(theta, phi, psi):
    votes, lengths, baseline, difficulty, gamed = judged_with_difficulty(theta, phi, psi, n=150, gamed_each=150)
    found = length_controlled_win_rate(votes, lengths, baseline, difficulty, gamed, resamples=0)
    (their_phi, their_psi, their_theta), rate = alpaca_eval(votes, lengths, baseline, difficulty, gamed)
    assert found["win_rate"] == pytest.approx(rate, abs=1e-5)
    ours = [found["theta"], found["phi"], found["psi"]]
    np.testing.assert_allclose(ours, [their_theta, their_phi, their_psi], atol=1e-4)
    assert GAMED_WEIGHT == 0.1


def test_padding_every_answer_moves_the_raw_rate_and_not_the_controlled_one():
    """Where the model's answers are always longer only the gamed baselines can tell what length is worth."""
    expected = float(np.mean(preference_probability(-0.4, -1.5, 0.0, 0.5, judged_with_difficulty(0, 0, 0)[3])))
    found = {}
    for name, longer in (("plain", 0), ("padded", 2500)):
        votes, lengths, baseline, difficulty, gamed = judged_with_difficulty(-0.4, -1.5, 0.5, longer)
        found[name] = controlled(list(votes), list(lengths), list(baseline), list(difficulty), gamed)
        assert found[name]["win_rate"] == pytest.approx(expected, abs=0.08)
        assert found[name]["phi"] == pytest.approx(-1.5, abs=0.5)
    assert found["padded"]["raw"] > found["plain"]["raw"] + 0.2
    assert abs(found["padded"]["win_rate"] - found["plain"]["win_rate"]) < 0.1
    votes, lengths, baseline, difficulty, _ = judged_with_difficulty(-0.4, -1.5, 0.5, 9000)
    assert controlled(list(votes), list(lengths), list(baseline), list(difficulty)) is None


@pytest.mark.parametrize(
    "bad", [([1, 0], [1, 2], [1, 2]), ([2.0] * 9, [1] * 9, [2] * 9), ([1] * 9, [1] * 9, [1] * 8 + [9.0])]
)
def test_bad_input(bad):
    if bad[0][0] == 1 and len(bad[0]) == 9:
        assert length_controlled_win_rate(*bad, resamples=0)["win_rate"] > 0.5
        return
    with pytest.raises(UserError):
        length_controlled_win_rate(*bad)


def test_the_share_that_length_explains_has_an_interval_over_prompts():
    """Longer answers win whatever they say: all of the gain goes, and the interval says how sure that is."""
    rng = np.random.default_rng(3)
    baseline = rng.integers(400, 600, 600)
    lengths = baseline + rng.integers(-100, 300, 600)
    votes = (rng.random(600) < 1 / (1 + np.exp(-(lengths - baseline) / 100))).astype(float)
    found = length_controlled_win_rate(votes, lengths, baseline)
    low, high = found["explained_ci95"]
    share = (found["raw"] - found["win_rate"]) / (found["raw"] - 0.5)
    assert low < share < high and low < 1 < high and high - low < 1.2
    # Three votes on each prompt are no more prompts than one.
    thrice = [np.repeat(v, 3) for v in (votes, lengths, baseline)]
    same = length_controlled_win_rate(*thrice, clusters=np.repeat(np.arange(600), 3).tolist())
    fooled = length_controlled_win_rate(*thrice)
    width = [ends[1] - ends[0] for ends in (found["explained_ci95"], same["explained_ci95"], fooled["explained_ci95"])]
    assert width[1] == pytest.approx(width[0], rel=0.1) and width[2] < 0.7 * width[0]
    assert length_controlled_win_rate(votes, lengths, baseline, resamples=0)["explained_ci95"] is None


def test_where_there_may_be_no_gain_no_share_is_excluded():
    rng = np.random.default_rng(4)
    lengths, baseline = rng.integers(100, 900, 80), rng.integers(100, 900, 80)
    votes = (np.arange(80) % 2).astype(float)
    assert length_controlled_win_rate(votes, lengths, baseline)["explained_ci95"] is None


def test_resampling_draws_whole_clusters():
    drawn = list(resampled(5, ["a", "b", "a", "c", "b"], 50))
    for rows in drawn:
        counts = np.bincount(rows, minlength=5)
        assert counts[0] == counts[2] and counts[1] == counts[4]
    plain = np.random.default_rng(0)
    assert all((rows == plain.integers(0, 4, 4)).all() for rows in resampled(4, None, 3))
    with pytest.raises(UserError, match="3 rows but 2"):
        next(resampled(3, ["a", "b"], 1))
