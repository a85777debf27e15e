"""Models as labelers: they rank the answers to a prompt."""

import random
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from tutelage.judges.verdict import Judge, Match
from tutelage.records import Prompt


class Ranker(Protocol):
    """rank: dense ranks of the answers, 1 is best, equal ranks tie."""

    @property
    def id(self) -> str: ...

    def rank(self, prompt: Prompt, texts: list[str], finishes: list[str], rng: random.Random) -> list[int]: ...


@dataclass(frozen=True)
class ScoreRanker:
    """By the scores of a judge that gives each answer a number."""

    id: str
    judge: Judge

    def rank(self, prompt: Prompt, texts: list[str], finishes: list[str], rng: random.Random) -> list[int]:
        scores = self.judge.score_all([prompt] * len(texts), texts)
        levels = sorted({score for score in scores if score is not None}, reverse=True)
        return [levels.index(score) + 1 if score is not None else len(levels) + 1 for score in scores]


@dataclass(frozen=True)
class PairRanker:
    """By the sum of an answer's points against each other one, every pair judged in both orders."""

    id: str
    judge: Judge

    def rank(self, prompt: Prompt, texts: list[str], finishes: list[str], rng: random.Random) -> list[int]:
        pairs = list(combinations(range(len(texts)), 2))
        verdicts = self.judge.compare_all([Match(prompt, texts[i], texts[j]) for i, j in pairs])
        points = [0.0] * len(texts)
        for (i, j), verdict in zip(pairs, verdicts, strict=True):
            first = 0.5 if verdict.points is None else verdict.points  # what was not judged orders nothing
            points[i] += first
            points[j] += 1 - first
        levels = sorted(set(points), reverse=True)
        return [levels.index(value) + 1 for value in points]
