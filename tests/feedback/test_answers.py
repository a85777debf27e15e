"""What a page sends, against a work made by hand: cards A (completion 2), B (0 and 3, equal), C (1)."""

from types import SimpleNamespace

import pytest

from tutelage.feedback.answers import AnswerError, checked, checked_effort

CARDS = [[2], [0, 3], [1]]


@pytest.fixture
def work():
    prompt = SimpleNamespace(messages=[{"role": "user", "content": "Why?"}])
    task = SimpleNamespace(steps=["one", "two", "three"])
    return SimpleNamespace(cards=CARDS, letters="ABC", prompt=prompt, task=task, rating="optional")


def test_a_ranking_becomes_ranks_by_completion(work):
    sent = {"ranking": "b > c", "ratings": {"B": 6}, "flags": {"C": ["harmful", "harmful"]}, "note": "n"}
    assert checked("rank", sent, work) == {
        "ranks": [1, 2, None, 1],
        "rest_below": False,
        "all_bad": False,
        "ratings": [6, None, None, 6],
        "flags": [[], ["harmful"], [], []],
        "category": None,
        "note": "n",
    }


def test_the_selects_of_a_page_without_script_tie_equal_numbers(work):
    sent = {"ranking": "", "rank_A": "2", "rank_B": "1", "rank_C": "2"}
    assert checked("rank", sent, work)["ranks"] == checked("rank", {"ranking": "B > A = C"}, work)["ranks"]


def test_the_best_alone_with_the_rest_below_is_an_answer(work):
    assert checked("rank", {"ranking": "C", "rest_below": "1"}, work)["ranks"] == [None, 1, None, None]
    assert checked("rank", {"all_bad": True}, work)["ranks"] == [None] * 4
    assert checked("rank", {"ranking": "A > B > C", "rest_below": "1"}, work)["rest_below"] is False  # nobody is left


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({}, "ranking"),
        ({"ranking": "A"}, "ranking"),
        ({"ranking": "A > Z"}, "ranking"),
        ({"ranking": 3}, "ranking"),
        ({"ranking": "A > B", "ratings": {"A": 8}}, "ratings"),
        ({"ranking": "A > B", "ratings": {"Z": 1}}, "ratings"),
        ({"ranking": "A > B", "ratings": [1]}, "ratings"),
        ({"ranking": "A > B", "flags": {"A": ["nice"]}}, "flags"),
        ({"ranking": "A > B", "flags": {"A": [["x"]]}}, "flags"),
        ({"ranking": "A > B", "category": "gossip"}, "category"),
        ({"ranking": "A > B", "note": "x" * 2001}, "note"),
        ({"rank_A": "0", "rank_B": "1"}, "ranking"),
    ],
)
def test_faults_of_a_ranking_name_their_field(work, sent, field):
    with pytest.raises(AnswerError) as caught:
        checked("rank", sent, work)
    assert field in caught.value.faults


def test_a_demonstration_goes_on_from_the_prompt(work):
    asked = {"role": "user", "content": "Why?"}
    assert checked("demonstrate", {"answer": " Because. "}, work)["messages"] == [
        asked,
        {"role": "assistant", "content": "Because."},
    ]
    turns = checked("demonstrate", {"turns": ["Because.", "Really?", "Yes."]}, work)["messages"]
    assert [m["role"] for m in turns] == ["user", "assistant", "user", "assistant"]


@pytest.mark.parametrize("sent", [{}, {"answer": "  "}, {"turns": ["a", "b"]}, {"turns": "a"}, {"answer": "\x00"}])
def test_bad_demonstrations(work, sent):
    with pytest.raises(AnswerError):
        checked("demonstrate", sent, work)


def test_steps_up_to_the_first_wrong_one(work):
    assert checked("steps", {"labels": [1, 0, 1]}, work) == {"labels": [1, 0, 1]}
    assert checked("steps", {"labels": [1, -1]}, work) == {"labels": [1, -1]}
    assert checked("steps", {"step_0": "1", "step_1": "-1"}, work) == {"labels": [1, -1]}
    for labels in ([], [1, 1], [None, 1, 1], [2, 1, 1], [1, 1, 1, 1], [True, 1, 1], "111"):
        with pytest.raises(AnswerError):
            checked("steps", {"labels": labels}, work)


def test_a_skip_needs_a_reason(work):
    assert checked("skip", {"reason": "unclear"}, work)["reason"] == "unclear"
    with pytest.raises(AnswerError):
        checked("skip", {"reason": "lazy"}, work)


def test_effort_keeps_only_what_it_knows():
    sent = {"idle": 3.14159, "away": -1, "seen": [True, False], "input": "keys", "x": 1, "moves": "9"}
    assert checked_effort(sent) == {"idle": 3.14, "seen": [True, False], "input": "keys"}
    assert checked_effort("no") == {}
