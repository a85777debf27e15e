"""How far labelers agree, with intervals over items, and what each one's labels weigh.

Every figure is computed on current answers to rank tasks. An item is a task; the pairs of one ranking are never
independent, so intervals come from resampling whole items.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from sqlalchemy.orm import Session as Db

from tutelage.feedback.export import current_answers
from tutelage.feedback.reliability import labeler_accuracies, labeler_weights, soft_label
from tutelage.feedback.schema import Project
from tutelage.feedback.shares import Share, clustered

Ranks = list[int | None]
LEAST = 30  # below this many the page says "too few to tell"


@dataclass(frozen=True)
class Ranked:
    """One ranking: of which item, by whom, the ranks by completion. when: seconds since 1970; said: its use case."""

    item: int
    labeler: str
    ranks: Ranks
    when: float = 0.0
    said: str | None = None


def read_rankings(db: Db, project: Project, *, gold: bool = False) -> list[Ranked]:
    return [
        Ranked(
            task.id, answer.person_id, with_rest(answer.payload), answer.created, answer.payload.get("category") or None
        )
        for answer, task in current_answers(db, project, gold=gold)
        if answer.kind == "rank"
    ]


def with_rest(payload: dict[str, Any]) -> Ranks:
    ranks: Ranks = payload["ranks"]
    if not payload.get("rest_below"):
        return ranks
    last = max(rank for rank in ranks if rank is not None) + 1
    return [last if rank is None else rank for rank in ranks]


def orders(ranks: Ranks) -> dict[tuple[int, int], int]:
    """For each pair that is ranked: 1 if the first is better, -1 if the second is, 0 for a tie."""
    return {
        (i, j): int(np.sign(b - a))
        for i, j in combinations(range(len(ranks)), 2)
        if (a := ranks[i]) is not None and (b := ranks[j]) is not None
    }


def pair_agreement(groups: Sequence[Sequence[Ranks]]) -> tuple[float, int]:
    """Share of pairs that two labelers order alike, of the pairs both order strictly, and their number.

    The paper's figure (Ouyang et al. 2022, section 3.4: 72.6 ± 1.5 % among training labelers).
    """
    alike = total = 0
    for group in groups:
        for a, b in combinations([orders(ranks) for ranks in group], 2):
            for pair in a.keys() & b.keys():
                if a[pair] and b[pair]:
                    total += 1
                    alike += a[pair] == b[pair]
    return (alike / total if total else float("nan")), total


def cohen_kappa(table: np.ndarray) -> float:
    """(p_o - p_e) / (1 - p_e) of two labelers' table of classes (Cohen 1960)."""
    shares = table / table.sum()
    expected = float(shares.sum(axis=0) @ shares.sum(axis=1))
    return float((shares.trace() - expected) / (1 - expected)) if expected < 1 else float("nan")


def fleiss_kappa(counts: np.ndarray) -> float:
    """Fleiss (1971) for counts [items, classes]; items with one rating are dropped, and item weights are their pairs.

    With the same number of ratings on each item it is the published formula.
    """
    counts = counts[counts.sum(axis=1) > 1]
    if not len(counts):
        return float("nan")
    raters = counts.sum(axis=1)
    agreed = (counts * (counts - 1)).sum(axis=1) / (raters * (raters - 1))
    shares = counts.sum(axis=0) / counts.sum()
    expected = float((shares**2).sum())
    return float((agreed.mean() - expected) / (1 - expected)) if expected < 1 else float("nan")


def coincidences(group: Sequence[Ranks], values: int) -> np.ndarray:
    """Krippendorff's coincidence matrix of one item's completions, whose "values" are ranks 1 to `values`.

    o_ck = Σ_u (pairs of ratings c, k of unit u) / (m_u - 1); a unit is a completion with m_u ≥ 2 ranks.
    """
    found = np.zeros((values, values))
    for place in range(len(group[0])):
        given = [rank for ranks in group if (rank := ranks[place]) is not None]
        if len(given) > 1:
            counts = np.bincount(np.array(given) - 1, minlength=values).astype(float)
            found += (np.outer(counts, counts) - np.diag(counts)) / (len(given) - 1)
    return found


def ordinal_alpha(matrix: np.ndarray) -> float:
    """Krippendorff (2011): alpha = 1 - (n - 1) Σ o_ck δ²_ck / Σ n_c n_k δ²_ck.

    Ordinal δ²_ck = (Σ_{g=c}^{k} n_g - (n_c + n_k) / 2)². nan where only one value occurs.
    """
    sums = matrix.sum(axis=1)
    below = np.cumsum(sums) - sums / 2
    distance = (below[:, None] - below[None, :]) ** 2
    expected = float(sums @ distance @ sums)
    return 1 - float((sums.sum() - 1) * (matrix * distance).sum()) / expected if expected > 0 else float("nan")


