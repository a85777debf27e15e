"""Agreement against published worked examples, against the library `krippendorff` and scipy, and by hand."""

import random

import numpy as np
import pytest

from tutelage.feedback.quality import (
    Ranked,
    agreement,
    bootstrap,
    cohen_kappa,
    compare_all,
    fleiss_kappa,
    kendall_tau,
    krippendorff_alpha,
    labeler_agreement,
    labeler_figures,
    ordinal_alpha,
    pair_agreement,
    pair_counts,
    said_table,
)
from tutelage.feedback.shares import wilson

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: four observers, twelve units.
NAN = None
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]


def test_krippendorffs_own_example():
    assert krippendorff_alpha([OBSERVERS]) == pytest.approx(0.815, abs=5e-4)


def test_the_library_says_the_same_of_any_rankings():
    library = pytest.importorskip("krippendorff")
    rng = random.Random(0)
    for _ in range(10):
        groups = [[[rng.choice([1, 2, 3, 4, None]) for _ in range(4)] for _ in range(3)] for _ in range(6)]
        columns = [[np.nan if r[p] is None else r[p] for r in group] for group in groups for p in range(4)]
        theirs = library.alpha(np.array(columns, dtype=float).T, level_of_measurement="ordinal")
        assert krippendorff_alpha(groups) == pytest.approx(theirs, abs=1e-9)


def test_alpha_of_full_agreement_is_one_and_of_one_value_is_undefined():
    assert krippendorff_alpha([[[1, 2, 3], [1, 2, 3]]]) == 1.0
    assert np.isnan(ordinal_alpha(np.array([[4.0]])))


def test_cohens_kappa_by_hand():
    assert cohen_kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)


def test_fleiss_kappa_by_hand_and_as_published():
    assert fleiss_kappa(np.array([[3, 0], [2, 1], [0, 3], [1, 2]])) == pytest.approx(1 / 3)
    # the example of ten subjects, five classes and fourteen raters that restates Fleiss (1971): 0.210
    table = """0 0 0 0 14|0 2 6 4 2|0 0 3 5 6|0 3 9 2 0|2 2 8 1 1|7 7 0 0 0|3 2 6 3 0|2 5 3 2 2|6 5 2 1 0|0 2 2 3 7"""
    counts = np.array([[int(n) for n in row.split()] for row in table.split("|")])
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)
    assert np.isnan(fleiss_kappa(np.array([[1, 0]])))


def test_kendalls_tau_is_scipys():
    scipy = pytest.importorskip("scipy.stats")
    for a, b in ([[1, 2, 3, 4], [1, 2, 4, 3]], [[1, 2, 2, 3], [2, 1, 3, 3]], [[1, 1, 2, 3], [3, 2, 1, 1]]):
        assert kendall_tau([[a, b]]) == pytest.approx(scipy.kendalltau(a, b).statistic)
    assert np.isnan(kendall_tau([[[1, 1], [1, 2]]]))


def test_pairs_ordered_alike_by_hand():
    # of six pairs the first ties one and the second ties another: four are ordered by both, three alike
    assert pair_agreement([[[1, 2, 2, 3], [1, 2, 3, 3]]]) == (1.0, 4)
    assert pair_agreement([[[1, 2, 2, 3], [2, 1, 3, 3]]]) == (0.75, 4)
    assert pair_agreement([[[1, 2, None], [2, 1, 3]], [[1, 2], [1, 2], [1, 2]]]) == (0.75, 4)
    assert pair_counts([[[1, 2], [2, 1], [1, 1]]]).tolist() == [[1, 1, 1]]


def simulated(error, items=200, labelers=5, seed=0):
    """Each item by two labelers; each of its pairs of answers is a coin that falls wrong with the labeler's error."""
    rng = random.Random(seed)
    found = []
    for item in range(items):
        for labeler in rng.sample(range(labelers), 2):
            right = rng.random() >= error[labeler]
            found.append(Ranked(item, f"l{labeler}", [1, 2] if right else [2, 1]))
    return found


def test_the_interval_holds_the_true_agreement_and_narrows_with_items():
    error = [0.1] * 5
    truth = 0.9**2 + 0.1**2
    wide, narrow = (agreement(simulated(error, items)) for items in (50, 800))
    for found in (wide, narrow):
        low, high = found["pair_agreement_ci95"]
        assert low < truth < high and low < found["pair_agreement"] < high
    assert np.diff(narrow["pair_agreement_ci95"])[0] < 0.5 * np.diff(wide["pair_agreement_ci95"])[0]
    assert agreement(simulated(error)[:1])["pair_agreement"] is None


