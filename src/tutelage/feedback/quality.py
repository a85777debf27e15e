"""How far labelers agree, with intervals over items, and what each one's labels weigh.

Every figure is computed on current answers to rank tasks. An item is a task; the pairs of one ranking are never
independent, so intervals come from resampling whole items.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, permutations
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


def beyond_chance(observed: float, classes: np.ndarray) -> float:
    """(p_o - p_e) / (1 - p_e), where p_e is of the counts [classes] of all that was said."""
    expected = float(((classes / classes.sum()) ** 2).sum())
    return float((observed - expected) / (1 - expected)) if expected < 1 else float("nan")


def fleiss_kappa(counts: np.ndarray) -> float:
    """Fleiss (1971) for counts [items, classes]; items with one rating are dropped, and item weights are their pairs.

    With the same number of ratings on each item it is the published formula.
    """
    agreed, counts = rows_agreed(counts)
    return beyond_chance(agreed.mean(), counts.sum(axis=0)) if len(counts) else float("nan")


def rows_agreed(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of pairs of ratings alike, for each row of counts [items, classes] with two or more; and these rows."""
    counts = counts[counts.sum(axis=1) > 1]
    raters = counts.sum(axis=1)
    return (counts * (counts - 1)).sum(axis=1) / (raters * (raters - 1)), counts


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


Figures = dict[str, float]
Group = Sequence[Ranks]  # what several labelers said of one item


@dataclass(frozen=True)
class Parts:
    """What each of I items adds to the statistics: sums of parts over items give the statistics of those items."""

    items: np.ndarray  # [I] their numbers
    alike: np.ndarray  # [I] pairs ordered alike
    pairs: np.ndarray  # [I] pairs both order
    coincidences: np.ndarray  # [I, V, V]
    tau: np.ndarray  # [I] sum of tau over pairs of labelers
    taus: np.ndarray  # [I] their number
    agreed: np.ndarray  # [I] sum over pairs of completions of the share of pairs of labelers who say the same
    judged: np.ndarray  # [I] their number
    classes: np.ndarray  # [I, 3] how often worse, equal and better were said there

    def __len__(self) -> int:
        return len(self.items)

    def of(self, chosen: Sequence[int]) -> "Parts":
        """Those of some items only, by their numbers."""
        kept = np.isin(self.items, list(chosen))
        return Parts(*(getattr(self, one.name)[kept] for one in fields(self)))

    def statistics(self, times: np.ndarray) -> Figures:
        """times [I]: how often each item counts."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "pair_agreement": float((times @ self.alike) / (times @ self.pairs)),
                "fleiss_kappa": beyond_chance((times @ self.agreed) / (times @ self.judged), times @ self.classes),
                "krippendorff_alpha": ordinal_alpha(np.tensordot(times, self.coincidences, 1)),
                "kendall_tau": float((times @ self.tau) / (times @ self.taus)),
            }


def parts_of(items: Mapping[int, Sequence[Group]]) -> Parts:
    """items: by number, groups of rankings that are compared with each other; mostly one."""
    every = [rank for groups in items.values() for group in groups for ranks in group for rank in ranks if rank]
    values, count = max(every, default=1), len(items)
    shares = [pair_agreement(groups) for groups in items.values()]
    taus = [[tau for group in groups for tau in pair_taus(group)] for groups in items.values()]
    said = [rows_agreed(pair_counts(groups)) for groups in items.values()]
    found = [
        sum((coincidences(one, values) for one in groups), np.zeros((values, values))) for groups in items.values()
    ]
    return Parts(
        items=np.array(list(items), dtype=int),
        alike=np.array([share * pairs if pairs else 0.0 for share, pairs in shares]),
        pairs=np.array([float(pairs) for _, pairs in shares]),
        coincidences=np.array(found).reshape(count, values, values),
        tau=np.array([float(sum(one)) for one in taus]),
        taus=np.array([float(len(one)) for one in taus]),
        agreed=np.array([agreed.sum() for agreed, _ in said]),
        judged=np.array([float(len(agreed)) for agreed, _ in said]),
        classes=np.array([counts.sum(axis=0) for _, counts in said]).reshape(count, 3),
    )


def intervals(
    statistics: Callable[[np.ndarray], Figures], count: int, *, samples: int = 200, seed: int = 0
) -> dict[str, list[float] | None]:
    """95 % percentile intervals of statistics of so many items over resampled ones; they take how often each counts."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = defaultdict(list)
    for _ in range(samples):
        times = np.bincount(rng.integers(0, count, count), minlength=count).astype(float)
        for name, value in statistics(times).items():
            drawn[name].append(value)
    found: dict[str, list[float] | None] = {}
    for name, values in drawn.items():
        kept = [value for value in values if np.isfinite(value)]
        found[name] = [round(float(v), 4) for v in np.percentile(kept, [2.5, 97.5])] if kept else None
    return found


