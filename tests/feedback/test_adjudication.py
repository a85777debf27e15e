"""A lead's decisions: what contested items are, what a consensus is, and what replaces the votes in the export."""

import math
import random
from itertools import combinations

import numpy as np
import pytest

from tutelage.feedback import adjudication, people, queue
from tutelage.feedback.export import export_records, soften
from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import create_project, find_project
from tutelage.feedback.quality import Ranked, accuracies_of, orders, read_rankings, soft_labels
from tutelage.feedback.queue import Refused
from tutelage.feedback.reliability import soft_label
from tutelage.feedback.schema import Answer

ORDERS = {"ana": [1, 2, 3, 4], "ben": [1, 2, 3, 4], "cy": [4, 3, 2, 1]}


@pytest.fixture
def voted(store, sampled):
    """Three people on three items: all agree on the first two, one turns the last around."""
    with store.write() as db:
        project = create_project(db, "Round 1", overlap=3, instructions="Be fair.")
        import_records(db, project, *sampled())
        for name in (*ORDERS, "lead"):
            people.add_person(db, name, "lead" if name == "lead" else "labeler", None, person_id=name)
        for name, ranks in ORDERS.items():
            for number in range(3):
                task = queue.lease_next(db, project, name)
                payload = {"ranks": ranks if number == 2 else ORDERS["ana"]}
                queue.submit(db, f"{name}-{task.id:08}", task.id, name, "rank", payload)
    return store


def test_consensus_is_the_weighted_majority_of_each_pair():
    assert adjudication.consensus(list(ORDERS.values())) == [1, 2, 3, 4]
    assert adjudication.consensus(list(ORDERS.values()), [0.2, 0.2, 1.0]) == [4, 3, 2, 1]
    assert adjudication.consensus([[1, 2], [2, 1]]) == [1, 1]
    assert adjudication.consensus([[1, 2, None], [None, 1, None]]) == [1, 2, None]


def test_a_soft_label_is_the_posterior_of_independent_votes():
    # 0.8 for and 0.6 against: odds 4 / 1.5
    assert soft_label([(0.8, True), (0.6, False)]) == pytest.approx(4 / 1.5 / (1 + 4 / 1.5))
    assert soft_label([(0.5, True)]) == 0.5
    assert soft_label([(1.0, True), (1.0, False)]) == 0.5  # nobody is believed without end


def test_the_lead_orders_first_and_the_decision_replaces_the_votes(voted):
    with voted.write() as db:
        project = find_project(db, "round-1")
        (one,) = adjudication.contested(db, project)
        assert one.labelers == 3 and one.tau == pytest.approx(-1 / 3, abs=1e-4)
        with pytest.raises(Refused, match="before you see"):
            adjudication.settle(db, project, one.task, "lead", [1, 2, 3, 4], "slip", "")
        adjudication.order_first(db, project, one.task, "lead", [2, 1, 3, 4])
        with pytest.raises(Refused, match="instructions lack"):
            adjudication.settle(db, project, one.task, "lead", [1, 2, 3, 4], "guideline", "")
        adjudication.settle(db, project, one.task, "lead", [1, 2, 3, 3], "guideline", "Prefer short answers.")
        with pytest.raises(Refused, match="before you see"):
            adjudication.settle(db, project, one.task, "lead", [1, 2, 3, 4], "slip", "")
        assert project.instructions == "Be fair.\nPrefer short answers."
    with voted.read() as db:
        project = find_project(db, "round-1")
        assert adjudication.contested(db, project) == [] and adjudication.causes(db, project) == {"guideline": 1}
        found = export_records(db, project, {"ana": 1.5}).comparisons
    assert len(found) == 7 and sum(c.labeler == "lead" for c in found) == 1
    decided = next(c for c in found if c.labeler == "lead")
    assert decided.ranks == [1, 2, 3, 3] and decided.weight == 1.0 and len(decided.completions) == 4


