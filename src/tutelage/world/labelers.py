"""Simulated labelers: they rank by the gold score through noise and tastes that are set and known.

A labeler perceives gold + tastes + normal noise of scale `noise` (Thurstone's model). At the fair panel's 0.2 two
labelers agree on about 73 % of the pairs of one SFT model's answers, as in the paper (`tutelage label` measures it).
"""

import random
from dataclasses import dataclass, fields, replace

from tutelage.errors import UserError, did_you_mean
from tutelage.records import Prompt
from tutelage.world import gold
from tutelage.world.language import read, split_sentences

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
        seen: dict[tuple[str, str], float] = {}
        for key in zip(texts, finishes, strict=True):
            if key not in seen:
                seen[key] = self.perceive(prompt, *key, rng)
        if rng.random() < self.tastes.random:
            seen = {key: rng.random() for key in seen}  # a ranking at random, in which equal answers still tie
        values = [seen[key] for key in zip(texts, finishes, strict=True)]
        ranks, rank, last = [0] * len(texts), 0, float("inf")
        for place in sorted(range(len(texts)), key=lambda i: -values[i]):
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
