import random
from itertools import pairwise

import numpy as np
import pytest

from tutelage.feedback.reliability import dawid_skene, labeler_accuracies, labeler_weights


def test_one_step_by_hand():
    labels = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1], [0, 1, 0]])
    found = dawid_skene(np.eye(2)[labels], iterations=1)
    assert found.posterior[:, 1] == pytest.approx([0.836120, 0.910747, 0.203252, 0.337838], abs=1e-6)


# Dawid and Skene (1979), table 1: 45 patients; observer 1 saw each three times, observers 2 to 5 once.
PATIENTS = """
111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3|222 2 2 2 3
232 2 2 2 3|444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1|111 1 1 1 1|111 1 1 1 1
222 2 2 2 1|222 1 3 2 2|222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2|111 1 1 1 1|111 1 1 1 1|232 2 2 2 2
111 1 1 1 1|111 1 1 1 1|112 1 1 2 1|111 1 1 1 1|333 3 2 3 3|111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3
221 2 2 3 2|232 3 2 3 3|333 3 4 3 2|111 1 1 1 1|111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2
"""


def test_the_anaesthetists_of_dawid_and_skene():
    """The published example: fitness of patients for anaesthesia, four classes.

    The table is their table 1 as public implementations of the method restate it; the marginals 0.40, 0.42, 0.11 and
    0.07 are those that they publish. The first observer's confusion matrix is kept as computed here, and all of them
    are checked against equations 2.3 to 2.5 written out as plain loops.
    """
    patients = [row.split() for row in PATIENTS.strip().replace("\n", "|").split("|")]
    counts = np.zeros((45, 5, 4))
    for i, said in enumerate(patients):
        for j, classes in enumerate(said):
            for name in classes:
                counts[i, j, int(name) - 1] += 1
    assert counts.sum(axis=(0, 2)).tolist() == [135, 45, 45, 45, 45]
    found = dawid_skene(counts, iterations=1000, tolerance=1e-10)
    assert found.prior.round(2).tolist() == [0.40, 0.42, 0.11, 0.07]
    first = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]
    assert found.confusion[0].round(2).tolist() == first
    for i in range(45):
        odds = [
            found.prior[c] * np.prod([found.confusion[j, c, k] ** counts[i, j, k] for j in range(5) for k in range(4)])
            for c in range(4)
        ]
        assert found.posterior[i] == pytest.approx(np.array(odds) / sum(odds), abs=1e-6)
    for j in range(5):
        for c in range(4):
            given = np.array([sum(found.posterior[i, c] * counts[i, j, k] for i in range(45)) for k in range(4)])
            assert found.confusion[j, c] == pytest.approx(given / given.sum(), abs=1e-6)


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