def krippendorff_alpha(groups: Sequence[Sequence[Ranks]]) -> float:
    """Krippendorff's alpha, ordinal, of the ranks of all completions."""
    values = max((rank for group in groups for ranks in group for rank in ranks if rank is not None), default=0)
    return ordinal_alpha(sum((coincidences(group, values) for group in groups), np.zeros((values, values))))


def pair_taus(group: Sequence[Ranks]) -> list[float]:
    """Kendall's tau-b of each two rankings of an item; a ranking that ties everything has none."""
    values = []
    for a, b in combinations([orders(ranks) for ranks in group], 2):
        both = sorted(a.keys() & b.keys())
        x, y = np.array([a[p] for p in both]), np.array([b[p] for p in both])
        scale = float(np.sqrt((x**2).sum() * (y**2).sum()))
        if scale:
            values.append(float(x @ y) / scale)
    return values


def kendall_tau(groups: Sequence[Sequence[Ranks]]) -> float:
    """Mean of Kendall's tau-b over items and pairs of labelers."""
    values = [value for group in groups for value in pair_taus(group)]
    return float(np.mean(values)) if values else float("nan")


def pair_counts(groups: Sequence[Sequence[Ranks]]) -> np.ndarray:
    """[pairs, 3]: how many labelers said worse, equal, better for each pair of each item."""
    rows = []
    for group in groups:
        seen: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
        for ranks in group:
            for pair, order in orders(ranks).items():
                seen[pair][order + 1] += 1
        rows += list(seen.values())
    return np.array(rows, dtype=float).reshape(-1, 3)


@dataclass(frozen=True)
class Parts:
    """What each item adds to the statistics: sums of parts over items give a statistic of those items."""

    alike: np.ndarray  # [I] pairs ordered alike
    pairs: np.ndarray  # [I] pairs both order
    counts: list[np.ndarray]  # rows of `pair_counts`
    coincidences: np.ndarray  # [I, V, V]
    tau: np.ndarray  # [I] sum of tau over pairs of labelers
    taus: np.ndarray  # [I] their number


def bootstrap(groups: Sequence[Sequence[Ranks]], *, samples: int = 200, seed: int = 0) -> dict[str, list[float] | None]:
    """95 % percentile intervals of each statistic over resampled items."""
    rng = np.random.default_rng(seed)
    parts = _parts(groups)
    drawn: dict[str, list[float]] = {name: [] for name in STATISTICS}
    for _ in range(samples):
        chosen = rng.integers(0, len(groups), len(groups))
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn["pair_agreement"].append(parts.alike[chosen].sum() / parts.pairs[chosen].sum())
            drawn["kendall_tau"].append(parts.tau[chosen].sum() / parts.taus[chosen].sum())
        drawn["krippendorff_alpha"].append(ordinal_alpha(parts.coincidences[chosen].sum(axis=0)))
        drawn["fleiss_kappa"].append(fleiss_kappa(np.concatenate([parts.counts[i] for i in chosen])))
    intervals: dict[str, list[float] | None] = {}
    for name, found in drawn.items():
        kept = [value for value in found if np.isfinite(value)]
        intervals[name] = [round(float(v), 4) for v in np.percentile(kept, [2.5, 97.5])] if kept else None
    return intervals


def _parts(groups: Sequence[Sequence[Ranks]]) -> Parts:
    values = max((rank for group in groups for ranks in group for rank in ranks if rank is not None), default=1)
    shares = [pair_agreement([group]) for group in groups]
    taus = [pair_taus(group) for group in groups]
    return Parts(
        alike=np.array([share * pairs if pairs else 0.0 for share, pairs in shares]),
        pairs=np.array([pairs for _, pairs in shares]),
        counts=[pair_counts([group]) for group in groups],
        coincidences=np.array([coincidences(group, values) for group in groups]),
        tau=np.array([sum(found) for found in taus]),
        taus=np.array([len(found) for found in taus]),
    )


STATISTICS: dict[str, Callable[[Sequence[Sequence[Ranks]]], float]] = {
    "pair_agreement": lambda groups: pair_agreement(groups)[0],
    "fleiss_kappa": lambda groups: fleiss_kappa(pair_counts(groups)),
    "krippendorff_alpha": krippendorff_alpha,
    "kendall_tau": kendall_tau,
}


