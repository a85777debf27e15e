"""The reward model's report card, by hand-computed numbers."""

from dataclasses import replace

import numpy as np
import pytest

from tutelage.evaluation.intervals import clustered_interval
from tutelage.evaluation.reward_card import Ranking, report_card


def pair(number: int, gap: float, lengths: tuple[int, int] = (5, 5), weight: float = 1.0) -> Ranking:
    """The first answer is the better one; the model's scores differ by `gap`."""
    return Ranking(f"p{number}", [1, 2], [gap, 0.0], lengths, weight=weight)


def test_a_ranking_of_four_is_its_ordered_pairs():
    card = report_card([Ranking("p", [1, 2, 2, None], [0.0, 1.0, -1.0, 9.0], [1, 2, 3, 4], "brainstorm")])
    # first > second (wrong), first > third (right); the tie and what is not ranked are no pairs
    assert card["pairs"] == 2 and card["accuracy"] == 0.5
    assert card["accuracy_by_category"] == {"brainstorm": {"value": 0.5, "ci95": None, "pairs": 2}}
    assert card["ci95"] is None and "chance" in card["gate"]  # one prompt tells nothing of others
    assert report_card([Ranking("p", [1, 1], [1.0, 0.0], [1, 1])])["gate"] == "no held-out pairs"


def test_the_gate_asks_for_more_than_chance_and_more_than_length():
    right, wrong = [pair(i, 2.0) for i in range(30)], [pair(i, -2.0) for i in range(30, 40)]
    assert report_card(right + wrong)["gate"] == "passed"
    assert "chance" in report_card(right[:20] + [replace(r, prompt_id=f"q{r.prompt_id}") for r in wrong * 2])["gate"]
    assert "length" in report_card([replace(r, lengths=(9, 5)) for r in right + wrong])["gate"]


def test_calibration_is_confidence_against_right():
    card = report_card([pair(0, 0.0), *(pair(i, np.log(3)) for i in (1, 2, 3)), pair(4, -np.log(3))])
    assert [b["predicted"] for b in card["calibration"]] == pytest.approx([0.5, 0.75])
    assert [b["observed"] for b in card["calibration"]] == [0.0, 0.75]
    assert card["calibration_error"] == pytest.approx(0.5 / 5)
    low, high = card["calibration"][1]["ci95"]
    assert card["calibration"][0]["ci95"] is None and 0 <= low < 0.75 < high == 1  # of one pair nothing is known


def test_every_share_has_an_interval_of_prompts():
    rows = [replace(pair(i, 1 if i % 3 else -1, (3, 9) if i % 4 else (9, 3)), category="chat") for i in range(24)]
    card = report_card(rows)
    assert card["length_accuracy"] == 0.75  # the shorter one wins on three of four
    _, *ends = clustered_interval([float(i % 4 > 0) for i in range(24)], range(24))
    assert card["length_accuracy_ci95"] == pytest.approx(ends)
    assert card["accuracy_by_category"]["chat"]["ci95"] == card["ci95"]


def test_votes_on_one_prompt_are_one_cluster():
    votes = [replace(pair(i, gap), prompt_id=f"p{i}") for i, gap in enumerate([1, 1, 1, -1, 1, -1]) for _ in range(3)]
    alone = report_card(votes[::3])
    assert report_card(votes)["ci95"] == pytest.approx(alone["ci95"])


def test_a_soft_label_stands_in_both_orders_and_counts_by_its_weight():
    both = [one for i in range(40) for one in (pair(i, 2.0, weight=1.6), pair(i, -2.0, weight=0.4))]
    card = report_card(both)
    assert card["accuracy"] == pytest.approx(0.8) and card["gate"] == "passed"
    assert card["calibration_error"] == pytest.approx(1 / (1 + np.exp(-2)) - 0.8)
    assert report_card([pair(0, 1.0, weight=0.0)])["pairs"] == 0


def test_weights_are_repetitions_within_a_cluster():
    values, clusters, weights = [1.0, 0.0, 1.0, 0.0, 1.0], list("aabbc"), [2, 1, 3, 0, 1]
    repeated = clustered_interval(np.repeat(values, weights), np.repeat(clusters, weights))
    assert clustered_interval(values, clusters, weights=weights) == pytest.approx(repeated)
    assert np.isnan(clustered_interval(values, clusters, weights=[0] * 5)).all()
