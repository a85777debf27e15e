"""Rates of verdicts with what could not be judged, and the size of a difference that n prompts show."""

import pytest

from tutelage.errors import UserError
from tutelage.evaluation.comparison import compare_by_verdicts, detectable_difference
from tutelage.evaluation.intervals import wilson


def test_nothing_is_dropped_in_silence():
    found = compare_by_verdicts(
        [1.0, 0.5, None, 0.0, None, 1.0],
        list("abcdef"),
        flipped=[False, True, False, False, False, False],
        problems=[None, None, "unparsable", None, "failed", None],
        asked=8,
    )
    assert found["win_rate"] == 2.5 / 4 and found["ci95"] == pytest.approx(list(wilson(2.5, 4)))
    assert (found["judged"], found["unparsable"], found["failed"], found["missing"]) == (4, 1, 1, 2)
    assert found["flip_rate"] == 0.25 and found["ties"] == 1 and found["flip_ci95"] == [*wilson(1, 4)]
    assert found["bounds"] == [2.5 / 6, 4.5 / 6]


def test_no_verdict_at_all_is_no_rate():
    found = compare_by_verdicts([None], ["a"], flipped=[False], problems=["failed"], asked=1)
    assert found["win_rate"] is None and found["failed"] == 1


def test_verdicts_on_one_prompt_are_one_cluster():
    some = {"flipped": [False] * 8, "problems": [None] * 8, "asked": 8}
    points = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    apart = compare_by_verdicts(points, list(range(8)), **some)
    together = compare_by_verdicts(points, [0, 0, 1, 2, 1, 3, 2, 3], **some)
    assert together["prompts"] == 4 and together["detectable"] > apart["detectable"]
    width = [r["ci95"][1] - r["ci95"][0] for r in (apart, together)]
    assert width[1] > width[0]


def test_detectable_difference_is_the_sample_size_formula_backwards():
    # 0.55 against 0.50 with 80% power: ((1.96 * .5 + .8416 * sqrt(.55 * .45)) / .05)^2 = 782.6
    assert detectable_difference(783) == pytest.approx(0.05, abs=5e-5)
    assert detectable_difference(782) > 0.05 > detectable_difference(783)
    # half of the verdicts ties: the variance halves. n d^2 = (1.96 s0 + .8416 sd)^2 at d = .05
    s0, sd = 0.125**0.5, (0.125 - 0.0025) ** 0.5
    n = ((1.959964 * s0 + 0.841621 * sd) / 0.05) ** 2
    assert detectable_difference(round(n), 0.5) == pytest.approx(0.05, abs=1e-4)
    assert detectable_difference(0) == detectable_difference(3) == 0.5
    with pytest.raises(UserError):
        detectable_difference(-1)