def agreement(rankings: Sequence[Ranked], *, samples: int = 200) -> dict[str, Any]:
    """Each statistic with its 95 % interval, and the numbers of items and pairs behind them."""
    groups = list(_by_item(rankings).values())
    shared = [group for group in groups if len(group) > 1]
    found: dict[str, Any] = {"items": len(groups), "shared_items": len(shared), "pairs": pair_agreement(shared)[1]}
    intervals = bootstrap(shared, samples=samples) if len(shared) > 1 else {}
    for name, statistic in STATISTICS.items():
        value = statistic(shared) if shared else float("nan")
        found[name] = None if np.isnan(value) else round(float(value), 4)
        found[f"{name}_ci95"] = intervals.get(name)
    return found


def _by_item(rankings: Sequence[Ranked]) -> dict[int, list[Ranks]]:
    groups: dict[int, list[Ranks]] = defaultdict(list)
    for one in rankings:
        groups[one.item].append(one.ranks)
    return groups


@dataclass(frozen=True)
class Compared:
    """Two rankings of an item: of the pairs that both order strictly, how many alike."""

    first: Ranked
    second: Ranked
    alike: int
    pairs: int


def compare_all(rankings: Sequence[Ranked]) -> list[Compared]:
    """Each two rankings of each item, where they share a pair."""
    items: dict[int, list[Ranked]] = defaultdict(list)
    for one in rankings:
        items[one.item].append(one)
    found = []
    for group in items.values():
        for first, second in combinations(group, 2):
            share, pairs = pair_agreement([[first.ranks, second.ranks]])
            if pairs:
                found.append(Compared(first, second, round(share * pairs), pairs))
    return found


def labeler_agreement(compared: Sequence[Compared]) -> dict[str, Share]:
    """For each labeler: the share of pairs ordered as others do on the same items; Wilson's interval over items."""
    counts: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for one in compared:
        for ranked in (one.first, one.second):
            of_item = counts[ranked.labeler][ranked.item]
            of_item[0] += one.alike
            of_item[1] += one.pairs
    return by_labeler(counts)


def by_labeler(counts: Mapping[str, Mapping[int, Sequence[int]]]) -> dict[str, Share]:
    """Shares from (hits, pairs) by labeler and item."""
    found = {
        name: clustered([hits for hits, _ in items.values()], [pairs for _, pairs in items.values()])
        for name, items in counts.items()
    }
    return {name: share for name, share in found.items() if share is not None}


def gold_accuracy(db: Db, project: Project) -> dict[str, Share]:
    """For each labeler: the share of gold pairs ordered as the gold order has them; Wilson's interval over items."""
    counts: dict[str, dict[int, list[int]]] = defaultdict(dict)
    for answer, task in current_answers(db, project, gold=True):
        if answer.kind == "rank" and task.gold:
            share, pairs = pair_agreement([[with_rest(answer.payload), task.gold["ranks"]]])
            counts[answer.person_id][task.id] = [round(share * pairs) if pairs else 0, pairs]
    return by_labeler(counts)


def gold_kappas(db: Db, project: Project) -> dict[str, float]:
    """Cohen's kappa of each labeler with the gold orders: worse, equal or better for each pair."""
    tables: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((3, 3)))
    for answer, task in current_answers(db, project, gold=True):
        if answer.kind == "rank" and task.gold:
            said, known = orders(with_rest(answer.payload)), orders(task.gold["ranks"])
            for pair in said.keys() & known.keys():
                tables[answer.person_id][said[pair] + 1, known[pair] + 1] += 1
    return {name: cohen_kappa(table) for name, table in tables.items() if table.any()}


def accuracies_of(rankings: Sequence[Ranked]) -> dict[str, float]:
    """Dawid–Skene accuracy of each labeler, from the pairs that two or more ordered."""
    judgments = [
        (one.labeler, (one.item, pair), order > 0)
        for one in rankings
        for pair, order in orders(one.ranks).items()
        if order
    ]
    return labeler_accuracies(judgments)


def weights_of(rankings: Sequence[Ranked]) -> dict[str, float]:
    """Dawid–Skene weights of labelers in the reward loss."""
    return labeler_weights(accuracies_of(rankings), Counter(one.labeler for one in rankings))


def soft_labels(rankings: Sequence[Ranked]) -> dict[int, dict[tuple[int, int], float]]:
    """For each item and pair of its completions that somebody ordered: P(the first is better).

    Who shares no pair with others counts as the paper's labelers do on average (72.6 %).
    """
    accuracies = accuracies_of(rankings)
    votes: dict[int, dict[tuple[int, int], list[tuple[float, bool]]]] = defaultdict(lambda: defaultdict(list))
    for one in rankings:
        for pair, order in orders(one.ranks).items():
            if order:
                votes[one.item][pair].append((accuracies.get(one.labeler, 0.726), order > 0))
    return {item: {pair: soft_label(given) for pair, given in pairs.items()} for item, pairs in votes.items()}


def project_weights(db: Db, project: Project) -> dict[str, float]:
    return weights_of(read_rankings(db, project))
