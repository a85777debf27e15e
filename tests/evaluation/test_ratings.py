"""Bradley-Terry and Davidson against worked numbers, and intervals that know what a prompt is."""

import numpy as np
import pytest
from scipy import optimize

from tutelage.errors import UserError
from tutelage.evaluation.ratings import ELO, Game, bradley_terry, davidson, davidson_with_covariate, ratings


def test_two_models_by_hand():
    t = bradley_terry(np.array([[0, 7], [3, 0]]))
    assert t[0] - t[1] == pytest.approx(np.log(7 / 3)) == pytest.approx(0.847298, abs=1e-6)
    assert ELO * (t[0] - t[1]) == pytest.approx(147.190714, abs=1e-5)


def test_three_models():
    t = bradley_terry(np.array([[0, 7, 8], [3, 0, 6], [2, 4, 0]]))
    np.testing.assert_allclose(t, [0.740570, -0.149102, -0.591468], atol=2e-6)
    # at the maximum each model wins as often as the model expects
    expected = sum(10 / (1 + np.exp(t[j] - t[0])) for j in (1, 2))
    assert expected == pytest.approx(15)


def test_davidson_by_hand():
    # 7 wins, 3 losses, 2 ties: dt = log(7/3), nu = 2 / sqrt(21)
    t, nu = davidson(np.array([[0, 7], [3, 0]]), np.array([[0, 2], [2, 0]]))
    assert t[0] - t[1] == pytest.approx(0.847298, abs=1e-5) and nu == pytest.approx(0.436436, abs=1e-5)
    assert davidson(np.array([[0, 7], [3, 0]]), np.zeros((2, 2)))[1] == 0


TABLE = np.array([[0, 7, 8, 3], [3, 0, 6, 4], [2, 4, 0, 9], [6, 1, 2, 0]])
TIES = np.array([[0, 2, 5, 0], [2, 0, 1, 3], [5, 1, 0, 4], [0, 3, 4, 0]])


def test_bradley_terry_by_another_way():
    """Hunter's minorization (2004, equation 3) instead of Newton's method."""
    wins = TABLE + TIES / 2
    strength = np.ones(4)
    for _ in range(5000):
        strength = wins.sum(1) / ((wins + wins.T) / (strength[:, None] + strength[None, :])).sum(1)
    expected = np.log(strength)
    np.testing.assert_allclose(bradley_terry(wins), expected - expected.mean(), atol=1e-8)


def test_davidson_by_another_way():
    """The likelihood written out pair by pair as in the paper, maximized without derivatives."""

    def loss(parameters):
        p, nu, total = np.exp(np.append(parameters[:3], 0.0)), np.exp(parameters[3]), 0.0
        for i in range(4):
            for j in range(i):
                even = nu * np.sqrt(p[i] * p[j])
                for count, chance in ((TABLE[i, j], p[i]), (TABLE[j, i], p[j]), (TIES[i, j], even)):
                    total -= count * np.log(chance / (p[i] + p[j] + even))
        return total

    exact = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 20_000, "maxfev": 20_000}
    found = optimize.minimize(loss, np.zeros(4), method="Nelder-Mead", options=exact)
    expected = np.append(found.x[:3], 0.0)
    strengths, nu = davidson(TABLE, TIES)
    np.testing.assert_allclose(strengths, expected - expected.mean(), atol=1e-6)
    assert nu == pytest.approx(np.exp(found.x[3]), abs=1e-6)


