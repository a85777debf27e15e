"""Likert scores and the paper's metadata flags of a model, from ratings of its answers one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.evaluation.behaviors import rate
from tutelage.evaluation.intervals import mean_interval
from tutelage.records import FLAGS, Rating

LIKERT = "likert"
Outcomes = dict[str, dict[str, float]]


def rubric_rates(
    ratings: Mapping[str, Sequence[Rating]], known: Sequence[str] = tuple(FLAGS)
) -> tuple[dict[str, dict[str, Any]], Outcomes]:
    """(measures, outcomes by prompt) of one model by one rater. ratings: of its answer to each prompt, one or several.

    `likert` is the mean of 1 to 7, each flag of `known` the share of answers that have it. Several ratings of one answer
    are averaged first, so that prompts are the units: Wilson's interval where each is 0 or 1, else Student's t.
    """
    outcomes: Outcomes = {}
    for prompt, some in ratings.items():
        scores = [one.likert for one in some if one.likert is not None]
        if scores:
            outcomes.setdefault(LIKERT, {})[prompt] = float(np.mean(scores))
        marks = [one.flags for one in some if one.flags is not None]
        for name in known if marks else ():
            outcomes.setdefault(name, {})[prompt] = float(np.mean([name in flags for flags in marks]))
    return {name: _entry(name, [*found.values()]) for name, found in outcomes.items()}, outcomes


def _entry(name: str, values: Sequence[float]) -> dict[str, Any]:
    if name != LIKERT and set(values) <= {0.0, 1.0}:
        return rate(values)
    mean, low, high = mean_interval(values)
    least, most = (1.0, 7.0) if name == LIKERT else (0.0, 1.0)
    ends = [max(least, low), min(most, high)] if len(values) > 1 else None
    return {"value": mean, "ci95": ends, "prompts": len(values)}
