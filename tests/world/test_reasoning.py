"""Problems of several steps: every step can be checked, and the ways to be wrong are those that were meant."""

from collections import Counter
from random import Random

import pytest

from tutelage.errors import UserError
from tutelage.solutions import final_answer, split_steps
from tutelage.world import parts, reasoning

PROBLEM = {
    "thing": "lamp",
    "other": "bell",
    "holders": ["Ada", "Boris", "Karl"],
    "trap": "Lena",
    "forms": [0, 1, 0],
}


def test_a_problem_in_words_and_its_steps():
    assert reasoning.words(PROBLEM) == (
        "Ada has the lamp. Ada gave it to Boris. Boris sold it to Karl. Karl gave the bell to Lena. Who has the lamp?"
    )
    assert reasoning.right_steps(PROBLEM) == ["Ada to Boris.", "Boris to Karl.", "Answer: Karl."]


def test_every_step_is_checked():
    prompt = next(p for p in reasoning.problems("tune", 50) if len(reasoning.right_steps(reasoning.problem_of(p))) == 4)
    right = reasoning.right_steps(reasoning.problem_of(prompt))
    assert reasoning.step_labels(prompt, "\n".join(right)) == [1, 1, 1, 1]
    assert reasoning.solved(prompt, "\n".join(right)) == (True, True)
    flawed = ["Ada to Nobody.", *right[1:]]
    assert reasoning.step_labels(prompt, "\n".join(flawed)) == [-1, 1, 1, 1]
    assert reasoning.solved(prompt, "\n".join(flawed)) == (True, False)  # right answer, wrong step
    short = [right[0], right[-1]]  # the answer out of nowhere
    assert reasoning.step_labels(prompt, "\n".join(short)) == [1, -1]
    assert reasoning.step_labels(prompt, "\n".join([*right[:-1], "Answer: Nobody."]))[-1] == -1


def test_solvers_fall_for_what_does_not_count():
    rng = Random(0)
    asked = reasoning.problems("train", 300)
    trapped = [p for p in asked if reasoning.problem_of(p)["trap"]]
    assert 0.4 < len(trapped) / len(asked) < 0.6
    most = 0
    for prompt in trapped:
        texts = [reasoning.solve(reasoning.problem_of(prompt), rng) for _ in range(31)]
        most += Counter(map(final_answer, texts)).most_common(1)[0][0] == prompt.answer
        assert all(split_steps(text)[-1].startswith("Answer: ") for text in texts)
    assert most / len(trapped) < 0.35  # where most are wrong alike, majority voting fails
    plain = [p for p in asked if p not in trapped]
    shares = [reasoning.solved(p, reasoning.solve(reasoning.problem_of(p), rng)) for p in plain * 5]
    answers, steps = (sum(column) / len(shares) for column in zip(*shares, strict=True))
    assert 0.85 < answers < 0.97 and answers - steps > 0.04  # a right answer does not show right steps


def test_splits_share_no_problem_and_parts_have_names():
    splits = {name: {p.id for p in reasoning.problems(name, 200)} for name in ("train", "tune", "report")}
    assert not splits["train"] & splits["report"] and not splits["train"] & splits["tune"]
    assert parts.prompts_of("world:reasoning", "tune", 3, 0) == reasoning.problems("tune", 3, 0)
    assert len(parts.demonstrations_of("world:reasoning", 4, 0)) == 4
    with pytest.raises(UserError, match="did you mean world:reasoning"):
        parts.prompts_of("world:reasonin", "train", 3, 0)


def test_helpful_parts_say_nothing_of_harm():
    from tutelage.world.tasks import task_of

    kinds = Counter(task_of(p)["kind"] for p in parts.prompts_of("world:helpful", "train", 300, 0))
    assert kinds["harmful"] == 0 and kinds["benign"] > 0
    assert {task_of(p)["kind"] for p in parts.prompts_of("world:harmful", "tune", 20, 0)} == {"harmful"}
    shown = {d.prompt_id for d in parts.demonstrations_of("world:helpful", 200, 0)}
    assert len(shown) == 200 and not shown & {p.id for p in parts.prompts_of("world:harmful", "train", 1000, 0)}
