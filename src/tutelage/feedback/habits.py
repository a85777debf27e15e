"""Habits that are no judgment: a taste for what is shown first or is longer, and answers that contradict each other."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Db

from tutelage.feedback import schema
from tutelage.feedback.at_size import in_parts
from tutelage.feedback.export import current_answers
from tutelage.feedback.quality import LEAST, Ranks, orders, with_rest
from tutelage.feedback.schema import Answer, Project, Task
from tutelage.feedback.shares import Share, clustered, p_of_count, percent_words, wilson

ALPHA = 0.05


@dataclass(frozen=True)
class FirstShown:
    """How often the answer on the first card was ranked best; `chance` is that share for who never looks at places.

    The order of cards is drawn for each person and item, so that answers are independent trials. p: two-sided.
    """

    share: Share
    chance: float
    p: float

    @property
    def differs(self) -> bool:
        return self.share.items >= LEAST and self.p < ALPHA


@dataclass(frozen=True)
class Longer:
    """How often the longer (in characters) of two answers was preferred; others: all other labelers' share."""

    share: Share
    others: float | None

    @property
    def differs(self) -> bool:
        low, high = self.share.ci95 or (0.0, 1.0)
        return self.share.items >= LEAST and self.others is not None and not low <= self.others <= high


@dataclass
class Contradictions:
    """repeats: pairs of texts ordered in two items or more, `reversed` of them both ways; circles: prompts on which
    three texts or more are ordered in a circle; rated: rankings with two ratings, `unlike`: where these say otherwise.
    """

    repeats: int = 0
    reversed: int = 0
    circles: int = 0
    rated: int = 0
    unlike: int = 0

    def add(self, other: "Contradictions") -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Habits:
    first_shown: FirstShown | None = None
    longer: Longer | None = None
    contradictions: Contradictions = field(default_factory=Contradictions)

    @property
    def differs(self) -> bool:
        return any(one is not None and one.differs for one in (self.first_shown, self.longer))

    def to_json(self) -> dict[str, Any]:
        first, longer = self.first_shown, self.longer
        return {
            "first_shown_best": first
            and {
                **first.share.to_json("answers"),
                "chance": round(first.chance, 4),
                "p": float(f"{first.p:.3g}"),
            },
            "longer_preferred": longer
            and {**longer.share.to_json(), "others": None if longer.others is None else round(longer.others, 4)},
            "contradictions": vars(self.contradictions),
        }

    def words(self) -> list[str]:
        """What the page says of a labeler, each a sentence without its subject."""
        said = []
        if (first := self.first_shown) is not None:
            p = "p < 0.001" if first.p < 0.001 else f"p = {first.p:.2g}"
            share = percent_words(first.share, "items", least=LEAST)
            said.append(f"ranks the first shown best in {share}; by chance {100 * first.chance:.0f} %, {p}")
        if (longer := self.longer) is not None:
            others = "" if longer.others is None else f"; others {100 * longer.others:.0f} %"
            said.append(f"prefers the longer answer in {percent_words(longer.share, least=LEAST)}{others}")
        odd = self.contradictions
        if odd.reversed:
            said.append(f"ordered {odd.reversed} of {odd.repeats} repeated pairs both ways")
        if odd.circles:
            said.append(f"ordered answers in a circle on {odd.circles} {'prompt' if odd.circles == 1 else 'prompts'}")
        if odd.unlike:
            said.append(f"rated an answer below one that it ranked lower in {odd.unlike} of {odd.rated} rated items")
        return said


def habits(db: Db, project: Project) -> tuple[Habits, dict[str, Habits]]:
    """Of all labelers together, and of each by its id."""
    answers = [(answer, task) for answer, task in current_answers(db, project) if answer.kind == "rank"]
    lengths = _lengths(db, project, (task for _, task in answers))
    firsts: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    longer: dict[str, dict[int, list[int]]] = defaultdict(dict)
    for answer, task in answers:
        if (trial := first_shown(answer.payload["ranks"], answer.shown)) is not None:
            firsts[answer.person_id].append(trial)
        sizes = [lengths[name] for name in task.completions]
        longer[answer.person_id][task.id] = longer_preferred(with_rest(answer.payload), sizes)
    odd = contradictions(answers, _repeated_texts(db, project, (task for _, task in answers)))
    people = {
        name: Habits(
            _tested(firsts[name]),
            _compared({name: longer[name]}, {other: longer[other] for other in longer if other != name}),
            odd[name],
        )
        for name in sorted(longer)
    }
    together = Contradictions()
    for one in odd.values():
        together.add(one)
    everybody = [trial for trials in firsts.values() for trial in trials]
    return Habits(_tested(everybody), _compared(longer, {}), together), people


def first_shown(ranks: Ranks, shown: Mapping[str, Any]) -> tuple[bool, float] | None:
    """Whether the first card is among the best, and the chance of that for cards shuffled blindly: best / cards.

    None where nothing is ranked or every card is best, and where nobody knows the order (of an imported ranking). Without ties the chance is 1/K; equal texts share a card.
    """
    hidden = {place for card in shown.get("merged", ()) for place in card[1:]}
    cards = [place for place in shown.get("order", ()) if place not in hidden]
    best = [place for place in cards if ranks[place] == 1]
    return (cards[0] in best, len(best) / len(cards)) if 0 < len(best) < len(cards) else None


