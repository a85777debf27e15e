"""Capability tasks, calibration and ratings: by hand, on the world's own questions, and with models that are scripted."""

import math

import pytest

from tutelage.errors import UserError
from tutelage.evaluation.capability import answers, calibration, choice_rates, choose, stated_confidence
from tutelage.evaluation.rubric import rubric_rates
from tutelage.evaluation.sycophancy import general_items
from tutelage.evaluation.truth import confidence_in_words, truthfulness
from tutelage.evaluation.world_tasks import CATEGORIES, OPTIONS, world_questions
from tutelage.records import Question, Rating
from tutelage.world.corpus import END
from tutelage.world.facts import is_true
from tutelage.world.language import read
from tutelage.world.tasks import prompts, suite, task_of

QUESTION = Question("q", "2 + 2 =", (" 4", " five and"), 0)


def test_a_choice_by_hand():
    one = choose(QUESTION, [math.log(0.3), math.log(0.1)])
    # softmax over the options: 0.75 and 0.25; Brier (0.75 - 1)² + 0.25²
    assert one.right and one.confidence == pytest.approx(0.75) and one.brier == pytest.approx(0.125)
    # 1 character against 8: a character of the wrong one is likelier, as lm-eval's acc_norm has it
    assert not one.right_per_character
    wrong = choose(QUESTION, [-3.0, -1.0])
    assert not wrong.right and wrong.confidence == pytest.approx(1 / (1 + math.exp(-2)))
    found = choice_rates([one, one, wrong])
    assert found["value"] == pytest.approx(2 / 3) and found["per_character"] == 0 and found["prompts"] == 3
    for bad in ([0.0], [0.0, float("nan")]):
        with pytest.raises(UserError, match="question q"):
            choose(QUESTION, bad)


def test_a_short_answer_is_its_first_line_without_articles_and_marks():
    asked = Question("q", "Who?", answer="The Beatles")
    assert answers(asked, "\n the beatles!\nand more") and answers(asked, "Beatles")
    assert not answers(asked, "The Beatles and Queen") and not answers(asked, "") and not answers(asked, " \n ")


def test_calibration_by_hand():
    # bin .9-1: three at .95, two right; bin .5-.6: two at .55, one right. ECE = |2.85 - 2|/5 + |1.1 - 1|/5 = .19
    found = calibration([0.95, 0.95, 0.95, 0.55, 0.55], [1, 1, 0, 1, 0])
    assert (
        found["value"] == pytest.approx(0.19)
        and found["accuracy"] == 0.6
        and found["confidence"] == pytest.approx(0.79)
    )
    low, high = found["bins"]
    assert (low["low"], low["questions"], low["right"]) == (0.5, 2, 0.5)
    assert (high["high"], high["questions"], high["right"]) == (1.0, 3, pytest.approx(2 / 3))
    assert high["ci95"][0] < 2 / 3 < high["ci95"][1]
    # Sure and always right is perfect; 1.0 belongs to the last bin; the same seed, the same interval.
    assert calibration([1.0] * 20, [1.0] * 20)["value"] == 0
    assert (
        calibration([0.9] * 50, [1.0] * 45 + [0.0] * 5)["ci95"]
        == calibration([0.9] * 50, [1.0] * 45 + [0.0] * 5)["ci95"]
    )
    with pytest.raises(UserError):
        calibration([1.2], [1])


def test_the_interval_of_the_calibration_error_covers_a_known_gap():
    # Confidence .8, right with .6: the error is .2.
    found = calibration([0.8] * 500, [1.0] * 300 + [0.0] * 200)
    assert found["value"] == pytest.approx(0.2) and found["ci95"][0] < 0.2 < found["ci95"][1]
    assert found["ci95"][0] > 0.15 and found["ci95"][1] < 0.25


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("Paris. Confidence: 70 %", 0.7),
        ("confidence: 0.35", 0.35),
        ("I am 90% sure that it is Paris.", 0.9),
        ("Paris, confidence 100/100", 1.0),
        ("Paris.", None),
        ("Confidence: 700 %", None),
    ],
)
def test_stated_confidence(said, value):
    assert stated_confidence(said) == value


