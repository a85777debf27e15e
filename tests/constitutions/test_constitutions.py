"""Constitutions: those that come with the program are sound, and a faulty one is named with its principle."""

import random
from collections import Counter

import pytest
import yaml

from tutelage.constitutions import SHIPPED, load_constitution
from tutelage.constitutions.questions import choice_question, critique_turns, revision_turns
from tutelage.errors import UserError

GOOD = {"id": "a", "critique": "Is it kind?", "revision": "Be kind.", "choice": "Which is kinder?"}


def written(tmp_path, *principles, **more):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "principles": list(principles), **more}))
    return str(path)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_ones_load(name):
    found = load_constitution(name)
    assert found.name == name and len(found.principles) > 2


def test_principles_are_drawn_by_their_weight(tmp_path):
    other = {**GOOD, "id": "b", "choice": "Which is warmer?", "weight": 3}
    found = load_constitution(written(tmp_path, GOOD, other))
    rng = random.Random(0)
    assert Counter(found.draw(rng).id for _ in range(4000))["b"] == pytest.approx(3000, abs=100)


@pytest.mark.parametrize(
    ("principles", "message"),
    [
        ([], "has no principles"),
        ([GOOD, None], "principle 2: is empty"),
        ([GOOD, {**GOOD, "id": "b", "critique": "  "}], "principle 2, key critique: its critique is empty"),
        ([{k: v for k, v in GOOD.items() if k != "choice"}], "its choice is empty"),
        ([GOOD, {**GOOD, "choice": "other"}], r"principle 2 \(a\): repeats principle 1"),
        ([GOOD, {**GOOD, "id": "b", "revision": "BE kind."}], r"principle 2 \(b\): repeats principle 1"),
        ([{**GOOD, "critiqe": "x"}], "did you mean critique"),
        ([{**GOOD, "weight": 0}], "weight 0 cannot be used"),
        ([{**GOOD, "weight": -1}], "weight -1 cannot be used"),
        ([{**GOOD, "id": 7}], "its id is 7, not text"),
    ],
)
def test_a_faulty_principle_is_named(tmp_path, principles, message):
    with pytest.raises(UserError, match=message):
        load_constitution(written(tmp_path, *principles))


def test_other_faults(tmp_path):
    with pytest.raises(UserError, match="did you mean general"):
        load_constitution("genral")
    with pytest.raises(UserError, match="example 1"):
        load_constitution(written(tmp_path, GOOD, examples=[{"prompt": "x"}]))
    path = written(tmp_path, GOOD)
    with open(path, "a") as file:
        file.write("principles:\n- {id: b, critique: x, revision: y, choice: z}\n")
    with pytest.raises(UserError, match=r"the key 'principles' stands twice.*line"):
        load_constitution(path)  # PyYAML would keep the second list alone
    (tmp_path / "broken.yaml").write_text("principles: [")
    with pytest.raises(UserError, match="is not YAML"):
        load_constitution(str(tmp_path / "broken.yaml"))


def test_what_the_critic_is_shown():
    general = load_constitution("general")
    principle, prompt = general.principles[0], [{"role": "user", "content": "Q"}]
    turns = critique_turns(general, prompt, "R", principle)
    assert [m["role"] for m in turns] == ["user", "assistant"] * (3 * len(general.examples) + 1) + ["user"]
    assert turns[-3:] == [
        *prompt,
        {"role": "assistant", "content": "R"},
        {"role": "user", "content": principle.critique},
    ]
    assert revision_turns(turns, "C", principle)[-2:] == [
        {"role": "assistant", "content": "C"},
        {"role": "user", "content": principle.revision},
    ]
    assert choice_question(prompt, "Which?", "x (B) y", "z") == "Q\nWhich?\n(A) x (B) y\n(B) z"