def bootstrap(groups: Sequence[Group], *, samples: int = 200, seed: int = 0) -> dict[str, list[float] | None]:
    """The intervals of each statistic of items that several ranked."""
    parts = parts_of({number: [group] for number, group in enumerate(groups)})
    return intervals(parts.statistics, len(parts), samples=samples, seed=seed)


def figures(statistics: Callable[[np.ndarray], Figures], count: int, *, samples: int = 200) -> dict[str, Any]:
    """Each statistic of so many items, None where it says nothing, and its 95 % interval; one item alone has none."""
    ends = intervals(statistics, count, samples=samples) if count > 1 else {}
    found: dict[str, Any] = {}
    for name, value in statistics(np.ones(count)).items():
        found[name] = None if np.isnan(value) else round(float(value), 4)
        found[f"{name}_ci95"] = ends.get(name)
    return found


def shared_parts(rankings: Sequence[Ranked]) -> Parts:
    """Of the items that two or more ranked."""
    return parts_of({item: [group] for item, group in _by_item(rankings).items() if len(group) > 1})


def agreement(rankings: Sequence[Ranked], *, samples: int = 200) -> dict[str, Any]:
    """Each statistic with its 95 % interval, and the numbers of items and pairs behind them."""
    shared = shared_parts(rankings)
    found = {"items": len(_by_item(rankings)), "shared_items": len(shared), "pairs": int(shared.pairs.sum())}
    return {**found, **figures(shared.statistics, len(shared), samples=samples)}


def labeler_figures(rankings: Sequence[Ranked], *, samples: int = 200) -> dict[str, dict[str, Any]]:
    """Of each labeler beside each other one on the same items: Cohen's kappa (worse, equal, better for each pair of
    completions), Krippendorff's alpha and Kendall's tau, with 95 % intervals over items."""
    items: dict[int, list[Ranked]] = defaultdict(list)
    for one in rankings:
        items[one.item].append(one)
    beside: dict[str, dict[int, list[Group]]] = defaultdict(lambda: defaultdict(list))
    for item, group in items.items():
        for one, other in permutations(group, 2):
            beside[one.labeler][item].append([one.ranks, other.ranks])
    return {name: _beside_others(groups, samples) for name, groups in beside.items()}


def _beside_others(items: Mapping[int, Sequence[Group]], samples: int) -> dict[str, Any]:
    parts = parts_of(items)
    tables = np.array([sum((said_table(*group) for group in groups), np.zeros((3, 3))) for groups in items.values()])

    def statistics(times: np.ndarray) -> Figures:
        found = parts.statistics(times)
        with np.errstate(divide="ignore", invalid="ignore"):
            kappa = cohen_kappa(np.tensordot(times, tables, 1))
        return {"cohen_kappa": kappa, **{name: found[name] for name in ("krippendorff_alpha", "kendall_tau")}}

    return figures(statistics, len(parts), samples=samples)


def said_table(one: Ranks, other: Ranks) -> np.ndarray:
    """[3, 3]: for how many pairs the one said worse, equal, better (rows) and the other did."""
    table, first, second = np.zeros((3, 3)), orders(one), orders(other)
    for pair in first.keys() & second.keys():
        table[first[pair] + 1, second[pair] + 1] += 1
    return table


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
            tables[answer.person_id] += said_table(with_rest(answer.payload), task.gold["ranks"])
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
