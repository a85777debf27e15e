"""Multiple choice by log-probabilities, short answers, and how far a model's confidence is to be believed."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import UserError
from tutelage.evaluation.behaviors import rate
from tutelage.evaluation.intervals import wilson
from tutelage.records import Question

BINS = 10
RESAMPLES = 1000
STATED = re.compile(r"(?:confidence|sure|certain)\D{0,24}?(\d{1,3}(?:\.\d+)?)\s*(%|/\s*100|percent)?", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """What a model chose: right or not; the probability that it gave to its choice, and the Brier score over all options."""

    right: bool
    right_per_character: bool
    confidence: float
    brier: float


def choose(question: Question, logprobs: Sequence[float]) -> Choice:
    """The likeliest option. logprobs: of each whole option after the text, nats.

    `right` is lm-eval's `acc`, `right_per_character` its `acc_norm` (divided by the option's characters). Confidence is
    the softmax over the options; Brier (1950): the sum over options of (p - 1[right])², 0 to 2.
    """
    values = np.asarray(logprobs, dtype=np.float64)
    if len(values) != len(question.options) or not np.isfinite(values).all():
        what = f"{len(values)} log-probabilities for {len(question.options)} options, or one that is not finite"
        raise UserError(what, where=f"question {question.id}", mend="give one to each option")
    shares = np.exp(values - values.max())
    shares /= shares.sum()
    chosen = int(values.argmax())
    truth = np.zeros(len(values))
    truth[question.right] = 1
    by_length = values / [max(len(option.strip()), 1) for option in question.options]
    return Choice(
        chosen == question.right,
        int(by_length.argmax()) == question.right,
        float(shares[chosen]),
        float(np.square(shares - truth).sum()),
    )


def plain(text: str) -> str:
    """Lower case, without punctuation, articles and spare white space (SQuAD's normalization)."""
    words = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def answers(question: Question, said: str) -> bool:
    """Whether the first line that says anything is the answer, up to case, articles and punctuation."""
    line = next((line for line in said.splitlines() if line.strip()), "")
    return plain(line) == plain(question.answer)


def choice_rates(choices: Sequence[Choice]) -> dict[str, Any]:
    """The share of right choices with Wilson's interval, and the share by log-probability per character."""
    by_length = sum(one.right_per_character for one in choices) / len(choices)
    return {**rate([float(one.right) for one in choices]), "per_character": by_length}


def expected_calibration_error(confidences: NDArray[np.float64], right: NDArray[np.float64], bins: int = BINS) -> float:
    """Σ_b (n_b / n) |mean confidence - share right| over equal-width bins (Naeini et al. 2015; Guo et al. 2017, eq. 3)."""
    places = np.minimum((confidences * bins).astype(int), bins - 1)
    gaps = np.bincount(places, weights=confidences - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))


def calibration(confidences: Sequence[float], right: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Reliability table and expected calibration error, its interval by a percentile bootstrap over the questions.

    {"value", "ci95", "prompts", "accuracy", "confidence", "bins": [{"low", "high", "questions", "confidence", "right",
    "ci95"}]}; a bin without questions is left out. The error is 0 at best; with few questions chance alone makes it
    larger, and its interval with it.
    """
    c, r = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not len(c) or len(c) != len(r) or not ((c >= 0) & (c <= 1)).all():
        raise UserError(
            f"{len(c)} confidences, {len(r)} outcomes", where="calibration", mend="give shares, one to each"
        )
    rng = np.random.default_rng(seed)
    draws = [expected_calibration_error(c[i], r[i]) for i in rng.integers(0, len(c), (RESAMPLES, len(c)))]
    low, high = np.quantile(draws, [0.025, 0.975])
    places = np.minimum((c * BINS).astype(int), BINS - 1)
    table = []
    for b in range(BINS):
        inside = places == b
        if n := int(inside.sum()):
            hits = float(r[inside].sum())
            row = {"low": b / BINS, "high": (b + 1) / BINS, "questions": n, "confidence": float(c[inside].mean())}
            table.append({**row, "right": hits / n, "ci95": list(wilson(hits, n))})
    about = {"accuracy": float(r.mean()), "confidence": float(c.mean())}
    return {
        "value": expected_calibration_error(c, r),
        "ci95": [float(low), float(high)],
        "prompts": len(c),
        **about,
        "bins": table,
    }


def stated_confidence(text: str) -> float | None:
    """The confidence that an answer states, 0 to 1 (`Confidence: 80 %`, `I am 80% sure`); None where it states none."""
    found = STATED.search(text) or re.search(
        r"(\d{1,3}(?:\.\d+)?)\s*(%|percent)\s*(?:sure|certain|confident)", text, re.I
    )
    if found is None:
        return None
    value = float(found[1])
    if found[2] is None and value <= 1:
        return value
    return value / 100 if value <= 100 else None


def as_outcomes(found: Mapping[str, Sequence[float]], questions: Sequence[Question]) -> dict[str, dict[str, float]]:
    """Outcomes by the question's id, for paired tests."""
    return {name: {q.id: v for q, v in zip(questions, values, strict=True)} for name, values in found.items()}