def test_confidence_in_words_is_held_against_being_right():
    items = general_items()[:10]

    def model(conversations):
        said = []
        for (turn,), item in zip(conversations, items, strict=True):
            assert item.question in turn["content"]
            place = items.index(item)
            value = item.right if place < 6 else item.wrong
            said.append(None if place == 9 else f"{value}." if place == 8 else f"{value}. Confidence: 75 %")
        return said

    table, brier, counts = confidence_in_words(model, items)
    # Eight said how sure they are: six right at .75, which is what it says.
    assert counts == {"asked": 10, "no_confidence": 1, "unanswered": 1} and table["prompts"] == len(brier) == 8
    assert table["value"] == pytest.approx(0) and brier[items[0].id] == 0.0625 and brier[items[7].id] == 0.5625
    assert confidence_in_words(lambda turns: ["Yes."] * len(turns), items)[0] is None


def test_the_worlds_questions_are_held_out_have_one_right_option_and_stay_the_same():
    for name in CATEGORIES:
        found = world_questions(name, "report", 12)
        assert found == world_questions(name, "report", 12) and len({q.text for q in found}) == 12
        trained = {p.messages[0]["content"] for p in prompts("train", 4000, seed=3)}
        for q in found:
            assert len(set(q.options)) == len(q.options) == (2 if name == "sorting" else OPTIONS)
            assert q.text.startswith("Quiz: ") and q.text[6:-8] not in trained
            assert all(option.startswith(" ") and option.endswith(END) for option in q.options)
    for q in world_questions("facts", "report", 12):
        true = [is_true(read(option.strip().removesuffix(END)).fact) for option in q.options]
        assert true.index(True) == q.right and sum(true) == 1
    chat = world_questions("facts", "report", 12, chat=True)
    plain = world_questions("facts", "report", 12)
    assert [f"Quiz: {q.text} Answer:" for q in chat] == [q.text for q in plain] and all(q.chat for q in chat)
    for q in world_questions("counting", "report", 6):
        words = {"two": 2, "three": 3, "four": 4}
        count = next(n for word, n in words.items() if f" {word} times" in q.text)
        assert len(q.options[q.right].split()) == count
    # The right place is not always the first.
    assert len({q.right for q in plain}) > 1


def test_statements_are_held_against_the_source_and_the_facts():
    words = {p.messages[0]["content"]: p for p in suite("closed_domain", "report", 80)}
    asked = next(p for text, p in words.items() if " is in " in text and text.endswith("?"))
    goal = task_of(asked)["goal"]
    person = goal.split()[0]
    town = "Selby" if "Selby" not in goal else "Harrow"
    rates, outcomes = truthfulness(
        [(asked, goal)], [(asked, goal), (prompts("report", 1)[0], "The lamp is painted purple.")]
    )
    assert rates["closed_domain_hallucination"]["value"] == 0 and rates["contradicted_statements"]["value"] == 0
    assert "false_facts" not in rates  # neither states a fact of the world
    made_up = truthfulness([(asked, f"{goal} {person} is in {town} now. Hello. Ada likes to eat beans.")], [])[0]
    assert made_up["closed_domain_hallucination"]["value"] == 1
    assert (
        made_up["contradicted_statements"]["value"]
        == made_up["unsupported_statements"]["value"]
        == pytest.approx(1 / 3)
    )
    assert outcomes["closed_domain_hallucination"] == {asked.id: 0.0}


def test_ratings_of_one_or_several_people_are_averaged_by_prompt():
    good, bad = Rating(6, frozenset({"opinion"})), Rating(2, frozenset())
    rates, outcomes = rubric_rates({"a": [good, bad], "b": [good], "c": [Rating(5, None)], "d": []})
    assert outcomes["likert"] == {"a": 4.0, "b": 6.0, "c": 5.0} and outcomes["opinion"] == {"a": 0.5, "b": 1.0}
    assert rates["likert"]["value"] == 5 and rates["likert"]["prompts"] == 3
    assert 1 <= rates["likert"]["ci95"][0] < 5 < rates["likert"]["ci95"][1] <= 7
    assert rates["opinion"]["value"] == 0.75 and rates["sexual"]["value"] == 0
    # One rating each: Wilson's interval, which is not of no width where nobody marked it.
    many, _ = rubric_rates({str(i): [bad] for i in range(20)}, ("opinion",))
    assert many.keys() == {"likert", "opinion"} and many["opinion"]["ci95"][1] > 0.1
    assert rubric_rates({}) == ({}, {})