def longer_preferred(ranks: Ranks, lengths: Sequence[int]) -> list[int]:
    """[pairs in which the longer is better, pairs ordered strictly whose lengths differ]."""
    found = [order * (lengths[i] - lengths[j]) for (i, j), order in orders(ranks).items()]
    return [sum(value > 0 for value in found), sum(value != 0 for value in found)]


def _tested(trials: Sequence[tuple[bool, float]]) -> FirstShown | None:
    if not trials:
        return None
    count, n = sum(hit for hit, _ in trials), len(trials)
    chances = [chance for _, chance in trials]
    share = Share(count / n, n, n, wilson(count / n, n))
    return FirstShown(share, sum(chances) / n, p_of_count(count, chances))


Counts = Mapping[str, Mapping[int, Sequence[int]]]  # by labeler and item: hits, pairs


def _compared(own: Counts, others: Counts) -> Longer | None:
    of_item: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for items in own.values():
        for item, (hits, pairs) in items.items():
            of_item[item][0] += hits
            of_item[item][1] += pairs
    share = clustered([hits for hits, _ in of_item.values()], [pairs for _, pairs in of_item.values()])
    rest = [counts for items in others.values() for counts in items.values()]
    total = sum(pairs for _, pairs in rest)
    return None if share is None else Longer(share, sum(hits for hits, _ in rest) / total if total else None)


def _lengths(db: Db, project: Project, tasks: Iterable[Task]) -> dict[str, int]:
    """Characters of the completions of these items."""
    query = select(schema.Completion.id, func.length(schema.Completion.text))
    query = query.where(schema.Completion.project_id == project.id)
    found: dict[str, int] = {}
    for some in in_parts(name for task in tasks for name in task.completions):
        found.update(db.execute(query.where(schema.Completion.id.in_(some))).tuples().all())
    return found


def _repeated_texts(db: Db, project: Project, tasks: Iterable[Task]) -> dict[str, str]:
    """Completions, by id, of the prompts that stand in two of the items or more: only there a pair may come again."""
    items: dict[str, dict[int, Task]] = defaultdict(dict)
    for task in tasks:
        items[task.prompt_id][task.id] = task
    twice = [task for group in items.values() if len(group) > 1 for task in group.values()]
    query = select(schema.Completion.id, schema.Completion.text).filter_by(project_id=project.id)
    found: dict[str, str] = {}
    for some in in_parts(name for task in twice for name in task.completions):
        found.update(db.execute(query.where(schema.Completion.id.in_(some))).tuples().all())
    return found


def contradictions(answers: Iterable[tuple[Answer, Task]], texts: Mapping[str, str]) -> dict[str, Contradictions]:
    """Of each labeler. texts: by completion, of prompts in several items."""
    found: dict[str, Contradictions] = defaultdict(Contradictions)
    said: dict[tuple[str, str], list[set[tuple[str, str]]]] = defaultdict(list)
    for answer, task in answers:
        odd, order = found[answer.person_id], orders(with_rest(answer.payload))
        ratings = answer.payload.get("ratings") or []
        both = [pair for pair in order if ratings and None not in (ratings[pair[0]], ratings[pair[1]])]
        odd.rated += bool(both)
        odd.unlike += any(order[i, j] * (ratings[i] - ratings[j]) < 0 for i, j in both)
        if task.completions[0] in texts:
            names = [texts[name] for name in task.completions]
            better = {(names[i], names[j]) if way > 0 else (names[j], names[i]) for (i, j), way in order.items() if way}
            said[answer.person_id, task.prompt_id].append(better)
    for (person, _), items in said.items():
        found[person].add(_of_prompt(items))
    return found


def _of_prompt(items: Sequence[set[tuple[str, str]]]) -> Contradictions:
    """items: for each, the (better, worse) pairs of texts that one labeler said on one prompt."""
    times: dict[frozenset[str], int] = defaultdict(int)
    for pairs in items:
        for pair in {frozenset(pair) for pair in pairs}:
            times[pair] += 1
    every = set().union(*items)
    both_ways = {frozenset(pair) for pair in every if pair[::-1] in every}
    one_way = {pair for pair in every if frozenset(pair) not in both_ways}
    repeats = sum(count > 1 for count in times.values())
    return Contradictions(repeats=repeats, reversed=len(both_ways), circles=int(has_circle(one_way)))


def has_circle(edges: set[tuple[str, str]]) -> bool:
    """Whether a chain of (better, worse) pairs comes back to where it began."""
    left = edges
    while left:
        beaten = {worse for _, worse in left}
        kept = {pair for pair in left if pair[0] in beaten}  # whom nothing beats is in no circle
        if len(kept) == len(left):
            return True
        left = kept
    return False
