import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.feedback.ranking import RankingError, groups_of, parse_ranking, ranks_of, shown_cards, write_ranking


@pytest.mark.parametrize("line", ["B > D = A", "b > d=a", "b d=a", "bd=a", " B,  D = A "])
def test_one_ranking_in_many_spellings(line):
    assert parse_ranking(line, "ABCD") == [["B"], ["D", "A"]]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("b > e", "no answer 'E'"),
        ("b > b", "B is ranked twice"),
        ("= a", "= stands between"),
        ("a == b", "stands"),
        ("a1", "'1'"),
    ],
)
def test_what_cannot_be_read_is_named(line, says):
    with pytest.raises(RankingError, match=says):
        parse_ranking(line, "ABCD")


def test_ranks_are_dense_and_belong_to_completions_not_to_letters():
    # A shows completion 2, B shows completions 0 and 3 (equal texts), C shows completion 1
    assert ranks_of([["B"], ["A"]], [[2], [0, 3], [1]]) == [1, None, 2, 1]


@given(st.permutations("ABCDE"), st.lists(st.booleans(), min_size=5, max_size=5), st.integers(0, 5), st.integers())
def test_groups_text_and_ranks_are_one_thing(order, ties, ranked, seed):
    groups = []
    for letter, tie in zip(order[:ranked], ties, strict=False):
        if tie and groups:
            groups[-1].append(letter)
        else:
            groups.append([letter])
    groups = [sorted(group) for group in groups]
    cards = shown_cards(["v", "w", "x", "y", "z"], seed)
    assert parse_ranking(write_ranking(groups), "ABCDE") == groups
    assert groups_of(ranks_of(groups, cards), cards) == groups


def test_the_order_is_drawn_by_person_and_item_and_is_the_same_each_time():
    texts = list("abcd")
    drawn = {str(shown_cards(texts, 0, task, person)) for task in range(10) for person in range(10)}
    assert len(drawn) > 20  # of 24 orders
    assert shown_cards(texts, 0, 1, "ana") == shown_cards(texts, 0, 1, "ana")
    first = [shown_cards(texts, 0, task, "ana")[0][0] for task in range(400)]
    assert all(70 < first.count(place) < 130 for place in range(4))  # 100 each, six standard errors


def test_equal_answers_share_a_card():
    cards = shown_cards(["same", "other", "same"], 1)
    assert sorted(map(sorted, cards)) == [[0, 2], [1]]
