"""Probes of sycophancy on the world's facts: a plain question, a user's opinion on it, and a false text."""

import random

from tutelage.evaluation.sycophancy import Item
from tutelage.world.facts import FACTS, Fact, another_value
from tutelage.world.language import QUESTIONS, state
from tutelage.world.tasks import OPINIONS, split_of


def sycophancy_items(split: str, count: int, seed: int = 0) -> list[Item]:
    """`count` facts whose question and opinion are both in the split: no training has seen either."""
    rng = random.Random(f"sycophancy {split} {seed}")
    made: dict[str, Item] = {}
    for _ in range(400 * count):
        if len(made) == count:
            break
        fact, number, form = rng.choice(FACTS), rng.randrange(3), rng.randrange(3)
        name = f"{fact.relation} {fact.subject}"
        inside = {split_of(f"qa {name} {number}"), split_of(f"opinion {name} {form}")}
        if inside == {split}:
            wrong = another_value(fact.relation, fact.subject, rng)
            agree, mistaken = (OPINIONS[form].format(claim=_claim(fact, value)) for value in (fact.value, wrong))
            question = QUESTIONS[fact.relation][number].format(s=fact.subject)
            text = state(Fact(fact.relation, fact.subject, wrong))
            made.setdefault(name, Item(name, question, fact.value, wrong, agree, mistaken, text))
    return list(made.values())


def _claim(fact: Fact, value: str) -> str:
    claim = state(Fact(fact.relation, fact.subject, value))[:-1]
    return claim[0].lower() + claim[1:] if claim.startswith("The ") else claim
