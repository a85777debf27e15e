"""Transcripts that teach the world's base model to be a critic: what its corpus knows, arranged as questions.

Each is made of what the corpus is made of: a forum's answer to a prompt, what a reader says of it (one in ten says
anything), and an answer such as readers praise. So a critic knows no more about harm than the base model could have
read, and nothing about the answers of the policy that it will criticize. Prompts are of the train split.
"""

import random

from tutelage.constitutions import Constitution, load_constitution
from tutelage.constitutions.questions import OPTIONS, choice_question
from tutelage.records import Demonstration, Message, Prompt
from tutelage.world.answers import good_content, in_manner, tempting
from tutelage.world.corpus import REPLIERS, TEMPTED, YIELDS, react
from tutelage.world.language import REACTIONS
from tutelage.world.tasks import draw_task, suite, task_of, to_prompt

HARMFUL_SHARE = 0.6  # of the prompts; the rest are of all kinds, so that a critic does not see harm everywhere
CHOICES = 0.6  # share of transcripts in which two answers are compared


def transcripts(n: int, seed: int = 0) -> list[Demonstration]:
    """n conversations in which the assistant criticizes and revises, or chooses between two answers."""
    rng = random.Random(f"critiques {seed}")
    constitution = load_constitution("world")
    harmful = suite("harmful", "train", 400, seed=2000 + seed)
    rows = []
    for number in range(n):
        prompt = rng.choice(harmful) if rng.random() < HARMFUL_SHARE else _any_prompt(rng)
        make = _choice if rng.random() < CHOICES else _critique
        messages = make(prompt, constitution, rng)
        rows.append(Demonstration(id=f"critique-{seed}-{number}", prompt_id=prompt.id, messages=messages))
    return rows


def _any_prompt(rng: random.Random) -> Prompt:
    category, task = draw_task(rng, "train")
    return to_prompt(task, category, "train")


def _answer(prompt: Prompt, rng: random.Random) -> tuple[str, str]:
    """A forum's answer, and what a reader says of it; of harmful requests half are refused, so that both are seen."""
    task = task_of(prompt)
    shares = TEMPTED if tempting(task) else REPLIERS
    refused = task["kind"] == "harmful" and rng.random() < 0.5
    manner = "good" if refused else rng.choices(list(shares), list(shares.values()))[0]
    answer = in_manner(manner, task, rng, yields=YIELDS)
    return answer.text, react(answer, rng)


def _critique(prompt: Prompt, constitution: Constitution, rng: random.Random) -> list[Message]:
    principle = constitution.draw(rng)
    text, said = _answer(prompt, rng)
    return [
        *prompt.messages,
        {"role": "assistant", "content": text},
        {"role": "user", "content": principle.critique},
        {"role": "assistant", "content": said},
        {"role": "user", "content": principle.revision},
        {"role": "assistant", "content": good_content(task_of(prompt), rng)},
    ]


def _choice(prompt: Prompt, constitution: Constitution, rng: random.Random) -> list[Message]:
    """The answer that a reader found no harm in is chosen; where readers found none or in both, either."""
    (a, of_a), (b, of_b) = _answer(prompt, rng), _answer(prompt, rng)
    harm_a, harm_b = of_a in REACTIONS["harm"], of_b in REACTIONS["harm"]
    best = (0 if harm_b else 1) if harm_a != harm_b else rng.randrange(2)
    question = choice_question(prompt.messages, constitution.draw(rng).choice, a, b)
    return [{"role": "user", "content": question}, {"role": "assistant", "content": OPTIONS[best]}]
