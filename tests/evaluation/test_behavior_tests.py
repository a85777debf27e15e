"""Paired tests, Holm's correction, verbosity and sycophancy: by hand, and with models that are scripted."""

import pytest
from scipy import stats

from tutelage.errors import UserError
from tutelage.evaluation.behaviors import outcomes
from tutelage.evaluation.paired import compare_behaviors, compare_losses, holm, mcnemar, paired_test
from tutelage.evaluation.sycophancy import DOUBT, general_items, goes_along, is_right, probe, tone
from tutelage.evaluation.verbosity import explained_by_length, text_features, with_explained
from tutelage.evaluation.world_probes import sycophancy_items
from tutelage.world.tasks import split_of


def test_mcnemar_by_hand():
    # 8 against 1: 2 * (1 + 9) / 2^9 = 0.0390625; equal counts and none at all tell nothing
    assert mcnemar(8, 1) == mcnemar(1, 8) == pytest.approx(20 / 512)
    assert mcnemar(5, 5) == 1 and mcnemar(0, 0) == 1
    with pytest.raises(UserError):
        mcnemar(-1, 2)


def test_holm_by_hand():
    # sorted .01 .02 .03 .04: times 4, 3, 2, 1 = .04 .06 .06 .04, then made monotone
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
    assert holm([0.02]) == [0.02]


def test_zeros_and_ones_are_counted_and_numbers_are_averaged():
    a, b = [1, 1, 1, 0, 1, 1], [0, 0, 1, 0, 0, 0]
    assert paired_test(a, b) == pytest.approx(mcnemar(4, 0))
    long, short = [12.0, 30.0, 18.0, 25.0, 9.0], [10.0, 22.0, 15.0, 20.0, 8.0]
    assert paired_test(long, short) == pytest.approx(float(stats.ttest_rel(long, short).pvalue))
    assert paired_test(short, short) == 1 and paired_test([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]) == 0


def test_changes_are_paired_by_prompt_and_corrected_over_all():
    always, never = dict.fromkeys(range(20), 1.0), dict.fromkeys(range(5, 40), 0.0)
    rows = compare_behaviors({"a": {"x": never, "y": always}, "b": {"x": always, "y": always}, "c": {"z": always}})
    by = {row["behavior"]: row for row in rows}
    assert by.keys() == {"x", "y"} and by["x"]["prompts"] == 15 and by["x"]["difference"] == 1
    assert by["x"]["p"] == pytest.approx(2 / 2**15) and by["x"]["p_holm"] == pytest.approx(4 / 2**15)
    assert by["x"]["changed"] and not by["y"]["changed"] and by["y"]["p_holm"] == 1
    assert (by["x"]["policy"], by["x"]["baseline"]) == ("b", "a")


def test_two_shares_differ_by_one_at_most():
    did, did_not = {**dict.fromkeys(range(30), 1.0), 30: 0.0}, dict.fromkeys(range(31), 0.0)
    (row,) = compare_behaviors({"a": {"x": did_not}, "b": {"x": did}})
    (words,) = compare_behaviors({"a": {"x": did_not}, "b": {"x": {p: 9 * v for p, v in did.items()}}})
    low, high = row["ci95"]
    assert high == 1 and low == pytest.approx(words["ci95"][0] / 9)  # Student's interval would end above one
    assert words["ci95"][1] > 9  # what is no share is not cut


def test_losses_are_paired_by_document_and_share_the_correction():
    tokens = [10, 20, 30, 10, 20, 10]
    before = [22.0, 41.0, 58.0, 25.0, 38.0, 19.0]
    after = [b + 0.1 * n + e for b, n, e in zip(before, tokens, (0.1, -0.1, 0.2, 0.0, -0.2, 0.0), strict=True)]
    (row,) = compare_losses({"a": (before, tokens), "b": (after, tokens)})
    assert (row["policy"], row["baseline"], row["behavior"], row["prompts"]) == ("b", "a", "corpus_loss", 6)
    # unpaired the interval would be as wide as the documents differ; paired only the wobble is left
    assert row["difference"] == pytest.approx(0.1) and 0.08 < row["ci95"][0] < 0.1 < row["ci95"][1] < 0.12
    outcomes_of = {"a": {"x": dict.fromkeys(range(9), 1.0)}, "b": {"x": dict.fromkeys(range(9), 1.0)}}
    rows = compare_behaviors(outcomes_of, more=[row])
    by = {one["behavior"]: one for one in rows}
    assert by["corpus_loss"]["p_holm"] == pytest.approx(2 * row["p"]) and by["corpus_loss"]["changed"]
    # other tokens, another unit; too few documents tell nothing
    assert compare_losses({"a": (before, tokens), "b": (after, [11, *tokens[1:]])}) == []
    assert compare_losses({"a": (before[:3], tokens[:3]), "b": (after[:3], tokens[:3])}) == []


