"""Problems of several steps whose every step can be checked: who has a thing after it went from hand to hand.

Apart from the world's corpus and prompts. In half of the problems the last who has it gives something else away, which
does not count, and most solvers fall for it. Solvers also slip, and some write a wrong step and the right answer. So
majority voting fails where most are wrong alike, a right answer does not show right steps, and whoever checks the steps
can tell. A small model can: a step is right where the problem says the same, which is a matter of finding it there
(sums would be another: the 2.4 M model learned to add from as many solutions, and not to see that a sum is wrong).
"""

import hashlib
import json
import random
from itertools import pairwise
from typing import Any

from tutelage.records import Demonstration, Message, Prompt
from tutelage.solutions import final_answer, split_steps
from tutelage.world.facts import PEOPLE, THINGS

GIVES = ("{a} gave {what} to {b}.", "{a} sold {what} to {b}.", "Then {a} gave {what} to {b}.")
TRAPPED = 0.62  # of the solvers who follow the other thing
SLIP = 0.05  # chance of a wrong name in a step, from which the solver goes on
FLAWED = 0.10  # solvers who write one wrong name and go on as if it were right
SPLITS = {"train": (0, 70), "tune": (70, 80), "report": (80, 100)}  # percent of the problems
Problem = dict[str, Any]


def draw_problem(rng: random.Random) -> Problem:
    """holders: who has the thing, one after the other; trap: to whom the last of them gives the other thing, if at all."""
    moves = rng.randint(2, 4)
    *holders, trap = rng.sample(PEOPLE, moves + 2)
    thing, other = rng.sample(THINGS, 2)
    forms = [rng.randrange(len(GIVES)) for _ in range(moves + 1)]
    trapped = rng.random() < 0.5
    return {"thing": thing, "other": other, "holders": holders, "trap": trap if trapped else None, "forms": forms}


def words(problem: Problem) -> str:
    thing, holders = problem["thing"], problem["holders"]
    said = [f"{holders[0]} has the {thing}."]
    for form, (a, b) in zip(problem["forms"], pairwise(holders), strict=False):
        said.append(GIVES[form].format(a=a, b=b, what="it"))
    if problem["trap"]:
        other = f"the {problem['other']}"
        said.append(GIVES[problem["forms"][-1]].format(a=holders[-1], b=problem["trap"], what=other))
    return f"{' '.join(said)} Who has the {thing}?"


def right_steps(problem: Problem) -> list[str]:
    """The solution: one line for each time that it changed hands, then the answer."""
    holders = problem["holders"]
    return [*(f"{a} to {b}." for a, b in pairwise(holders)), f"Answer: {holders[-1]}."]


def solve(problem: Problem, rng: random.Random) -> str:
    """A solution as one of the world's people writes it, right or not."""
    trapped, flawed = problem["trap"] and rng.random() < TRAPPED, rng.random() < FLAWED
    path = [*problem["holders"], problem["trap"]] if trapped else problem["holders"]
    wrong_at = rng.randrange(len(path) - 1) if flawed else None
    holder, steps = path[0], []
    for place, receiver in enumerate(path[1:]):
        others = [name for name in problem["holders"] if name not in (holder, receiver)]
        written = rng.choice(others) if place == wrong_at or rng.random() < SLIP else receiver
        steps.append(f"{holder} to {written}.")
        holder = receiver if place == wrong_at else written
    return "\n".join([*steps, f"Answer: {holder}."])


def step_labels(prompt: Prompt, text: str) -> list[int]:
    """1 for each step of a solution that is the right one in its place, -1 for the others."""
    problem = problem_of(prompt)
    right, labels = right_steps(problem), []
    for place, step in enumerate(split_steps(text)):
        ending = step.startswith("Answer:")
        wanted = right[-1] if ending else right[place] if place < len(right) - 1 else None
        labels.append(1 if step == wanted and (not ending or place == len(right) - 1) else -1)
    return labels


def solved(prompt: Prompt, text: str) -> tuple[bool, bool]:
    """Whether the final answer is right, and whether it is and every step is too."""
    right = final_answer(text) == prompt.answer
    return right, right and split_steps(text) == right_steps(problem_of(prompt))


def problem_of(prompt: Prompt) -> Problem:
    return json.loads((prompt.source or "").removeprefix("reasoning:"))


def is_reasoning(prompt: Prompt) -> bool:
    return (prompt.source or "").startswith("reasoning:")


def problems(split: str, n: int, seed: int = 0) -> list[Prompt]:
    """n different problems of a split, always the same for the same arguments."""
    rng = random.Random(f"reasoning {split} {seed}")
    low, high = SPLITS[split]
    found: dict[str, Prompt] = {}
    while len(found) < n:
        problem = draw_problem(rng)
        text = words(problem)
        digest = hashlib.blake2b(text.encode(), digest_size=6).digest()
        if not low <= int.from_bytes(digest, "little") % 100 < high:
            continue
        messages: list[Message] = [{"role": "user", "content": text}]
        found[text] = Prompt(
            id=f"r-{digest.hex()}",
            messages=messages,
            category="reasoning",
            source=f"reasoning:{json.dumps(problem)}",
            split=split,
            answer=right_steps(problem)[-1].removeprefix("Answer: ").removesuffix("."),
        )
    return list(found.values())


def solutions(n: int, seed: int = 0) -> list[Demonstration]:
    """n problems of the train split, each solved by one person."""
    rng = random.Random(f"solutions {seed}")
    rows = []
    for number, prompt in enumerate(problems("train", n, seed=3000 + seed)):
        messages = [*prompt.messages, {"role": "assistant", "content": solve(problem_of(prompt), rng)}]
        rows.append(Demonstration(id=f"solution-{seed}-{number}", prompt_id=prompt.id, messages=messages))
    return rows