@pytest.mark.parametrize(("cause", "comparisons", "unranked"), [("taste", 9, 0), ("unclear", 6, 1), ("slip", 7, 0)])
def test_what_each_cause_does_to_the_export(voted, cause, comparisons, unranked):
    with voted.write() as db:
        project = find_project(db, "round-1")
        task = adjudication.contested(db, project)[0].task
        adjudication.order_first(db, project, task, "lead", [1, 2, 3, 4])
        adjudication.settle(db, project, task, "lead", [1, 2, 3, 4], cause, "")
        found = export_records(db, project)
    assert (len(found.comparisons), len(found.unranked)) == (comparisons, unranked)


def test_soft_labels_are_pairs_in_both_orders_whose_weights_say_how_likely(voted):
    with voted.read() as db:
        project = find_project(db, "round-1")
        rankings = read_rankings(db, project)
        labels, accuracies = soft_labels(rankings), accuracies_of(rankings)
        found = export_records(db, project)
        soften(found, labels, {answer.id: task.id for answer, task in _current(db, project)})
    assert all(c.labeler is None and c.ranks == [1, 2] and len(c.completions) == 2 for c in found.comparisons)
    items = {c.id.rsplit("-", 2)[0] for c in found.comparisons}
    assert len(items) == 3
    pairs = {}
    for one in found.comparisons:
        pairs.setdefault((one.prompt_id, frozenset(one.completion_ids)), []).append(one.weight)
    assert len(pairs) == 18 and all(sum(w) == pytest.approx(2, abs=0.003) for w in pairs.values())
    last = max(labels)
    expected = soft_label([(accuracies["ana"], True), (accuracies["ben"], True), (accuracies["cy"], False)])
    assert labels[last][0, 1] == pytest.approx(expected) and accuracies["cy"] < accuracies["ana"]


def _current(db, project):
    from tutelage.feedback.export import current_answers

    return current_answers(db, project)


def simulated(seed, items=60, careless=0.5):
    """Ten labelers, half of whom order at random half of the time; three rank each item of four completions."""
    rng = random.Random(seed)
    truth = {item: [rng.gauss(0, 1) for _ in range(4)] for item in range(items)}
    rankings = []
    for item, values in truth.items():
        for labeler in rng.sample(range(10), 3):
            noise = 4.0 if labeler < 10 * careless else 0.4
            seen = [value + rng.gauss(0, noise) for value in values]
            rankings.append(Ranked(item, f"l{labeler}", [1 + sum(v > own for v in seen) for own in seen]))
    return truth, rankings


def test_labels_by_reliability_are_nearer_to_the_truth_than_votes_that_count_alike():
    gains = []
    for seed in range(5):
        truth, rankings = simulated(seed)
        labels = soft_labels(rankings)
        majority = {}
        for one in rankings:
            for pair, order in orders(one.ranks).items():
                majority[one.item, pair] = majority.get((one.item, pair), 0) + order
        right = {"weighted": 0.0, "plain": 0.0}
        for item, values in truth.items():
            for i, j in combinations(range(4), 2):
                better = values[i] > values[j]
                right["weighted"] += (labels[item][i, j] > 0.5) == better
                right["plain"] += (majority[item, (i, j)] > 0) == better
        gains.append((right["weighted"] - right["plain"]) / (6 * len(truth)))
        chances = [
            p if truth[item][i] > truth[item][j] else 1 - p for item, ps in labels.items() for (i, j), p in ps.items()
        ]
        assert -np.mean(np.log(chances)) < math.log(2)  # and they know how sure they are
    assert min(gains) >= 0 and np.mean(gains) > 0.03, gains


def test_a_vote_in_a_third_of_the_others_time_is_fast():
    votes = [Answer(person_id=str(i), payload={"ranks": [1, 2]}, seconds=t) for i, t in enumerate((90, 20, 84, None))]
    assert [one["fast"] for one in adjudication.shown_votes(votes, None)] == [False, True, False, False]
    assert not adjudication.shown_votes(votes[:1], None)[0]["fast"]  # nobody to compare with


def test_what_is_worse_as_the_rest_counts_in_a_vote():
    payload = {"ranks": [None, 1, 2, None], "rest_below": True}
    assert adjudication.shown_votes([Answer(person_id="ana", payload=payload)], None)[0]["ranks"] == [3, 1, 2, 3]
