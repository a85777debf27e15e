"""Did a behavior change between two models? Paired tests on the same prompts, corrected for how many were made."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from tutelage.errors import UserError
from tutelage.evaluation.intervals import mean_interval, ratio_interval

Outcomes = Mapping[str, Mapping[Hashable, float]]  # behavior -> prompt -> what happened there (0 or 1, or a number)
Losses = tuple[Sequence[float], Sequence[int]]  # of each document: -log p summed over its tokens, and their number
FEWEST = 5  # prompts under which nothing is tested


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test: of the prompts where the two differ, half should go each way.

    McNemar (1947); exact by the binomial distribution (no continuity correction). 1 where they never differ.
    """
    if only_first < 0 or only_second < 0:
        raise UserError(f"{only_first} and {only_second} discordant pairs", where="mcnemar", mend="give counts")
    n = only_first + only_second
    return float(stats.binomtest(only_first, n, 0.5).pvalue) if n else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p: p_(i) times (m - i + 1), made monotone and cut at 1. Holm (1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [1.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def paired_test(first: Sequence[float], second: Sequence[float]) -> float:
    """p of no difference: McNemar's exact test where all outcomes are 0 or 1, else the paired t-test."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if {*np.unique(a), *np.unique(b)} <= {0.0, 1.0}:
        return mcnemar(int((a > b).sum()), int((b > a).sum()))
    difference = a - b
    if difference.std() == 0:
        return 1.0 if difference[0] == 0 else 0.0
    return float(stats.ttest_rel(a, b).pvalue)


def compare_losses(models: Mapping[str, Losses], behavior: str = "corpus_loss") -> list[dict[str, Any]]:
    """The difference in loss a token of every pair of models on the same documents: rows as of `compare_behaviors`.

    Models that count a document's tokens differently are not compared: their nats a token have no common unit.
    """
    rows = []
    for baseline, policy in combinations(models, 2):
        (ours, tokens), (theirs, others) = models[policy], models[baseline]
        if list(tokens) != list(others) or len(tokens) < FEWEST:
            continue
        differences = np.subtract(ours, theirs)
        difference, low, high = ratio_interval(differences, tokens)
        error = (high - low) / 2 / float(stats.t.ppf(0.975, len(tokens) - 1))
        p = 2 * float(stats.t.sf(abs(difference) / error, len(tokens) - 1)) if error else float(difference == 0)
        about = {"policy": policy, "baseline": baseline, "behavior": behavior, "prompts": len(tokens)}
        rows.append({**about, "difference": difference, "ci95": [low, high], "p": p})
    return rows


def compare_behaviors(
    models: Mapping[str, Outcomes], level: float = 0.05, more: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Every behavior of every pair of models on the prompts that both have an outcome for.

    Rows {policy, baseline, behavior, prompts, difference, ci95, p, p_holm, changed}; the later model is the policy.
    Holm's correction is over all the rows, those of `more` (made elsewhere, without p_holm and changed) too.
    """
    rows: list[dict[str, Any]] = []
    for baseline, policy in combinations(models, 2):
        for behavior, ours in models[policy].items():
            theirs = models[baseline].get(behavior, {})
            common = [prompt for prompt in ours if prompt in theirs]
            if len(common) < FEWEST:
                continue
            a, b = [float(ours[p]) for p in common], [float(theirs[p]) for p in common]
            difference, low, high = mean_interval(np.subtract(a, b))
            if {*a, *b} <= {0.0, 1.0}:  # two shares differ by one at most
                low, high = max(low, -1.0), min(high, 1.0)
            rows.append(
                {
                    "policy": policy,
                    "baseline": baseline,
                    "behavior": behavior,
                    "prompts": len(common),
                    "difference": difference,
                    "ci95": [low, high],
                    "p": paired_test(a, b),
                }
            )
    rows += more
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": p, "changed": p < level}
    return rows