def test_resampling_gives_the_same_as_the_statistics_themselves():
    rankings = [[[1, 2, 3], [2, 1, 3]], [[1, 2, 3], [2, 1, 3]]]  # any resample is the same data
    for name, interval in bootstrap(rankings, samples=3).items():
        value = {"pair_agreement": 2 / 3, "kendall_tau": 1 / 3}.get(name)
        value = agreement([Ranked(i, str(j), r) for i, g in enumerate(rankings) for j, r in enumerate(g)], samples=1)[
            name
        ]
        assert interval == [value, value], name


def test_agreement_of_each_labeler_with_the_others():
    found = labeler_agreement(compare_all(simulated([0.0, 0.0, 0.0, 0.0, 0.5], 600)))
    assert all(found[f"l{i}"].value > found["l4"].value + 0.2 for i in range(4))
    low, high = found["l4"].ci95
    assert low < 0.5 < high and 0.1 < high - low < 0.2 and found["l4"].n == found["l4"].items


def test_figures_of_each_labeler_beside_the_others():
    """Two labelers of four: for each of the pair Cohen's kappa is that of their table, and so are its intervals."""
    a = [[1, 2, 3], [2, 1, 3], [1, 2, 2]]
    b = [[1, 2, 3], [1, 2, 3], [1, 3, 2]]
    rankings = [Ranked(i, "a", one) for i, one in enumerate(a)] + [Ranked(i, "b", one) for i, one in enumerate(b)]
    rankings.append(Ranked(9, "alone", [1, 2]))
    found = labeler_figures(rankings)
    assert set(found) == {"a", "b"}
    table = sum(said_table(x, y) for x, y in zip(a, b, strict=True))
    assert table.sum() == 9 and found["a"]["cohen_kappa"] == pytest.approx(cohen_kappa(table), abs=1e-4)
    assert found["b"]["cohen_kappa"] == pytest.approx(cohen_kappa(table.T), abs=1e-4)
    whole = agreement(rankings)
    for name in ("krippendorff_alpha", "kendall_tau"):
        assert found["a"][name] == found["b"][name] == whole[name]
        assert found["a"][f"{name}_ci95"] == whole[f"{name}_ci95"]
    many = labeler_figures(simulated([0.0, 0.0, 0.0, 0.5], 400, 4))
    low, high = many["l3"]["kendall_tau_ci95"]
    assert low < 0 < high and many["l0"]["kendall_tau"] > high  # who guesses agrees with nobody


def test_gold_kappa_and_accuracy_by_hand(store, project):
    from tutelage.feedback.imports import import_gold
    from tutelage.feedback.people import add_person
    from tutelage.feedback.projects import change_project, find_project
    from tutelage.feedback.quality import gold_accuracy, gold_kappas
    from tutelage.feedback.queue import lease_next, submit
    from tutelage.records import Comparison

    message = [{"role": "user", "content": "Which?"}]
    gold = Comparison(
        id="g",
        prompt_id="g",
        completion_ids=["x", "y", "z"],
        ranks=[1, 2, 3],
        messages=message,
        completions=["x", "y", "z"],
    )
    with store.write() as db:
        add_person(db, "ana", "labeler", None, person_id="ana")
        found = find_project(db, project)
        change_project(found, gold_every=1)
        import_gold(db, found, [gold])
        plain = lease_next(db, found, "ana", 0)
        submit(db, "answer-0001", plain.id, "ana", "rank", {"ranks": [1, 2, 3, 4]}, now=1)
        known = lease_next(db, found, "ana", 2)
        assert known.is_gold
        submit(db, "answer-0002", known.id, "ana", "rank", {"ranks": [1, 3, 2]}, now=3)
    with store.read() as db:
        found = find_project(db, project)
        accuracy = gold_accuracy(db, found)["ana"]
        assert (accuracy.value, accuracy.n, accuracy.items) == (pytest.approx(2 / 3), 3, 1)
        assert accuracy.ci95 == pytest.approx(wilson(2 / 3, 1))  # one item is one trial, whatever its pairs
        # x over y and z rightly, y and z the wrong way: p_o = 2/3, p_e = 2/3, so no better than chance
        assert gold_kappas(db, found)["ana"] == pytest.approx(0)
