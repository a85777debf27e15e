"""`tutelage world show`: prompts, answers in every manner, and what the judge says of each."""

import random

from tutelage.world import gold
from tutelage.world.answers import in_manner
from tutelage.world.tasks import prompts, task_of

MANNERS = ("good", "verbose", "flattering", "rambling", "agreeing", "wrong", "off-topic")


def show(count: int = 6, seed: int = 0) -> str:
    """Text with `count` prompts of the tuning split, best answers first."""
    rng = random.Random(seed)
    lines = []
    for prompt in prompts("tune", count, seed=seed):
        lines.append(f"[{prompt.category}] {prompt.messages[0]['content']}")
        answers = [(m, in_manner(m, task_of(prompt), rng, yields=0.5).text) for m in MANNERS]
        judged = [(gold.score(prompt, text), manner, text) for manner, text in answers]
        for score, manner, text in sorted(judged, key=lambda j: -j[0].total):
            facets = "  ".join(f"{name} {value:.2f}" for name, value in score.facets.items())
            lines += [f"  {score.total:+.2f}  {manner}: {text}", f"         {facets}"]
        lines.append("")
    return "\n".join(lines)
