"""A conversation without a terminal: lines in, answers out."""

import io

import pytest
from rich.console import Console

from tutelage.cli.chat import ChatOptions, Talk, converse, gather_models, short_names
from tutelage.errors import UserError


def talk_with(monkeypatch, said, nano, count=1):
    from tutelage.models import load_policy

    options = ChatOptions(max_new_tokens=4, dtype="float32")
    talks = [Talk(f"m{i}", load_policy(nano, "float32"), options) for i in range(count)]
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    converse(talks, Console(file=out))
    return talks, out.getvalue()


def test_several_turns_are_kept_and_forgotten(monkeypatch, nano):
    talks, shown = talk_with(monkeypatch, "Hello.\nWho are you?\n", nano)
    assert [m["role"] for m in talks[0].messages] == ["user", "assistant"] * 2
    assert shown.count("m0: ") == 2 and talks[0].messages[1]["content"] in shown
    talks, _ = talk_with(monkeypatch, "Hello.\n/new\nWho are you?\n/quit\nnever read\n", nano)
    assert talks[0].messages[0]["content"] == "Who are you?" and len(talks[0].messages) == 2


def test_two_models_answer_each_from_its_own_conversation(monkeypatch, nano):
    talks, shown = talk_with(monkeypatch, "Hello.\n", nano, count=2)
    assert "m0: " in shown and "m1: " in shown
    assert talks[0].messages == talks[1].messages  # one checkpoint, one seed: one answer


def test_models_are_gathered_and_named():
    assert gather_models(["--model", "a", "--seed", "1", "--model=b"]) == ["--model", "a", "b", "--seed", "1"]
    assert gather_models(["--seed", "1"]) == ["--seed", "1"]
    assert short_names(("runs/q/sft/checkpoints/latest", "runs/q/ppo")) == ["sft", "ppo"]
    assert short_names(("a/sft", "b/sft")) == ["a/sft", "b/sft"]
    for wrong in ({"model": ()}, {"model": ("a", "b", "c")}, {"temperature": -1.0}, {"top_p": 0.0}):
        with pytest.raises(UserError):
            ChatOptions(**wrong)
