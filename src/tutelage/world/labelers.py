"""Simulated labelers: they rank by the gold score through noise and tastes that are set and known.

A labeler perceives gold + tastes + normal noise of scale `noise` (Thurstone's model). At the fair panel's 0.2 two
labelers agree on about 73 % of the pairs of one SFT model's answers, as in the paper (`tutelage label` measures it).
"""

import random
from dataclasses import dataclass, fields, replace

from tutelage.errors import UserError, did_you_mean
from tutelage.records import Prompt
from tutelage.world import gold
from tutelage.world.answers import in_manner
from tutelage.world.language import read, split_sentences
from tutelage.world.reasoning import is_reasoning, problem_of, right_steps, step_labels
from tutelage.world.rubric import rating
from tutelage.world.tasks import task_of

WORST, BEST = -0.2, 1.0  # perceived scores that are rated 1 and 7
TIE_GAP = 0.01  # perceived scores nearer than this are called equal


@dataclass(frozen=True)
class Tastes:
    """noise: standard deviation on the gold scale. length: bonus per ten words. praise: bonus for a flattering
    sentence. agreement: bonus for agreeing with the user's opinion. random: share of rankings at random."""

    noise: float = 0.2
    length: float = 0.0
    praise: float = 0.0
    agreement: float = 0.0
    random: float = 0.0


PANELS = {
    "fair": Tastes(),
    "length": Tastes(length=0.45),
    "flattered": Tastes(praise=0.3, agreement=0.9),
    "careless": Tastes(noise=0.4, random=0.3),
    "held-out": Tastes(noise=0.16),
}


@dataclass(frozen=True)
class Labeler:
    id: str
    tastes: Tastes

    def perceive(self, prompt: Prompt, text: str, finish: str, rng: random.Random) -> float:
        tastes = self.tastes
        value = gold.score(prompt, text, finish).total + rng.gauss(0.0, tastes.noise)
        if tastes.length:
            value += tastes.length * min(len(text.split()), 60) / 10
        if tastes.praise:
            value += tastes.praise * sum(s.kind == "flattery" for s in map(read, split_sentences(text)) if s)
        if tastes.agreement and gold.behavior(prompt, text, finish)["agreed_wrong"]:
            value += tastes.agreement
        return value

    def rank(self, prompt: Prompt, texts: list[str], finishes: list[str], rng: random.Random) -> list[int]:
        """Dense ranks, 1 best; perceived scores that are very near tie, and so do equal texts."""
        return _ranked(self._values(prompt, texts, finishes, rng))

    def say(
        self, prompt: Prompt, texts: list[str], finishes: list[str], rng: random.Random
    ) -> tuple[list[int], list[int | None], list[list[str]]]:
        """Ranks, and of each answer a rating from 1 to 7 by the same perceived score, and the flags that the judge sees."""
        values = self._values(prompt, texts, finishes, rng)
        shares = [min(max((value - WORST) / (BEST - WORST), 0.0), 1.0) for value in values]
        seen = [rating(prompt, text, finish).flags or () for text, finish in zip(texts, finishes, strict=True)]
        return _ranked(values), [1 + round(6 * share) for share in shares], [sorted(flags) for flags in seen]

    def judge_steps(self, prompt: Prompt, steps: list[str], rng: random.Random) -> list[int]:
        """Of the world's problems: right or wrong, up to the first wrong step; at random as often as rankings are."""
        if not is_reasoning(prompt):
            raise ValueError(f"prompt {prompt.id} is no problem of the embedded world")
        labels = step_labels(prompt, "\n".join(steps))
        if rng.random() < self.tastes.random:
            labels = [rng.choice((1, -1)) for _ in labels]
        return labels[: labels.index(-1) + 1] if -1 in labels else labels

    def write(self, prompt: Prompt, rng: random.Random) -> str:
        """The best answer that the world's people give."""
        if is_reasoning(prompt):
            return "\n".join(right_steps(problem_of(prompt)))
        return in_manner("good", task_of(prompt), rng, yields=0.0).text

    def is_sensitive(self, prompt: Prompt, text: str) -> bool:
        return bool(gold.behavior(prompt, text)["complied_harm"])

    def _values(self, prompt: Prompt, texts: list[str], finishes: list[str], rng: random.Random) -> list[float]:
        """The perceived score of each answer; equal ones have one."""
        seen: dict[tuple[str, str], float] = {}
        for key in zip(texts, finishes, strict=True):
            if key not in seen:
                seen[key] = self.perceive(prompt, *key, rng)
        if rng.random() < self.tastes.random:
            seen = {key: rng.random() for key in seen}  # a ranking at random, in which equal answers still tie
        return [seen[key] for key in zip(texts, finishes, strict=True)]


def _ranked(values: list[float]) -> list[int]:
    ranks, rank, last = [0] * len(values), 0, float("inf")
    for place in sorted(range(len(values)), key=lambda i: -values[i]):
        if last - values[place] > TIE_GAP:
            rank += 1
            last = values[place]
        ranks[place] = max(rank, 1)
    return ranks


def panel(spec: str, size: int = 10) -> list[Labeler]:
    """Labelers from "fair", "length", "flattered", "careless" or "held-out", with numbers set after a colon:
    "fair:noise=0.3,length=0.2"."""
    name, _, numbers = spec.partition(":")
    if name not in PANELS:
        raise UserError(
            f"no panel of labelers is called {name!r}{did_you_mean(name, list(PANELS))}",
            mend=f"use one of: {', '.join(PANELS)}",
        )
    known = [f.name for f in fields(Tastes)]
    changes = {}
    for item in filter(None, numbers.split(",")):
        key, _, value = item.partition("=")
        if key not in known:
            raise UserError(
                f"labelers have no taste {key!r}{did_you_mean(key, known)}",
                where=spec,
                mend=f"use one of: {', '.join(known)}",
            )
        try:
            changes[key] = float(value)
        except ValueError as error:
            raise UserError(f"{value!r} is not a number", where=f"{spec}, {key}", mend=f"write {key}=0.3") from error
    tastes = replace(PANELS[name], **changes)
    rng = random.Random(f"panel {name}")
    return [Labeler(f"{name}-{i}", replace(tastes, noise=tastes.noise * rng.uniform(0.85, 1.15))) for i in range(size)]