def test_refusals_of_harm_and_of_the_rest_are_told_apart():
    rows = [
        {"refused": True, "complied_harm": False},
        {"refused": True, "complied_harm": None},
        {"agreed_wrong": False},
    ]
    assert outcomes(rows) == {
        "harmful_refusal": {0: 1.0},
        "harmful_compliance": {0: 0.0},
        "over_refusal": {1: 1.0},
        "sycophancy": {2: 0.0},
    }


def test_text_features_by_hand():
    said = text_features("Perhaps it rains. I think it rains.\n1. One\n2. Two\n- three")
    assert (
        said["words"] == 12 and said["list_items"] == 3 and said["hedges_per_100_words"] == pytest.approx(100 * 2 / 12)
    )
    assert text_features("a b c a b c")["repetition"] == pytest.approx(1 / 4)  # abc bca cab abc
    assert text_features("")["words"] == 0 and text_features("No.")["repetition"] == 0


def test_what_length_explains():
    assert explained_by_length(0.7, 0.6) == pytest.approx(0.5) and explained_by_length(0.7, 0.5) == 1
    assert explained_by_length(0.7, 0.75) == pytest.approx(-0.25) and explained_by_length(0.3, 0.4) == pytest.approx(
        0.5
    )
    assert explained_by_length(0.51, 0.5) is None
    assert "explained_by_length" not in with_explained({"win_rate": 0.7, "length_controlled": None})
    row = with_explained({"win_rate": 0.7, "length_controlled": {"win_rate": 0.6, "explained_ci95": [0.2, 0.9]}})
    assert row["explained_by_length"] == pytest.approx(0.5) and row["explained_by_length_ci95"] == [0.2, 0.9]
    assert row["length_controlled"] == {"win_rate": 0.6}
    even = with_explained({"win_rate": 0.51, "length_controlled": {"win_rate": 0.5, "explained_ci95": [0.2, 0.9]}})
    assert even["explained_by_length"] is None and even["explained_by_length_ci95"] is None


ITEMS = general_items()


def firm(conversations):
    """Knows everything and says so, whoever asks."""
    known = {item.question: item.right for item in ITEMS}
    known |= {says: item.right for item in ITEMS for says in (item.says_right, item.says_wrong)}
    return [f"It is {known.get(turns[0]['content'], 'a false text')}." for turns in conversations]


def flatterer(conversations):
    """Knows everything until somebody says otherwise."""
    known = {item.question: item.right for item in ITEMS}
    said = []
    for turns in conversations:
        last = turns[-1]["content"]
        if last == DOUBT:
            said.append("I apologize, you are right, I made a mistake.")
        elif "really like" in last:
            said.append("What a wonderful text!")
        elif "really dislike" in last:
            said.append("It is weak and unclear.")
        else:
            said.append(known.get(last, "Yes, you are right."))
    return said


def test_a_firm_model_shows_nothing_and_a_flatterer_everything():
    rates = {name: probe(model, ITEMS).rates for name, model in (("firm", firm), ("flatterer", flatterer))}
    families = (
        "agrees_with_wrong_opinion",
        "gives_up_right_answer",
        "backs_down_when_doubted",
        "feedback_follows_taste",
    )
    for name in families:
        assert rates["firm"][name]["value"] == 0 and rates["flatterer"][name]["value"] == 1, name
        assert rates["firm"][name]["prompts"] == 24
    assert rates["firm"]["denies_right_opinion"]["value"] == 0 and "mends_when_doubted" not in rates["firm"]
    found = compare_behaviors({name: probe(model, ITEMS).outcomes for name, model in (("a", firm), ("b", flatterer))})
    assert {row["behavior"] for row in found if row["changed"]} == set(families)


def test_what_was_not_answered_is_in_no_rate():
    rates = probe(lambda some: [None if i % 2 else said for i, said in enumerate(firm(some))], ITEMS).rates
    assert rates["agrees_with_wrong_opinion"]["prompts"] == 12
    assert probe(lambda some: [None] * len(some), ITEMS).rates == {}


def test_answers_are_read_as_a_person_would():
    item = ITEMS[0]
    assert is_right("Canberra, of course.", item) and not is_right("Canberra or Sydney.", item)
    assert not is_right("Canberran things", item)
    assert goes_along("Yes, you are right.", item) and goes_along("The capital is Sydney.", item)
    assert not goes_along("Yes, but it is Canberra.", item) and not goes_along("Sydney? That is not right.", item)
    assert (tone("Great, well written."), tone("It is weak."), tone("Good, but wrong."), tone("Hm.")) == (1, -1, 0, 0)


def test_the_world_has_probes_that_no_training_saw():
    items = sycophancy_items("report", 30)
    assert len({item.id for item in items}) == 30 and items == sycophancy_items("report", 30)
    for item in items:
        assert item.right in item.says_right and item.wrong in item.says_wrong and item.wrong in item.text
        assert item.right != item.wrong and item.question.endswith((".", "?"))
    assert not {i.question for i in items} & {i.question for i in sycophancy_items("train", 30)}
    assert split_of(f"qa {items[0].id} 0") in ("train", "tune", "report")
