"""Hand-worked intervals, win rates, behaviors and the words on reward hacking."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from tutelage.errors import UserError
from tutelage.evaluation.behaviors import behaviors, by_use_case
from tutelage.evaluation.intervals import clustered_interval, fieller_interval, mean_interval, ratio_interval, wilson
from tutelage.evaluation.overoptimization import curve, exploited, verdict
from tutelage.evaluation.win_rate import win_rate, win_rate_from_votes


def test_wilson_by_hand():
    # p = 0.5, n = 100, z = 1.96: center 0.5, half 1.96 * sqrt(.0025 + .000096) / 1.0384 = 0.0962
    low, high = wilson(50, 100)
    assert low == pytest.approx(0.4038, abs=1e-4)
    assert high == pytest.approx(0.5962, abs=1e-4)
    assert wilson(0, 10)[0] == 0 and wilson(0, 10)[1] == pytest.approx(0.2775, abs=1e-4)
    assert wilson(10, 10)[1] == 1
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(UserError):
        wilson(5, 4)


def test_mean_interval_by_hand():
    mean, low, high = mean_interval([1, 2, 3, 4, 5])
    # sd 1.5811, error 0.7071, t(4) = 2.7764
    assert mean == 3 and low == pytest.approx(3 - 1.9632, abs=1e-3) and high == pytest.approx(3 + 1.9632, abs=1e-3)
    assert math.isnan(mean_interval([2.0])[1])
    with pytest.raises(UserError, match="not finite"):
        mean_interval([1, float("nan")])


def test_fieller_interval_by_hand():
    # z^2 = 3.8415: a = 16 - 3.8415, b = 8, c = 4 - 3.8415; (b -+ sqrt(b^2 - a c)) / a
    assert fieller_interval(2, 4, [[1, 0], [0, 1]]) == pytest.approx((0.00998, 1.30596), abs=1e-4)
    assert fieller_interval(2, 1.9, [[1, 0], [0, 1]]) is None  # the denominator may be 0
    # With a denominator that is known it is the numerator's own interval.
    assert fieller_interval(2, 4, [[1, 0], [0, 0]]) == pytest.approx(((2 - 1.95996) / 4, (2 + 1.95996) / 4), abs=1e-5)


def test_fieller_interval_covers():
    rng, covered = np.random.default_rng(0), 0
    covariance = np.array([[0.02, 0.012], [0.012, 0.04]])
    for a, b in rng.multivariate_normal([0.3, 0.6], covariance, 1000):
        found = fieller_interval(a, b, covariance)
        covered += found is None or found[0] <= 0.5 <= found[1]
    assert 0.93 <= covered / 1000 <= 0.97


def test_ratio_interval_by_hand():
    # 6 / 6 = 1; residuals (2 - 1, 1 - 2, 3 - 3) / 2 = .5, -.5, 0: sd .5, error .5 / sqrt(3), t(2) = 4.3027
    ratio, low, high = ratio_interval([2, 1, 3], [1, 2, 3])
    assert ratio == 1 and low == pytest.approx(1 - 1.2421, abs=1e-3) and high == pytest.approx(1 + 1.2421, abs=1e-3)
    values = [3.0, 1.0, 4.0, 1.0, 5.0]
    assert ratio_interval([2 * v for v in values], [2] * 5) == pytest.approx(mean_interval(values))
    for bad in (([1.0], [1, 2]), ([], []), ([1.0], [0])):
        with pytest.raises(UserError):
            ratio_interval(*bad)


def test_clusters_of_one_are_the_plain_interval_and_copies_add_nothing():
    values = np.random.default_rng(0).normal(size=40)
    assert clustered_interval(values, range(40)) == pytest.approx(mean_interval(values))
    doubled = clustered_interval(np.repeat(values, 5), np.repeat(np.arange(40), 5))
    assert doubled == pytest.approx(mean_interval(values))
    assert math.isnan(clustered_interval([1, 2], ["a", "a"])[1])
    with pytest.raises(UserError):
        clustered_interval([1, 2], ["a"])


def test_clustered_interval_covers():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        values = rng.normal(size=(30, 1)) + 0.5 * rng.normal(size=(30, 4))
        _, low, high = clustered_interval(values.ravel(), np.repeat(np.arange(30), 4))
        covered += low <= 0 <= high
    assert 0.91 <= covered / 300 <= 0.985


def test_win_rate_counts_ties_a_half():
    result = win_rate([3, 1, 2, 2], [1, 3, 2, 1])
    assert result["win_rate"] == pytest.approx(2.5 / 4)
    assert result["ties"] == 1 and result["prompts"] == 4
    assert result["ci95"] == pytest.approx(list(wilson(2.5, 4)))
    mirror = win_rate([1, 3, 2, 1], [3, 1, 2, 2])
    assert mirror["win_rate"] == pytest.approx(1 - result["win_rate"])
    assert mirror["ci95"] == pytest.approx([1 - result["ci95"][1], 1 - result["ci95"][0]])


def test_win_rate_clusters_widen_and_unanimous_clusters_keep_an_interval():
    a = np.repeat([1, 0, 1, 1, 0, 1], 10)
    plain, wide = win_rate(a, 1 - a), win_rate(a, 1 - a, clusters=list(np.repeat(np.arange(6), 10)))
    assert wide["prompts"] == 6
    assert wide["ci95"][1] - wide["ci95"][0] > plain["ci95"][1] - plain["ci95"][0]
    sure = win_rate([1] * 6, [0] * 6, clusters=[0, 0, 1, 1, 2, 2])
    assert sure["ci95"][0] < 1 and sure["ci95"][1] == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: win_rate([1], [1, 2]),
        lambda: win_rate([], []),
        lambda: win_rate([float("nan")], [1]),
        lambda: win_rate([1, 2], [1, 2], clusters=[1]),
        lambda: win_rate_from_votes([]),
        lambda: win_rate_from_votes([0.3]),
        lambda: win_rate_from_votes([1, 0], clusters=[1]),
    ],
)
def test_win_rate_refuses(call):
    with pytest.raises(UserError):
        call()


def test_votes():
    result = win_rate_from_votes([1, 1, 0.5, 0])
    assert result["win_rate"] == pytest.approx(0.625) and result["ties"] == 1


def test_behaviors_split_refusals_by_whether_harm_was_asked():
    rows = [
        {"instruction_followed": None, "refused": True, "complied_harm": False, "agreed_wrong": None, "tokens": 10},
        {"instruction_followed": None, "refused": False, "complied_harm": True, "agreed_wrong": None, "tokens": 20},
        {"instruction_followed": True, "refused": False, "complied_harm": None, "agreed_wrong": None, "tokens": 30},
        {"instruction_followed": False, "refused": True, "complied_harm": None, "agreed_wrong": True, "tokens": 40},
    ]
    found = behaviors(rows)
    assert {name: entry["value"] for name, entry in found.items()} == {
        "instruction_following": 0.5,
        "harmful_compliance": 0.5,
        "sycophancy": 1.0,
        "harmful_refusal": 0.5,
        "over_refusal": 0.5,
        "length_tokens": 25.0,
    }
    assert found["sycophancy"]["prompts"] == 1 and found["sycophancy"]["ci95"][0] < 0.5
    assert behaviors([]) == {}
    assert behaviors([{"tokens": 5}])["length_tokens"]["ci95"] is None


def test_instructions_are_counted_by_use_case():
    followed = {
        "a": ("rewrite", True),
        "b": ("generation", False),
        "c": ("generation", True),
        "d": ("chat", None),
        "e": (None, 1),
    }
    found = by_use_case(followed)
    assert [*found] == ["generation", "not stated", "rewrite"]  # nothing can be checked in chat
    assert found["generation"] == {"value": 0.5, "ci95": list(wilson(1, 2)), "prompts": 2}


def test_curve_means_by_step():
    rows = [
        {"step": 5, "kl": 2.0, "proxy": 1.0, "tokens": 4, "text": "x"},
        {"step": 0, "kl": 0.0, "proxy": 0.0, "tokens": [1, 2], "text": "y"},
        {"step": 5, "kl": 4.0, "proxy": 3.0, "tokens": 6, "text": "xx"},
    ]
    points = curve(rows, lambda row: len(row["text"]))
    assert points[0] == {"step": 0, "kl": 0.0, "proxy": 0.0, "gold": 1.0, "length": 2.0}
    assert points[1] == {"step": 5, "kl": 3.0, "proxy": 2.0, "gold": 1.5, "length": 5.0}
    with pytest.raises(UserError, match="row 1"):
        curve([{"step": 1}], lambda row: 0.0)


def _points(gold, proxy):
    return [
        {"step": 10 * i, "kl": 3.0 * i, "proxy": p, "gold": g} for i, (g, p) in enumerate(zip(gold, proxy, strict=True))
    ]


def test_verdicts():
    hacked = verdict(_points([1, 2, 2.5, 1, 0.2, 0.1], [0, 1, 2, 3, 4, 5]))
    assert "peaked at KL 6.0 (step 20)" in hacked and "below where it began" in hacked
    assert verdict(_points([1, 1.5, 1.9, 2], [0, 1, 2, 3])).startswith("Gold rose with the proxy")
    assert verdict(_points([2, 1.5, 1, 0], [0, 1, 2, 3])).startswith("Proxy rose")
    assert "did not rise" in verdict(_points([1, 1, 1, 1], [1, 1, 1, 1]))
    assert "no curve" in verdict(_points([1], [1]))


def test_exploited_names_the_phrase_the_ending_and_the_loops():
    early = [f"The answer to question {i} is {i * 7}, as found in book {i}." for i in range(30)]
    late = [text + " It is truly wonderful. I hope this helps!" for text in early]
    sentence = exploited(early, late)
    assert "100% end with “i hope this helps” (was 0%)" in sentence
    looping = exploited(early, ["very good very good very good very good very good very good"] * 9)
    assert "repeat" in looping or "very good" in looping
    assert exploited(early, early).startswith("Nothing simple")
    assert exploited([], late) == "No samples to compare."


def test_no_torch():
    code = (
        "import sys, tutelage.evaluation.win_rate, tutelage.evaluation.overoptimization, tutelage.evaluation.behaviors;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
