import random
from itertools import pairwise

import numpy as np
import pytest

from tutelage.feedback.reliability import dawid_skene, labeler_accuracies, labeler_weights


def test_one_step_by_hand():
    labels = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1], [0, 1, 0]])
    found = dawid_skene(np.eye(2)[labels], iterations=1)
    assert found.posterior[:, 1] == pytest.approx([0.836120, 0.910747, 0.203252, 0.337838], abs=1e-6)


def test_each_step_raises_the_likelihood():
    rng = np.random.default_rng(0)
    counts = np.eye(3)[rng.integers(0, 3, (40, 5))]

    def likelihood(model):
        terms = np.einsum("ijl,jcl->ic", counts, np.log(model.confusion + 1e-300))
        return np.log(np.exp(terms) @ model.prior).sum()

    values = [likelihood(dawid_skene(counts, iterations=n)) for n in range(1, 12)]
    assert all(b >= a - 1e-9 for a, b in pairwise(values))


def judged(errors, pairs=1500, seed=0, by=3):
    rng = random.Random(seed)
    return [
        (f"l{j}", pair, (rng.random() >= errors[j]) == (pair % 2 == 0))
        for pair in range(pairs)
        for j in rng.sample(range(len(errors)), by)
    ]


def test_accuracies_are_found_without_the_truth():
    errors = [0.05, 0.15, 0.3, 0.45, 0.1]
    found = labeler_accuracies(judged(errors))
    assert [found[f"l{j}"] for j in range(5)] == pytest.approx([1 - e for e in errors], abs=0.04)


def test_weights_follow_2a_minus_1_and_average_to_one():
    weights = labeler_weights({"a": 0.9, "b": 0.7, "c": 0.45}, {"a": 10, "b": 30, "c": 0})
    assert weights["a"] / weights["b"] == pytest.approx(0.8 / 0.4) and weights["c"] == 0
    assert (10 * weights["a"] + 30 * weights["b"]) / 40 == pytest.approx(1)


def test_who_shares_nothing_with_others_is_not_judged():
    assert labeler_accuracies([("a", 1, True), ("b", 2, True)]) == {}
    assert labeler_weights({}, {}) == {}
    assert labeler_weights({"a": 0.5}, {"a": 3}) == {"a": 1.0}


@pytest.mark.parametrize("seed", range(5))
def test_weighted_votes_are_right_more_often_than_plain_ones(seed):
    errors = [0.05, 0.1, 0.45, 0.45, 0.45]
    found = judged(errors, seed=seed)
    weights = labeler_weights(labeler_accuracies(found), {f"l{j}": 1 for j in range(5)})
    votes, weighted = {}, {}
    for labeler, pair, first in found:
        votes[pair] = votes.get(pair, 0) + (1 if first else -1)
        weighted[pair] = weighted.get(pair, 0) + weights[labeler] * (1 if first else -1)
    plain_right, weighted_right = (
        np.mean([(value > 0) == (pair % 2 == 0) for pair, value in tally.items()]) for tally in (votes, weighted)
    )
    assert weighted_right > plain_right + 0.03
