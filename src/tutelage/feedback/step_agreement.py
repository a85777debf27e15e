"""How far labelers agree on the steps of solutions: the same label or not, and beyond chance."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from sqlalchemy.orm import Session as Db

from tutelage.feedback.export import current_answers
from tutelage.feedback.quality import Parts, Ranks, coincidences, figures, rows_agreed
from tutelage.feedback.schema import Project


def step_agreement(db: Db, project: Project) -> dict[str, Any] | None:
    """None where no solution was judged by two. Labels are ordered for alpha: wrong, neutral, right."""
    groups: dict[int, list[Ranks]] = defaultdict(list)
    for answer, task in current_answers(db, project):
        if answer.kind == "steps":
            labels = [label + 2 for label in answer.payload["labels"]]  # 1 to 3, as ranks are
            groups[task.id].append([*labels, *[None] * (len(task.steps or []) - len(labels))])
    shared = {item: group for item, group in groups.items() if len(group) > 1}
    if not shared:
        return None
    parts = _parts(shared)
    found = figures(parts.statistics, len(parts))
    kept = {name: value for name, value in found.items() if not name.startswith("kendall")}
    return {"solutions": len(groups), "shared": len(shared), "steps": int(parts.pairs.sum()), **kept}


def _parts(shared: dict[int, list[Ranks]]) -> Parts:
    """As of rankings, with a step in the place of a pair of completions. No tau: steps have no order."""
    alike = [[_alike(one, other) for one, other in combinations(group, 2)] for group in shared.values()]
    said = [rows_agreed(_counts(group)) for group in shared.values()]
    return Parts(
        items=np.array(list(shared), dtype=int),
        alike=np.array([float(sum(same for same, _ in one)) for one in alike]),
        pairs=np.array([float(sum(both for _, both in one)) for one in alike]),
        coincidences=np.array([coincidences(group, 3) for group in shared.values()]),
        tau=np.zeros(len(shared)),
        taus=np.zeros(len(shared)),
        agreed=np.array([agreed.sum() for agreed, _ in said]),
        judged=np.array([float(len(agreed)) for agreed, _ in said]),
        classes=np.array([counts.sum(axis=0) for _, counts in said]),
    )


def _alike(one: Ranks, other: Ranks) -> tuple[int, int]:
    """(steps with the same label, steps that both labeled)."""
    both = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return sum(a == b for a, b in both), len(both)


def _counts(group: Sequence[Ranks]) -> np.ndarray:
    """[steps, 3]: how many said wrong, neutral, right of each step."""
    return np.array([[labels.count(value) for value in (1, 2, 3)] for labels in zip(*group, strict=True)], dtype=float)
