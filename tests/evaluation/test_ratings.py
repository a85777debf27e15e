"""Bradley-Terry and Davidson against worked numbers, and intervals that know what a prompt is."""

import numpy as np
import pytest

from tutelage.errors import UserError
from tutelage.evaluation.ratings import ELO, Game, bradley_terry, davidson, ratings


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


def test_no_finite_strengths():
    with pytest.raises(UserError, match="never lost"):
        bradley_terry(np.array([[0, 5], [0, 0]]))
    with pytest.raises(UserError):
        bradley_terry(np.ones((2, 3)))


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
    ties = ratings([Game("a", "b", 0.5, i) for i in range(4)], resamples=10)
    assert ties[0]["rating"] == ties[1]["rating"] == pytest.approx(1000)
