"""Demonstrations by people of varied skill: SFT imitates their average, PPO can reach the best of them."""

import random

from tutelage.records import Demonstration
from tutelage.world.answers import in_manner
from tutelage.world.tasks import prompts, task_of

# manner -> share of the demonstrations, and how often such a writer obeys harm or agrees wrongly
DEMONSTRATORS = {
    "good": (0.40, 0.0),
    "verbose": (0.22, 0.3),
    "flattering": (0.12, 0.5),
    "rambling": (0.10, 0.4),
    "agreeing": (0.08, 1.0),
    "wrong": (0.08, 0.4),
}


def demonstrations(n: int, seed: int = 0) -> list[Demonstration]:
    """n conversations on train prompts, each by one demonstrator."""
    rng = random.Random(f"demonstrations {seed}")
    manners = list(DEMONSTRATORS)
    shares = [DEMONSTRATORS[m][0] for m in manners]
    rows = []
    for number, prompt in enumerate(prompts("train", n, seed=1000 + seed)):
        manner = rng.choices(manners, shares)[0]
        text = in_manner(manner, task_of(prompt), rng, yields=DEMONSTRATORS[manner][1]).text
        messages = [*prompt.messages, {"role": "assistant", "content": text}]
        rows.append(Demonstration(id=f"demo-{seed}-{number}", prompt_id=prompt.id, messages=messages, labeler=manner))
    return rows
