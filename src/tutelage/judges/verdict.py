"""The one interface of all judges, and what a judge can say of two answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tutelage.records import Prompt

Label = Literal["A", "B", "tie"]


@dataclass(frozen=True)
class Match:
    """Two answers to one prompt."""

    prompt: Prompt
    a: str
    b: str


@dataclass(frozen=True)
class Verdict:
    """points: 1 where A is better, 0.5 for a tie, 0 where B is; None where there is no verdict, and `problem` says why.

    flipped: the two orders disagreed, which makes a tie.
    """

    points: float | None
    flipped: bool = False
    problem: Literal["unparsable", "failed", "unvoted"] | None = None


class Judge(Protocol):
    """compare: one verdict for each match, position-blind. score: how good each answer is, on the judge's own scale."""

    name: str

    def compare_all(self, matches: Sequence[Match], progress: Callable[[int], None] | None = None) -> list[Verdict]: ...

    def score_all(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float | None]: ...


def compare(judge: Judge, prompt: Prompt, a: str, b: str) -> Verdict:
    return judge.compare_all([Match(prompt, a, b)])[0]


def score(judge: Judge, prompt: Prompt, answer: str) -> float | None:
    return judge.score_all([prompt], [answer])[0]


def both_orders(first: Label | None, second: Label | None) -> Verdict:
    """One verdict of two: `first` was said with A in front, `second` with B in front (its "A" is our B).

    Orders that disagree make a tie (Zheng et al. 2023, section 3.4: inconsistent = tie).
    """
    if first is None or second is None:
        return Verdict(None, problem="unparsable")
    mirrored: Label = {"A": "B", "B": "A", "tie": "tie"}[second]  # type: ignore[assignment]
    if first != mirrored:
        return Verdict(0.5, flipped=True)
    return Verdict({"A": 1.0, "B": 0.0, "tie": 0.5}[first])


@dataclass
class ScoringJudge:
    """A judge that gives each answer a number by itself: the higher is better, equal is a tie; order plays no part."""

    name: str
    scorer: Callable[[Sequence[Prompt], Sequence[str]], list[float]]

    def compare_all(self, matches: Sequence[Match], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        prompts = [m.prompt for m in matches]
        a, b = self.scorer(prompts, [m.a for m in matches]), self.scorer(prompts, [m.b for m in matches])
        if progress is not None:
            progress(len(matches))
        return [Verdict(1.0 if x > y else 0.5 if x == y else 0.0) for x, y in zip(a, b, strict=True)]

    def score_all(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float | None]:
        return [*self.scorer(prompts, answers)]
