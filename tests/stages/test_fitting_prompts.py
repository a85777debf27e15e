"""Prompts that leave no room for an answer are left out of on-policy training, counted, and never all of them."""

import pytest

from tutelage.errors import UserError
from tutelage.models import load_policy
from tutelage.records import Prompt
from tutelage.stages.sample import fitting_prompts

ASKED = [Prompt(id=str(n), messages=[{"role": "user", "content": "Name a town. " * n}]) for n in (1, 2, 40)]


def test_long_prompts_are_left_out_and_counted(nano, capsys):
    policy = load_policy(nano, "float32")
    assert [p.id for p in fitting_prompts(policy, ASKED, 64)] == ["1", "2"]
    assert "1 of 3 prompts have 64 tokens or more" in capsys.readouterr().err
    assert fitting_prompts(policy, ASKED[:2], 64) == ASKED[:2] and not capsys.readouterr().err


def test_where_none_fits_nothing_is_trained(nano):
    with pytest.raises(UserError, match=r"has \d+ tokens"):
        fitting_prompts(load_policy(nano, "float32"), ASKED, 3)