def test_a_covariate_by_another_way():
    """Strengths, nu and gamma together, on the likelihood of each game, by scipy's BFGS."""
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 3, 400), rng.integers(0, 3, 400)
    a, b = a[a != b], b[a != b]
    x, points = rng.normal(size=len(a)), rng.choice([1.0, 0.5, 0.0], len(a), p=[0.5, 0.2, 0.3])

    def loss(parameters):
        t = np.append(parameters[:2], 0.0)
        eta = t[a] - t[b] + parameters[3] * x
        logits = np.stack([eta / 2, np.full_like(eta, parameters[2]), -eta / 2])
        chosen = np.where(points == 1, logits[0], np.where(points == 0.5, logits[1], logits[2]))
        return -(chosen - np.log(np.exp(logits).sum(0))).sum() + parameters[3] ** 2 / (2 * 10.0**2)

    found = optimize.minimize(loss, np.zeros(4), options={"gtol": 1e-8}).x
    strengths, nu, gamma, _ = davidson_with_covariate(a, b, points, x)
    expected = np.append(found[:2], 0.0)
    np.testing.assert_allclose(strengths, expected - expected.mean(), atol=1e-5)
    assert (nu, gamma) == (pytest.approx(np.exp(found[2]), abs=1e-5), pytest.approx(found[3], abs=1e-5))
    twice = davidson_with_covariate(np.tile(a, 2), np.tile(b, 2), np.tile(points, 2), np.tile(x, 2))
    weighted = davidson_with_covariate(a, b, points, x, np.full(len(a), 2.0))
    np.testing.assert_allclose(twice[0], weighted[0], atol=1e-9)


def test_a_covariate_that_decides_everything_stays_finite():
    x = np.array([2.0, 1.0, -1.0, -2.0] * 6)
    strengths, _, gamma, _ = davidson_with_covariate(np.zeros(24, int), np.ones(24, int), (x > 0) * 1.0, x)
    assert np.isfinite(strengths).all() and 2 < gamma < 50 and abs(strengths[0]) < 1e-6


def test_no_finite_strengths():
    with pytest.raises(UserError, match="never lost"):
        bradley_terry(np.array([[0, 5], [0, 0]]))
    with pytest.raises(UserError):
        bradley_terry(np.ones((2, 3)))
    with pytest.raises(UserError, match="never lost"):  # the tie can be had at any distance: nu grows with it
        davidson(np.array([[0, 5], [0, 0]]), np.array([[0, 2], [2, 0]]))
    assert davidson(np.zeros((2, 2)), np.array([[0, 2], [2, 0]]))[1] == np.inf


def games(copies=1):
    rng = np.random.default_rng(0)
    found = []
    for prompt in range(60):
        points = {
            pair: float(rng.random() < p) for pair, p in ((("a", "b"), 0.7), (("b", "c"), 0.7), (("a", "c"), 0.85))
        }
        found += [Game(*pair, p, prompt) for pair, p in points.items() for _ in range(copies)]
    return found


def test_ratings_are_ordered_centered_and_honest_about_prompts():
    table = ratings(games())
    assert [row["model"] for row in table] == ["a", "b", "c"] and not table[0]["prior"]
    assert np.mean([row["rating"] for row in table]) == pytest.approx(1000)
    assert all(row["ci95"][0] < row["rating"] < row["ci95"][1] and row["games"] == 120 for row in table)
    repeated = ratings(games(copies=5))  # five votes that are copies teach nothing new
    for one, five in zip(table, repeated, strict=True):
        assert five["rating"] == pytest.approx(one["rating"]) and five["ci95"] == pytest.approx(one["ci95"], abs=1e-6)


def test_a_model_that_always_won_gets_a_finite_rating_that_says_so():
    table = ratings([Game("a", "b", 1.0, i) for i in range(10)])
    assert table[0]["prior"] and np.isfinite(table[0]["rating"])
    assert table[0]["rating"] - table[1]["rating"] == pytest.approx(ELO * np.log(10.5 / 0.5))
    nearly = ratings([Game("a", "b", 1.0 - 0.5 * (i == 0), i) for i in range(10)])
    assert nearly[0]["prior"] and 0 < nearly[0]["rating"] - nearly[1]["rating"] < ELO * np.log(10.5 / 0.5)
    ties = ratings([Game("a", "b", 0.5, i) for i in range(4)], resamples=10)
    assert ties[0]["rating"] == ties[1]["rating"] == pytest.approx(1000)


