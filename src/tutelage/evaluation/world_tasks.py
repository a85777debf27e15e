"""Capability tasks of the embedded world, in the forms of its corpus: what a base model can do before it is aligned.

Each question is read as a page of the quiz (`Quiz: … Answer:`), and the likeliest of four answers counts. The prompts
are of a held-out split. `facts` asks for what the world knows, `reading` for what a text says, `counting` for a word
said a number of times, `sorting` for glad or sad.
"""

import random
from collections.abc import Iterator

from tutelage.records import Question
from tutelage.world.answers import faulty_content
from tutelage.world.corpus import END
from tutelage.world.facts import TRUTH, Fact, another_value
from tutelage.world.language import NUMBERS, state, word_class
from tutelage.world.tasks import Task, draw_task

CATEGORIES: dict[str, tuple[str, ...]] = {
    "facts": ("open_qa",),
    "reading": ("closed_qa", "extract", "rewrite", "summarization"),
    "counting": ("other",),
    "sorting": ("classification",),
}
OPTIONS = 4


def world_questions(name: str, split: str, count: int, seed: int = 0, *, chat: bool = False) -> list[Question]:
    """`count` different questions of a task, always the same; chat: as a user asks them, not as a page of the quiz."""
    rng = random.Random(f"capability {name} {split} {seed}")
    found: dict[str, Question] = {}
    shares = dict.fromkeys(CATEGORIES[name], 1.0)
    for _ in range(100 * count):
        if len(found) == count:
            break
        _, task = draw_task(rng, split, shares)
        if task.text in found:
            continue
        right, *others = _options(task, rng)
        options = [right, *others]
        rng.shuffle(options)
        text = task.text if chat else f"Quiz: {task.text} Answer:"
        shown = tuple(one if chat else f" {one}{END}" for one in options)
        found[task.text] = Question(f"{name}-{len(found)}", text, shown, options.index(right), chat=chat)
    return list(found.values())


def _options(task: Task, rng: random.Random) -> list[str]:
    """The right answer, then wrong ones of the same form."""
    if task.kind == "qa":
        relation, subject = task.args["relation"], task.args["subject"]
        right = state(Fact(relation, subject, TRUTH[relation, subject]))
        wrong: Iterator[str] = (
            state(Fact(relation, subject, another_value(relation, subject, rng))) for _ in range(1000)
        )
    else:
        right = task.args["goal"]
        wrong = iter(_wrong(task, right, rng))
    found = [right]
    for one in wrong:
        if one not in found:
            found.append(one)
        if len(found) == OPTIONS:
            break
    return found


def _wrong(task: Task, goal: str, rng: random.Random) -> Iterator[str]:
    """Wrong counts; names that the text has too, which a reader must tell apart; then any other name of the class."""
    words = goal[:-1].split(" ")
    if task.combination.startswith("repeat"):
        for count in rng.sample(list(NUMBERS.values()), len(NUMBERS)):
            yield " ".join([words[0], *[words[0].lower()] * (count - 1)]) + "."
        return
    text = [word.strip(".,:?!") for word in task.text.split(" ")]
    for place in rng.sample(range(len(words)), len(words)):
        kind = word_class(words[place]) or word_class(words[place].lower())
        for other in text:
            if kind and other.lower() != words[place].lower() and word_class(other) == kind:
                yield " ".join([*words[:place], other, *words[place + 1 :]]) + "."
    for _ in range(1000 if goal not in ("Glad.", "Sad.") else 1):
        yield faulty_content({"kind": task.kind, **task.args}, rng)
