"""Parts of the world by name, as a data option gives them: `world:helpful`, `world:harmful`, `world:critiques`,
`world:reasoning`, and `world:good=SHARE` for the text of a forum with another share of good answers."""

from collections.abc import Iterator

from tutelage.errors import UserError, did_you_mean
from tutelage.records import Demonstration, Prompt
from tutelage.world import critiques, reasoning
from tutelage.world.corpus import documents
from tutelage.world.demonstrators import demonstrations
from tutelage.world.tasks import prompts, suite, task_of

PROMPTS = ("world", "world:helpful", "world:harmful", "world:reasoning")
DEMONSTRATIONS = ("world", "world:helpful", "world:critiques", "world:reasoning")


def demonstrations_of(spec: str, n: int, seed: int) -> list[Demonstration]:
    """`world`; `world:helpful`: none of them about a request for harm; `world:critiques`: what teaches a critic.

    `world:reasoning`: solutions of problems in steps, right and wrong.
    """
    _known(spec, DEMONSTRATIONS, "demonstrations")
    if spec == "world:critiques":
        return critiques.transcripts(n, seed)
    if spec == "world:reasoning":
        return reasoning.solutions(n, seed)
    if spec == "world":
        return demonstrations(n, seed)
    asked = {p.id for p in prompts("train", 2 * n, seed=1000 + seed) if _helpful(p)}
    return [d for d in demonstrations(2 * n, seed) if d.prompt_id in asked][:n]


def prompts_of(spec: str, split: str, n: int, seed: int) -> list[Prompt]:
    """`world`; `world:helpful`: without requests for harm; `world:harmful`: these alone; `world:reasoning`: problems."""
    _known(spec, PROMPTS, "prompts")
    if spec == "world:reasoning":
        return reasoning.problems(split, n, seed)
    if spec == "world:harmful":
        return suite("harmful", split, n, seed)
    found = prompts(split, n if spec == "world" else 2 * n, seed)
    return found if spec == "world" else [p for p in found if _helpful(p)][:n]


def texts_of(spec: str, seed: int) -> Iterator[str]:
    """The corpus without end; `world:good=0.5`: half of the forum's answers hold what was asked for."""
    name, equals, value = spec.removeprefix("world:").partition("=")
    if not equals or name != "good":
        return documents(seed)
    try:
        good = float(value)
    except ValueError:
        good = -1.0
    if not 0 <= good <= 1:
        raise UserError(f"{value!r} is no share", where=f"data {spec}", mend="give a number from 0 to 1")
    return documents(seed, good)


def _helpful(prompt: Prompt) -> bool:
    return task_of(prompt)["kind"] != "harmful"


def _known(spec: str, names: tuple[str, ...], what: str) -> None:
    if spec not in names:
        raise UserError(
            f"the world has no {what} called {spec!r}{did_you_mean(spec, list(names))}",
            where="option --data (data)",
            mend=f"use one of: {', '.join(names)}, or a file",
        )
