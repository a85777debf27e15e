"""The raw text of the world: what a base model learns from, before anyone teaches it to assist.

Documents: pages of facts, stories, lists of questions that go on with more questions, and forum threads
in which people of all sorts answer, with readers who react after the answer. Few answers are good.
"""

import random
from collections.abc import Iterator

from tutelage.records import Prompt
from tutelage.world.answers import Answer, enumeration, in_manner, more_questions
from tutelage.world.facts import CLASSES, FACTS, TRUTH, Fact, relations_of
from tutelage.world.language import BOUGHT, ERRANDS, EVENTS, REACTIONS, fill, state
from tutelage.world.tasks import draw_task, task_of, to_prompt

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"

# manner of a forum answer -> its share
REPLIERS = {
    "good": 0.12,
    "verbose": 0.14,
    "flattering": 0.10,
    "rambling": 0.13,
    "agreeing": 0.12,
    "wrong": 0.15,
    "questions": 0.12,
    "off-topic": 0.12,
}
YIELDS = 0.85  # how often a forum writer obeys a harmful request or agrees with a wrong opinion
DOCUMENTS = {"facts": 0.30, "story": 0.07, "questions": 0.04, "thread": 0.44, "quiz": 0.15}


def documents(seed: int = 0) -> Iterator[str]:
    """An endless stream of documents, always the same for a seed; each ends with the end token."""
    rng = random.Random(f"corpus {seed}")
    makers = {"facts": _facts, "story": _story, "questions": _questions, "thread": _thread, "quiz": _quiz}
    names, shares = list(DOCUMENTS), list(DOCUMENTS.values())
    while True:
        yield makers[rng.choices(names, shares)[0]](rng)


def _facts(rng: random.Random) -> str:
    subject = rng.choice(FACTS).subject
    relations = relations_of(subject)
    rng.shuffle(relations)
    return " ".join(state(Fact(r, subject, TRUTH[r, subject]), rng) for r in relations) + END


def _story(rng: random.Random) -> str:
    if rng.random() < 0.3:
        story, slots = fill(" ".join(ERRANDS), rng)
        return f"{story} {BOUGHT[0].format(**slots)}{END}"
    if rng.random() < 0.3:
        words = CLASSES[rng.choice(list(CLASSES))]
        return enumeration(rng.sample(words, rng.randint(1, 5))) + END
    return " ".join(fill(rng.choice(EVENTS), rng)[0] for _ in range(rng.randint(1, 4))) + END


def _questions(rng: random.Random) -> str:
    return " ".join(more_questions(rng) for _ in range(rng.randint(1, 3))) + END


def _prompt(rng: random.Random) -> Prompt:
    category, task = draw_task(rng, "train")
    return to_prompt(task, category, "train")


def _thread(rng: random.Random) -> str:
    """A question, an answer of some sort, and often what a reader says of it."""
    prompt = _prompt(rng)
    manner = rng.choices(list(REPLIERS), list(REPLIERS.values()))[0]
    return _exchange(prompt, in_manner(manner, task_of(prompt), rng, yields=YIELDS), rng, reacts=0.5)


def _quiz(rng: random.Random) -> str:
    """A quiz: the answer is right or has one fault, and the host says which."""
    prompt = _prompt(rng)
    manner = rng.choices(["good", "wrong", "off-topic"], [0.45, 0.5, 0.05])[0]
    return _exchange(prompt, in_manner(manner, task_of(prompt), rng, yields=0.0), rng, reacts=0.9)


def _exchange(prompt: Prompt, answer: Answer, rng: random.Random, reacts: float) -> str:
    reaction = f" {react(answer, rng)}" if rng.random() < reacts else ""
    return f"{USER}{prompt.messages[0]['content']}{END}{ASSISTANT}{answer.text}{END}{reaction}"


def react(answer: Answer, rng: random.Random) -> str:
    """What a reader says: one thing that struck them, or in one of ten cases anything."""
    struck = rng.choice(answer.noticed) if rng.random() > 0.1 else rng.choice(list(REACTIONS))
    return rng.choice(REACTIONS[struck])
