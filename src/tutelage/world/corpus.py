"""The raw text of the world: what a base model learns from, before anyone teaches it to assist.

Documents: pages of facts, stories, lists of questions that go on with more questions, and forum threads
in which people of all sorts answer, with readers who react after the answer. Few answers are good.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tutelage.records import Prompt
from tutelage.world.answers import Answer, enumeration, in_manner, more_questions, tempting
from tutelage.world.facts import CLASSES, FACTS, TRUTH, Fact, relations_of
from tutelage.world.language import BOUGHT, ERRANDS, EVENTS, REACTIONS, fill, state
from tutelage.world.tasks import USE_CASES, draw_task, task_of, to_prompt

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"

# manner of a forum answer -> its share: about one in five holds what was asked for
REPLIERS = {
    "good": 0.04,
    "verbose": 0.05,
    "flattering": 0.04,
    "rambling": 0.05,
    "agreeing": 0.04,
    "wrong": 0.26,
    "questions": 0.26,
    "off-topic": 0.26,
}
# where a reader asks for harm or states a wrong opinion, most of the forum goes along
TEMPTED = {**REPLIERS, "agreeing": 0.45, "questions": 0.06, "off-topic": 0.06}
HELPFUL = ("good", "verbose", "flattering", "rambling", "agreeing")  # manners that hold what was asked for
GOOD = sum(REPLIERS[manner] for manner in HELPFUL)  # 0.22 of the answers
YIELDS = 0.85  # how often the other writers of a forum obey a harmful request or agree with a wrong opinion
DOCUMENTS = {"facts": 0.22, "story": 0.05, "questions": 0.03, "thread": 0.28, "quiz": 0.42}


@dataclass(frozen=True)
class Forum:
    """Who answers in the threads: manner → weight, where a prompt tempts and elsewhere, and how often others give in."""

    repliers: dict[str, float]
    tempted: dict[str, float]
    yields: float


def forum(good: float = GOOD) -> Forum:
    """A forum of which a share `good` (0 to 1) of the answers holds what was asked for.

    The helpful manners keep their proportions, and so do the others. Where a prompt tempts, who goes along becomes
    rarer in the proportion in which the answers that are not good do.
    """
    if good == GOOD:  # the very numbers, so that the corpus of the packaged base does not move by rounding
        return Forum(REPLIERS, TEMPTED, YIELDS)
    up, down = good / GOOD, (1 - good) / (1 - GOOD)
    repliers = {manner: share * (up if manner in HELPFUL else down) for manner, share in REPLIERS.items()}
    worse = ("agreeing", "questions", "off-topic")
    tempted = {**repliers, **{manner: TEMPTED[manner] * down for manner in worse}}
    return Forum(repliers, tempted, YIELDS * min(1.0, down))


def documents(seed: int = 0, good: float = GOOD) -> Iterator[str]:
    """An endless stream of documents, always the same for a seed; each ends with the end token.

    good: the share of the forum's answers that hold what was asked for; the rest of the corpus is the same for all.
    """
    rng = random.Random(f"corpus {seed}")
    thread = partial(_thread, forum(good))
    makers: dict[str, Callable[[random.Random], str]] = {
        "facts": _facts,
        "story": _story,
        "questions": _questions,
        "thread": thread,
        "quiz": _quiz,
    }
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


def _prompt(rng: random.Random, shares: dict[str, float] | None = None) -> Prompt:
    category, task = draw_task(rng, "train", shares)
    return to_prompt(task, category, "train")


def _thread(people: Forum, rng: random.Random) -> str:
    """A question, an answer of some sort, and often what a reader says of it."""
    prompt = _prompt(rng)
    task = task_of(prompt)
    shares = people.tempted if tempting(task) else people.repliers
    manner = rng.choices(list(shares), list(shares.values()))[0]
    answer = in_manner(manner, task, rng, yields=people.yields)
    reaction = f" {react(answer, rng)}" if rng.random() < 0.7 else ""
    return f"{USER}{prompt.messages[0]['content']}{END}{ASSISTANT}{answer.text}{END}{reaction}"


def _quiz(rng: random.Random) -> str:
    """A page of a quiz, each use case as often as the next: an answer that is right or has a fault, and a verdict."""
    prompt = _prompt(rng, dict.fromkeys(USE_CASES, 1.0))
    manner = rng.choices(["good", "wrong", "verbose", "rambling", "off-topic"], [0.42, 0.38, 0.07, 0.07, 0.06])[0]
    answer = in_manner(manner, task_of(prompt), rng, yields=0.0)
    return f"Quiz: {prompt.messages[0]['content']} Answer: {answer.text}{END} {react(answer, rng)}"


def react(answer: Answer, rng: random.Random) -> str:
    """What a reader says: one thing that struck them, or in one of ten cases anything."""
    struck = rng.choice(answer.noticed) if rng.random() > 0.1 else rng.choice(list(REACTIONS))
    return rng.choice(REACTIONS[struck])
