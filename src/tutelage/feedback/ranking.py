"""One ranking, written three ways: groups of letters, the typed line `B > D = A`, and ranks by completion."""

import hashlib
import random
import re
from collections.abc import Sequence

LETTERS = "ABCDEFGHI"  # K is at most 9
CATEGORIES = (  # table 1
    "generation",
    "open QA",
    "brainstorming",
    "chat",
    "rewrite",
    "summarization",
    "classification",
    "closed QA",
    "extract",
    "other",
)


class RankingError(ValueError):
    """A ranking that cannot be read; the message says why in the labeler's words."""


def parse_ranking(line: str, letters: str) -> list[list[str]]:
    """`B > D = A`, `b d=a` or `bda` as groups from best to worst; letters may be left out."""
    text = line.upper().replace(",", " ").replace(">", " ")
    if unknown := re.sub(rf"[{letters}\s=]", "", text):
        raise RankingError(f"There is no answer {unknown[0]!r}; use {letters[0]} to {letters[-1]}, > and =")
    text = re.sub(r"\s*=\s*", "=", text.strip())
    if text.startswith("=") or text.endswith("=") or "==" in text:
        raise RankingError("= stands between two answers")
    groups = [list(part) for part in re.findall(r"[A-I](?:=[A-I])*", text)]
    groups = [[letter for letter in group if letter != "="] for group in groups]
    flat = [letter for group in groups for letter in group]
    for letter in flat:
        if flat.count(letter) > 1:
            raise RankingError(f"{letter} is ranked twice")
    return groups


def write_ranking(groups: Sequence[Sequence[str]]) -> str:
    return " > ".join(" = ".join(group) for group in groups)


def ranks_of(groups: Sequence[Sequence[str]], cards: Sequence[Sequence[int]]) -> list[int | None]:
    """Dense ranks by completion; card number i has the i-th letter and stands for one completion or equal ones."""
    ranks: list[int | None] = [None] * sum(len(card) for card in cards)
    for rank, group in enumerate(groups, 1):
        for letter in group:
            for place in cards[LETTERS.index(letter)]:
                ranks[place] = rank
    return ranks


def groups_of(ranks: Sequence[int | None], cards: Sequence[Sequence[int]]) -> list[list[str]]:
    """The inverse of `ranks_of`."""
    groups: dict[int, list[str]] = {}
    for letter, card in zip(LETTERS, cards, strict=False):
        rank = ranks[card[0]]
        if rank is not None:
            groups.setdefault(rank, []).append(letter)
    return [groups[rank] for rank in sorted(groups)]


def must_rate(rule: str, ranks: Sequence[int | None]) -> list[int]:
    """Places of the answers, ranked so (1 is best, None: not ranked), whose quality the rule asks (schema.RATINGS)."""
    if rule == "all":
        return list(range(len(ranks)))
    ranked = [rank for rank in ranks if rank is not None]
    if rule != "ends" or not ranked:
        return []
    return [place for place, rank in enumerate(ranks) if rank in (min(ranked), max(ranked))]


def shown_cards(texts: Sequence[str], *seed: object) -> list[list[int]]:
    """Places of the completions on each card, cards in an order drawn from the seed; equal texts share a card."""
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    cards = list(places.values())
    digest = hashlib.blake2b(repr(seed).encode(), digest_size=8).digest()
    random.Random(int.from_bytes(digest, "little")).shuffle(cards)
    return cards
