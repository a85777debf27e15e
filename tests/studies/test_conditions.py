"""The language of conditions: what it computes, what it refuses, and what it leaves open."""

import pytest

from tutelage.errors import UserError
from tutelage.studies.conditions import check, holds, names_in

VALUES = {"gold.change": -0.2, "kl": 4.0, "since-best": 1.0, "hacked": True, "none": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gold.change < 0", True),
        ("gold.change < 0 and not kl > 5", True),
        ("not (gold.change < 0 or kl > 5)", False),
        ("kl - 2 * 1.5 == 1", True),
        ("kl / 2 >= 2", True),
        ("-gold.change > 0.1", True),
        ("2 + 3 * 4 == 14", True),
        ("(2 + 3) * 4 == 14", False),
        ("10 - 3 - 2 == 5", True),
        ("hacked and since-best != 0", True),
        ("not hacked", False),
        ("kl > 1e3", False),
        ("none > 0", None),
        ("none > 0 or kl > 1", None),
        ("kl / 0 > 1", None),
    ],
)
def test_conditions(text, expected):
    assert holds(text, VALUES) is expected


@pytest.mark.parametrize(
    "text", ["kl >", "kl > 1 kl", "(kl > 1", "kl ** 2", "__import__('os')", "kl[0]", "", "and kl", "lambda: 1"]
)
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(UserError):
        check(text, {"kl"}, "here")


def test_an_unknown_name_is_refused_with_the_near_one():
    with pytest.raises(UserError, match="did you mean kl"):
        check("klx > 1", {"kl"}, "here")
    assert names_in("a.b > 2 and not c") == {"a.b", "c"}
