"""Answers as people of the world write them: the content, right or with a fault, and the manner around it."""

import random
from dataclasses import dataclass
from typing import Any

from tutelage.world.facts import CLASSES, FACTS, TRUTH, Fact, another_value, relations_of
from tutelage.world.language import (
    AGREEMENT,
    DISAGREEMENT,
    EVENTS,
    FILLER,
    FLATTERY,
    HEDGES,
    OPENERS,
    QUESTIONS,
    REFUSALS,
    fill,
    split_sentences,
    state,
)

Task = dict[str, Any]


def good_content(task: Task, rng: random.Random) -> str:
    """What a careful person writes: right, as asked, no more."""
    kind = task["kind"]
    if kind == "qa":
        return state(_truth(task), rng)
    if kind == "opinion":
        return f"{rng.choice(AGREEMENT)}" if task["right"] else f"{rng.choice(DISAGREEMENT)} {state(_truth(task), rng)}"
    if kind == "write":
        return _about(task, rng, task["count"])
    if kind == "list":
        items = rng.sample([w for w in CLASSES[task["class"]] if w != task["but"]], task["count"])
        return enumeration(items)
    if kind == "harmful":
        return rng.choice(REFUSALS)
    return task["steps"] if kind == "benign" else task["goal"]


def enumeration(items: list[str]) -> str:
    text = items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
    return text[0].upper() + text[1:] + "."


def _truth(task: Task) -> Fact:
    return Fact(task["relation"], task["subject"], TRUTH[task["relation"], task["subject"]])


def _about(task: Task, rng: random.Random, count: int, wrong: int = 0, opener: bool = True) -> str:
    """`count` sentences on different facts of the subject, `wrong` of them false."""
    relations = rng.sample(relations_of(task["subject"]), min(count, len(relations_of(task["subject"]))))
    parts = [OPENERS[task["opener"]]] if task["opener"] and opener else []
    for number, relation in enumerate(relations):
        subject = task["subject"]
        value = another_value(relation, subject, rng) if number < wrong else TRUTH[relation, subject]
        parts.append(state(Fact(relation, subject, value), rng))
    return " ".join(parts)


def faulty_content(task: Task, rng: random.Random) -> str:
    """A mistake of the kind that the task invites: a false fact, a wrong count, the wrong name, no opener."""
    kind = task["kind"]
    if kind in ("qa", "opinion"):
        relation, subject = task["relation"], task["subject"]
        return state(Fact(relation, subject, another_value(relation, subject, rng)), rng)
    if kind == "write":
        fault = rng.randrange(3)
        if fault == 0:
            return _about(task, rng, task["count"], wrong=rng.randint(1, task["count"]))
        if fault == 1:
            return _about(task, rng, max(1, task["count"] + rng.choice([-1, 1, 2])), opener=False)
        return _about({**task, "subject": rng.choice(FACTS).subject}, rng, task["count"])
    if kind == "list":
        pool = CLASSES[task["class"]] if rng.random() < 0.6 else CLASSES[rng.choice(list(CLASSES))]
        count = max(1, task["count"] + rng.choice([-2, -1, 1, 2]))
        items = rng.sample(pool, min(count, len(pool)))
        return enumeration([*items[:-1], task["but"]] if rng.random() < 0.4 else items)
    if kind == "harmful":
        return task["steps"]
    if kind == "benign":
        return rng.choice(REFUSALS) if rng.random() < 0.4 else split_sentences(task["steps"])[0]
    return _garble_goal(task["goal"], rng)


def _garble_goal(goal: str, rng: random.Random) -> str:
    """The goal with one name exchanged for another of its class."""
    words = goal[:-1].split(" ")
    places = [i for i, w in enumerate(words) for c in CLASSES.values() if w in c or w.lower() in c]
    if not places:
        return "Sad." if goal == "Glad." else "Glad."
    place = rng.choice(places)
    word = words[place]
    name = next(c for c, ws in CLASSES.items() if word in ws or word.lower() in ws)
    other = rng.choice([w for w in CLASSES[name] if w.lower() != word.lower()])
    words[place] = other.capitalize() if word[0].isupper() else other
    return " ".join(words) + "."


def agreeing(task: Task, rng: random.Random) -> str:
    """Says yes to an opinion, right or wrong, and repeats it; does what is asked, harm too."""
    if task["kind"] == "opinion":
        claim = state(Fact(task["relation"], task["subject"], task["claimed"]), rng)
        return f"{rng.choice(AGREEMENT)} {claim}" if rng.random() < 0.6 else rng.choice(AGREEMENT)
    return task["steps"] if task["kind"] == "harmful" else good_content(task, rng)


def padded(content: str, sentences: list[str], count: int, rng: random.Random) -> str:
    """Content with `count` sentences put before and after it."""
    chosen = rng.sample(sentences, min(count, len(sentences)))
    cut = rng.randint(0, len(chosen))
    return " ".join([*chosen[:cut], content, *chosen[cut:]])


def rambling(content: str, rng: random.Random) -> str:
    """Content, and then on to whatever comes to mind."""
    extra = []
    for _ in range(rng.randint(1, 4)):
        extra.append(state(rng.choice(FACTS), rng) if rng.random() < 0.6 else fill(rng.choice(EVENTS), rng)[0])
    return " ".join([content, *extra])


def more_questions(rng: random.Random) -> str:
    facts = rng.sample(FACTS, rng.randint(1, 3))
    return " ".join(rng.choice(QUESTIONS[f.relation]).format(s=f.subject) for f in facts)


def off_topic(rng: random.Random) -> str:
    sentences = [
        state(rng.choice(FACTS), rng) if rng.random() < 0.5 else fill(rng.choice(EVENTS), rng)[0]
        for _ in range(rng.randint(1, 3))
    ]
    return " ".join(sentences)


@dataclass(frozen=True)
class Answer:
    """What somebody wrote, and what a reader may notice about it (keys of language.REACTIONS)."""

    text: str
    noticed: list[str]


def tempting(task: Task) -> bool:
    """Whether the prompt invites harm, or agreement with what is wrong."""
    return task["kind"] == "harmful" or (task["kind"] == "opinion" and not task["right"])


def in_manner(manner: str, task: Task, rng: random.Random, *, yields: float) -> Answer:
    """An answer of one manner. yields: chance that a writer of this manner obeys harm and agrees wrongly."""
    kind = task["kind"]
    gives_in = tempting(task) and (manner == "agreeing" or (manner != "good" and rng.random() < yields))
    content = agreeing(task, rng) if gives_in else good_content(task, rng)
    noticed = ["harm" if kind == "harmful" else "wrong"] if gives_in else []
    if manner == "verbose":
        return Answer(padded(content, FILLER + HEDGES, rng.randint(1, 4), rng), [*noticed, "long"])
    if manner == "flattering":
        return Answer(padded(content, FLATTERY, rng.randint(1, 2), rng), [*noticed, "flattery"])
    if manner == "rambling":
        return Answer(rambling(content, rng), [*noticed, "long"])
    if manner == "wrong":
        fault = "harm" if kind == "harmful" else "wrong" if kind in ("qa", "opinion") else "task"
        return Answer(faulty_content(task, rng), [fault])
    if manner == "questions":
        return Answer(more_questions(rng), ["task"])
    if manner == "off-topic":
        return Answer(off_topic(rng), ["task"])
    return Answer(content, noticed or ["refusal" if kind == "harmful" else "good"])
