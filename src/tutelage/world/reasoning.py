"""Problems of several steps whose every step can be checked: who holds how many things after a few changes.

Apart from the world's corpus and prompts. A person's things grow and shrink; in half of the problems another person's
number stands between, which does not count, and most solvers fall for it. Solvers also slip, and some write a wrong
step and the right answer. So majority voting fails where most are wrong alike, a right answer does not show right
steps, and whoever scores the steps can tell.
"""

import hashlib
import json
import random
from typing import Any

from tutelage.records import Demonstration, Message, Prompt
from tutelage.solutions import final_answer, split_steps
from tutelage.world.facts import PEOPLE, THINGS

MORE = ("{p} finds {n}.", "{p} buys {n}.", "Then {p} gets {n}.")
LESS = ("{p} loses {n}.", "{p} sells {n}.", "Then {p} gives away {n}.")
OTHERS = ("{o} finds {n}.", "{o} buys {n}.")
MOST = 20  # no count is larger: the sums that there are can be learned from some ten thousand solutions
TRAPPED = 0.62  # of the solvers who count what another person got
SLIP = 0.05  # chance of a wrong sum in a step
FLAWED = 0.10  # solvers who write one wrong step and go on as if it were right
SPLITS = {"train": (0, 70), "tune": (70, 80), "report": (80, 100)}  # percent of the problems
Problem = dict[str, Any]


def draw_problem(rng: random.Random) -> Problem:
    """start: what there is at first; changes: signed numbers, with `other` for one that is another person's."""
    person, other = rng.sample(PEOPLE, 2)
    start = total = rng.randint(2, 9)
    changes: list[dict[str, Any]] = []
    for _ in range(rng.randint(2, 3)):
        sign = -1 if (total > 3 and rng.random() < 0.5) or total > MOST - 9 else 1
        number = rng.randint(1, min(9, total - 1) if sign < 0 else 9)
        total += sign * number
        changes.append({"by": sign * number, "form": rng.randrange(3)})
    if rng.random() < 0.5:
        place = rng.randint(1, len(changes))
        changes.insert(place, {"by": rng.randint(1, 4), "form": rng.randrange(2), "other": True})
    return {"person": person, "other": other, "thing": rng.choice(THINGS), "start": start, "changes": changes}


def words(problem: Problem) -> str:
    said = [f"{problem['person']} has {problem['start']} {problem['thing']}s."]
    for change in problem["changes"]:
        forms = OTHERS if change.get("other") else MORE if change["by"] > 0 else LESS
        said.append(forms[change["form"]].format(p=problem["person"], o=problem["other"], n=abs(change["by"])))
    return f"{' '.join(said)} How many {problem['thing']}s has {problem['person']}?"


def equation(total: int, by: int, result: int) -> str:
    return f"{total} {'+' if by > 0 else '-'} {abs(by)} = {result}."


def right_steps(problem: Problem) -> list[str]:
    """The solution: one equation a change, then the answer."""
    total, steps = problem["start"], []
    for change in problem["changes"]:
        if not change.get("other"):
            steps.append(equation(total, change["by"], total + change["by"]))
            total += change["by"]
    return [*steps, f"Answer: {total}."]


def solve(problem: Problem, rng: random.Random) -> str:
    """A solution as one of the world's people writes it, right or not."""
    trapped, flawed = rng.random() < TRAPPED, rng.random() < FLAWED
    counted = [change for change in problem["changes"] if trapped or not change.get("other")]
    wrong_at = rng.randrange(len(counted)) if flawed else None
    total, steps = problem["start"], []
    for place, change in enumerate(counted):
        result = total + change["by"]
        written = result + rng.choice([-2, -1, 1, 2]) if place == wrong_at or rng.random() < SLIP else result
        steps.append(equation(total, change["by"], written))
        total = result if place == wrong_at else written
    return "\n".join([*steps, f"Answer: {total}."])


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