def test_ties_are_ties_and_not_half_wins():
    """7 wins, 3 losses, 2 ties: Davidson's odds are 7 : 3, half wins would say 8 : 4."""
    table = ratings([Game("a", "b", p, i) for i, p in enumerate([1.0] * 7 + [0.0] * 3 + [0.5] * 2)])
    assert table[0]["rating"] - table[1]["rating"] == pytest.approx(ELO * np.log(7 / 3))
    assert [(row["games"], row["ties"]) for row in table] == [(12, 2)] * 2
    with pytest.raises(UserError, match="points"):
        ratings([Game("a", "b", 0.7, 0)])


def judged_by_length(bias, prompts=400, padding=600):
    """b is better than a and a writes longer, c is as good as a and as short as b; the judge likes length by `bias`."""
    rng = np.random.default_rng(1)
    quality, longer = {"a": 0.0, "b": 0.6, "c": 0.0}, {"a": padding, "b": 0, "c": 0}
    found = []
    for prompt in range(prompts):
        size = {name: int(rng.integers(200, 1000) + more) for name, more in longer.items()}
        for one, other in (("a", "b"), ("b", "c"), ("a", "c")):
            difference = (size[one] - size[other]) / (size[one] + size[other])
            eta = quality[one] - quality[other] + bias * difference
            chances = np.exp([eta / 2, -1.0, -eta / 2])
            points = rng.choice([1.0, 0.5, 0.0], p=chances / chances.sum())
            found.append(Game(one, other, float(points), prompt, (size[one], size[other])))
    return found


def test_at_equal_length_the_judge_s_taste_for_length_is_gone():
    table = {row["model"]: row for row in ratings(judged_by_length(4.0), resamples=100)}
    assert table["a"]["rating"] > table["b"]["rating"] + 30  # the longest is ahead
    even = {name: row["length_controlled"] for name, row in table.items()}
    truth = {name: 1000 + ELO * (q - 0.2) for name, q in {"a": 0.0, "b": 0.6, "c": 0.0}.items()}
    for name, expected in truth.items():
        low, high = even[name]["ci95"]
        assert low < expected < high and high - low < 120 and even[name]["gamma"] > 0.5
    assert np.mean([one["rating"] for one in even.values()]) == pytest.approx(1000)


def test_where_length_cannot_be_told_from_strength_it_is_not_controlled_for():
    few = judged_by_length(1.0, prompts=6)
    no_lengths = [Game(g.a, g.b, g.points, g.prompt) for g in judged_by_length(1.0, prompts=30)]
    even = [Game(g.a, g.b, g.points, g.prompt, (50, 50)) for g in judged_by_length(1.0, prompts=30)]
    foretold = [Game("a", "b", i % 2, i, (900 + i % 3, 300)) for i in range(60)]
    for games in (few, no_lengths, even, foretold):
        assert all(row["length_controlled"] is None for row in ratings(games, resamples=5))
    always = [Game("a", "b", 1.0, i, (100 + i, 150)) for i in range(60)]
    assert ratings(always, resamples=5)[0]["prior"] and ratings(always, resamples=5)[0]["length_controlled"] is None


def test_near_copies_that_tie_do_not_push_the_others_away():
    """a and b say the same half of the time; c beats both in 70 of 100 and hardly ever ties: that is log(7/3) apart."""
    rng = np.random.default_rng(0)
    found = []
    for prompt in range(1000):
        found.append(Game("a", "b", float(rng.choice([1, 0.5, 0], p=[0.25, 0.5, 0.25])), prompt))
        found += [Game("c", other, float(rng.random() < 0.7), prompt) for other in "ab"]
    table = {row["model"]: row for row in ratings(found, resamples=50)}
    assert table["c"]["ties_by_pair"] and table["a"]["ties"] > 400
    assert table["c"]["rating"] - table["a"]["rating"] == pytest.approx(ELO * np.log(7 / 3), abs=20)
    one_nu = davidson(
        np.array([[0, 250, 300], [250, 0, 300], [700, 700, 0]]), np.array([[0, 500, 0], [500, 0, 0], [0] * 3])
    )
    assert ELO * (one_nu[0][2] - one_nu[0][0]) > 170  # what a common nu would have said
    alike = ratings(judged_by_length(0.0), resamples=5)
    assert not alike[0]["ties_by_pair"]
