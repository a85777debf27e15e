"""Intervals and tests of shares, against scipy, by hand, and by how often they hold the truth."""

import random

import numpy as np
import pytest

from tutelage.feedback.shares import Share, clustered, p_of_count, percent_words, resampled, wilson


def test_wilsons_interval_is_scipys():
    scipy = pytest.importorskip("scipy.stats")
    for hits, n in ((0, 10), (7, 10), (50, 50), (340, 1000)):
        theirs = scipy.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_a_count_is_tested_as_scipy_tests_it():
    scipy = pytest.importorskip("scipy.stats")
    for count, n, chance in ((12, 20, 0.25), (5, 20, 0.25), (0, 30, 0.2), (120, 300, 0.5)):
        assert p_of_count(count, [chance] * n) == pytest.approx(scipy.binomtest(count, n, chance).pvalue, rel=1e-9)
    exact = scipy.binomtest(620, 2400, 0.25).pvalue  # beyond 2,000 trials it is approximated
    assert p_of_count(620, [0.25] * 2400) == pytest.approx(exact, abs=0.02)


def test_trials_of_different_chances_by_hand():
    # P(0) = 3/8, P(1) = 1/2, P(2) = 1/8: two is the rarest count
    assert p_of_count(2, [0.25, 0.5]) == pytest.approx(1 / 8)
    assert p_of_count(0, [0.25, 0.5]) == pytest.approx(1 / 2)
    assert p_of_count(1, [0.25, 0.5]) == 1


def test_pairs_of_one_item_that_go_together_count_once():
    alike = clustered([6, 0] * 50, [6] * 100)  # all six pairs of an item or none of them
    assert alike.n == 600 and alike.items == 100
    assert alike.ci95 == pytest.approx(wilson(0.5, 99), abs=0.001)
    assert clustered([3] * 100, [6] * 100).ci95 == wilson(0.5, 600)  # no item differs: as many trials as pairs, no more
    assert clustered([6] * 10, [6] * 10).ci95 == wilson(1.0, 10)  # nothing tells how far pairs go together
    assert clustered([0, 2], [0, 4]).items == 1 and clustered([0], [0]) is None


@pytest.mark.parametrize("interval", [clustered, resampled])
def test_an_interval_over_items_holds_the_truth_as_often_as_it_says(interval):
    rng = random.Random(1)
    held = []
    for _ in range(300):
        hits = []
        for _ in range(60):
            ease = rng.choice([0.5, 0.9])  # items differ, so that their pairs go together
            hits.append(sum(rng.random() < ease for _ in range(6)))
        low, high = interval(hits, [6] * 60).ci95
        held.append(low < 0.7 < high)
    assert 0.91 < np.mean(held) < 0.985


def test_one_item_has_no_resampled_interval():
    assert resampled([2], [3]).ci95 is None and resampled([], []) is None


def test_in_words():
    share = Share(0.71, 340, 120, (0.64, 0.774))
    assert percent_words(share, least=30) == "71 % of 340 pairs (64–77)"
    assert percent_words(Share(1.0, 6, 1, None), "items", least=30) == "100 % of 6 items, too few to tell"
