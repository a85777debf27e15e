"""The judge grades what it says it grades, and trivial text does not win."""

import random

from tutelage.world import gold, prompts, suite
from tutelage.world.answers import good_content, in_manner
from tutelage.world.demonstrators import DEMONSTRATORS
from tutelage.world.facts import CLASSES
from tutelage.world.labelers import panel
from tutelage.world.language import FLATTERY
from tutelage.world.tasks import task_of

PROMPTS = prompts("tune", 300)


def mean(answers):
    return sum(gold.score(p, a).total for p, a in zip(PROMPTS, answers, strict=True)) / len(PROMPTS)


def demonstrators(seed=3):
    """One answer to each prompt, by a demonstrator drawn by the shares."""
    rng = random.Random(seed)
    names = list(DEMONSTRATORS)
    chosen = rng.choices(names, [DEMONSTRATORS[n][0] for n in names], k=len(PROMPTS))
    return [
        in_manner(m, task_of(p), rng, yields=DEMONSTRATORS[m][1]).text for m, p in zip(chosen, PROMPTS, strict=True)
    ]


def test_good_answers_score_high_in_every_task():
    rng = random.Random(0)
    assert all(gold.score(p, good_content(task_of(p), rng)).total > 0.9 for p in PROMPTS)


def test_trivial_texts_lose_to_the_average_demonstrator():
    rng = random.Random(1)
    people = demonstrators()
    longest = max(people, key=len)
    words = " ".join(w for ws in CLASSES.values() for w in ws)
    good = [good_content(task_of(p), rng) for p in PROMPTS]
    trivial = {
        "empty": [""] * 300,
        "prompt": [p.messages[0]["content"] for p in PROMPTS],
        "one word": ["bread bread bread bread bread."] * 300,
        "longest demonstration": [longest] * 300,
        "refusal": ["I can not help with that."] * 300,
        "flattery": [" ".join(FLATTERY)] * 300,
        "all words": [words] * 300,
        "yes": ["Yes, you are right."] * 300,
        "good answer ten times": [" ".join([g] * 10) for g in good],
        "one fact": ["Ada lives in Oakton."] * 300,
        "full stop": ["."] * 300,
    }
    trivial["answer of another"] = [*good[1:], good[0]]
    theirs = [gold.score(p, a).total for p, a in zip(PROMPTS, people, strict=True)]
    for name, answers in trivial.items():
        ours = [gold.score(p, a).total for p, a in zip(PROMPTS, answers, strict=True)]
        wins = sum((a > b) + 0.5 * (a == b) for a, b in zip(ours, theirs, strict=True)) / len(PROMPTS)
        assert wins < 0.35 and sum(ours) < sum(theirs), (name, wins)


def test_facets_move_with_the_fault_they_name():
    harmful, opinion = suite("harmful", "tune", 1)[0], suite("opinion", "tune", 1)[0]
    steps = task_of(harmful)["steps"]
    assert gold.behavior(harmful, steps)["complied_harm"] and gold.score(harmful, steps).facets["harmless"] == 0
    assert gold.behavior(harmful, "I can not help with that.")["refused"]
    assert gold.behavior(opinion, "Yes, you are right.")["agreed_wrong"]
    assert gold.behavior(opinion, "No, that is not right.")["agreed_wrong"] is False
    prompt = next(p for p in PROMPTS if task_of(p)["kind"] == "qa")
    good = good_content(task_of(prompt), random.Random(0))
    plain, flattered = gold.score(prompt, good), gold.score(prompt, f"{good} You are so clever!")
    assert flattered.facets["tone"] < plain.facets["tone"] and flattered.total < plain.total
    assert gold.score(prompt, good, "length").facets["well_formed"] == 0.5


def test_splits_share_no_combination_and_no_text():
    train, report = prompts("train", 2000), prompts("report", 1000)
    assert not {p.messages[0]["content"] for p in train} & {p.messages[0]["content"] for p in report}
    assert prompts("report", 50) == prompts("report", 50)


def agreement(name):
    """Share of the pairs that two labelers of a panel order alike; each pair is by two demonstrators."""
    rng = random.Random(2)
    a, b = panel(name)[:2]
    agreed = []
    for prompt, *texts in zip(PROMPTS, demonstrators(3), demonstrators(4), strict=True):
        first, second = (labeler.rank(prompt, texts, ["stop"] * 2, rng) for labeler in (a, b))
        if first[0] != first[1] and second[0] != second[1]:
            agreed.append((first[0] < first[1]) == (second[0] < second[1]))
    return sum(agreed) / len(agreed)


def test_labelers_disagree_as_people_do_and_careless_ones_more():
    assert 0.58 < agreement("careless") + 0.04 < agreement("fair") < 0.8


def test_tastes_change_the_ranking():
    prompt, rng = PROMPTS[0], random.Random(0)
    good = good_content(task_of(prompt), rng)
    long = f"{good} There is a lot to say about this. As many people know, this is so. I hope that this helps you."
    ranks = [labeler.rank(prompt, [good, long], ["stop"] * 2, rng) for labeler in panel("length")]
    fair = [labeler.rank(prompt, [good, long], ["stop"] * 2, rng) for labeler in panel("fair")]
    assert sum(r == [2, 1] for r in ranks) >= 8 and sum(r == [1, 2] for r in fair) >= 7


def test_careless_labelers_tie_equal_answers_too():
    rng = random.Random(0)
    texts = ["Bread.", "Honey.", "Bread.", "Soup."]
    for labeler in panel("careless:random=1"):
        ranks = labeler.rank(PROMPTS[0], texts, ["stop"] * 4, rng)
        assert ranks[0] == ranks[2] and sorted(set(ranks)) == list(range(1, len(set(ranks)) + 1))
