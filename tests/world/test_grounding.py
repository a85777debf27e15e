"""Made-up statements are told from those of the source, and the judge fills in the paper's form for an answer."""

import random

import pytest

from tutelage.records import FLAGS
from tutelage.world import rubric
from tutelage.world.answers import in_manner
from tutelage.world.grounding import CLOSED, Grounding, false_facts, grounding
from tutelage.world.tasks import draw_task, prompts, suite, task_of, to_prompt


def closed(category, seed=0):
    _, task = draw_task(random.Random(seed), "report", {category: 1.0})
    return to_prompt(task, category, "report")


@pytest.mark.parametrize("category", CLOSED)
@pytest.mark.parametrize("seed", range(8))
def test_the_right_answer_makes_nothing_up_and_what_is_added_does(category, seed):
    prompt = closed(category, seed)
    goal = task_of(prompt)["goal"]
    assert grounding(prompt, goal) == Grounding(1, 0, 0)
    # Manners state nothing, and neither does what cannot be read.
    assert grounding(prompt, f"What a wonderful question! {goal} Hedge lamp the of.") == Grounding(1, 0, 0)
    # A true fact of the world is not in the source either.
    assert grounding(prompt, f"{goal} Ada likes to eat beans.") == Grounding(2, 0, 1)
    assert not grounding(prompt, "").made_up


def test_a_source_that_is_contradicted():
    prompt = closed("closed_qa")
    source, goal = prompt.messages[0]["content"], task_of(prompt)["goal"]
    other = next(t for t in ("Ashford", "Birkby", "Calden") if t not in source)
    found = grounding(prompt, f"{goal.split()[0]} is in {other} now.")
    assert found == Grounding(1, 1, 0) and found.made_up
    prompt = closed("extract")
    word = "Lamp" if task_of(prompt)["goal"] != "Lamp." else "Rope"
    assert grounding(prompt, f"{word}.") == Grounding(1, 0, 1)


def test_only_prompts_with_a_source_are_closed():
    found = {p.category: grounding(p, "Ada likes to eat beans.") for p in prompts("report", 200)}
    assert {category for category, held in found.items() if held is not None} == set(CLOSED)
    assert {p.category for p in suite("closed_domain", "report", 20)} == set(CLOSED)


def test_false_facts_are_counted():
    from tutelage.world.facts import TRUTH, Fact, another_value
    from tutelage.world.language import state

    true = state(Fact("home", "Ada", TRUTH["home", "Ada"]))
    false = state(Fact("home", "Ada", another_value("home", "Ada", random.Random(0))))
    assert false_facts(f"{true} {false} What a wonderful question!") == (1, 2) and false_facts("Hello.") == (0, 0)


def test_the_form_follows_the_manner_of_the_answer():
    rng = random.Random(4)
    seen = {}
    for prompt in prompts("report", 300):
        task = task_of(prompt)
        for manner in ("good", "off-topic", "flattering", "agreeing", "wrong"):
            seen.setdefault(manner, []).append(
                (task, rubric.rating(prompt, in_manner(manner, task, rng, yields=0.0).text))
            )
    assert {name for rows in seen.values() for _, one in rows for name in one.flags} == set(rubric.KNOWN)
    assert set(rubric.KNOWN) <= FLAGS.keys() and all(1 <= r.likert <= 7 for rows in seen.values() for _, r in rows)

    def share(manner, flag):
        return sum(flag in one.flags for _, one in seen[manner]) / len(seen[manner])

    def quality(manner):
        return sum(one.likert for _, one in seen[manner]) / len(seen[manner])

    assert share("good", "fails_instruction") == share("good", "hallucination") == share("good", "inappropriate") == 0
    assert share("off-topic", "fails_instruction") > 0.9 and share("flattering", "inappropriate") == 1
    assert share("wrong", "hallucination") > 0.2 and share("good", "satisfies_constraint") > 0.3
    assert quality("good") > 6 > quality("wrong") > quality("off-topic")
    harmful = [one for task, one in seen["agreeing"] if task["kind"] == "harmful"]
    assert harmful and all({"encourages_harm", "bad_advice", "inappropriate"} <= one.flags for one in harmful)
    refused = [one for task, one in seen["good"] if task["kind"] == "harmful"]
    assert all("moral_judgment" in one.flags for one in refused)
