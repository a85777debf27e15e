"""From what a page sends to what the store keeps: every field checked, every fault named in the labeler's words."""

from collections.abc import Mapping
from typing import Any

from tutelage.feedback.queue import Work
from tutelage.feedback.ranking import CATEGORIES, RankingError, must_rate, parse_ranking, ranks_of
from tutelage.records import FLAGS

SKIP_REASONS = {
    "unclear": "the prompt is unclear",
    "language": "not in my language",
    "knowledge": "needs knowledge that I lack",
    "sensitive": "I would rather not read this",
    "broken": "text is broken or missing",
}
LONGEST_ANSWER = 40_000  # characters
LONGEST_NOTE = 2_000
MOST_TURNS = 40


class AnswerError(Exception):
    """Faults of an answer by field; the page shows each beside its field."""

    def __init__(self, faults: dict[str, str]):
        self.faults = faults
        super().__init__("; ".join(faults.values()))


def checked(kind: str, sent: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """The payload to store, or AnswerError."""
    if kind == "skip":
        return _skip(sent)
    return {"rank": _rank, "demonstrate": _demonstrate, "steps": _steps, "flag": _sensitive}[kind](sent, work)


def _skip(sent: Mapping[str, Any]) -> dict[str, Any]:
    reason = sent.get("reason")
    if not isinstance(reason, str) or reason not in SKIP_REASONS:
        raise AnswerError({"reason": "Choose why you skip this"})
    return {"reason": reason, "note": _text(sent.get("note"), LONGEST_NOTE, "note")}


def _rank(sent: Mapping[str, Any], work: Work) -> dict[str, Any]:
    faults: dict[str, str] = {}
    all_bad, rest_below = _flag(sent, "all_bad"), _flag(sent, "rest_below")
    groups: list[list[str]] = []
    try:
        groups = groups_in(sent, work.letters)
    except RankingError as error:
        faults["ranking"] = f"{error}."
    ranked = sum(len(group) for group in groups)
    rest = rest_below and 0 < ranked < len(work.letters)
    if not faults and ranked < 2 and not rest and not all_bad:
        faults["ranking"] = "Rank two answers or more, or say that all are bad."
    letters = list(work.letters)
    ratings, flags = sent.get("ratings") or {}, sent.get("flags") or {}
    if work.rating == "none":
        ratings = {}  # left over from a draft of before
    if not isinstance(ratings, Mapping) or not all(
        key in letters and isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= 7 for key, v in ratings.items()
    ):
        faults["ratings"] = "Quality is a number from 1 to 7 for an answer."
    elif missing := unrated(work, groups, ratings):
        faults["ratings"] = f"Rate the quality, 1 to 7, of {', '.join(missing)}."
    if not isinstance(flags, Mapping) or not all(
        key in letters and isinstance(v, list) and all(isinstance(f, str) and f in FLAGS for f in v)
        for key, v in flags.items()
    ):
        faults["flags"] = "There is no such mark."
    category = sent.get("category") or None
    if category is not None and category not in CATEGORIES:
        faults["category"] = "Choose a use case from the list."
    if faults:
        raise AnswerError(faults)
    return {
        "ranks": ranks_of(groups, work.cards),
        "rest_below": rest,
        "all_bad": all_bad,
        "ratings": _by_place(ratings, work, None) if ratings else None,
        "flags": _by_place({k: sorted(set(v)) for k, v in flags.items()}, work, []) if any(flags.values()) else None,
        "category": category,
        "note": _text(sent.get("note"), LONGEST_NOTE, "note"),
    }


def unrated(work: Work, groups: list[list[str]], ratings: Mapping[str, Any]) -> list[str]:
    """The letters of which the project asks the quality and that have none."""
    rank = {letter: number for number, group in enumerate(groups, 1) for letter in group}
    asked = must_rate(work.rating, [rank.get(letter) for letter in work.letters])
    return [work.letters[place] for place in asked if work.letters[place] not in ratings]


def groups_in(sent: Mapping[str, Any], letters: str) -> list[list[str]]:
    """The typed line, or else the selects of the cards. Raises RankingError, AnswerError."""
    return parse_ranking(_text(sent.get("ranking"), 200, "ranking"), letters) or _selected(sent, letters)


def _selected(sent: Mapping[str, Any], letters: str) -> list[list[str]]:
    """The ranking of a page without script: a number, or none, for each letter; equal numbers tie."""
    groups: dict[int, list[str]] = {}
    for letter in letters:
        value = str(sent.get(f"rank_{letter}") or "").lstrip("=")
        if value:
            if not value.isdecimal() or not 1 <= int(value) <= 9:
                raise RankingError("A rank is a number from 1 to 9")
            groups.setdefault(int(value), []).append(letter)
    return [groups[rank] for rank in sorted(groups)]


def _by_place(values: Mapping[str, Any], work: Work, missing: Any) -> list[Any]:
    places: list[Any] = [missing] * sum(len(card) for card in work.cards)
    for letter, card in zip(work.letters, work.cards, strict=True):
        for place in card:
            places[place] = values.get(letter, missing)
    return places


def _demonstrate(sent: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """The conversation goes on from the prompt: an answer, or more turns that end with an answer."""
    turns = sent.get("turns")
    if turns is None:
        turns = [sent.get("answer")]
    if not isinstance(turns, list) or len(turns) > MOST_TURNS or len(turns) % 2 == 0:
        raise AnswerError({"answer": "End with the assistant's answer."})
    messages = list(work.prompt.messages)
    for number, turn in enumerate(turns):
        text = _text(turn, LONGEST_ANSWER, "answer").strip()
        if not text:
            raise AnswerError({"answer": "The answer is empty."})
        messages.append({"role": "user" if number % 2 else "assistant", "content": text})
    return {"messages": messages}


def _steps(sent: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """Right (1), neutral (0), wrong (-1) up to the last step judged; steps after a first error may be left open."""
    labels, count = sent.get("labels"), len(work.task.steps or [])
    if labels is None:
        labels = [int(v) if (v := sent.get(f"step_{i}")) in ("1", "0", "-1") else None for i in range(count)]
    if not isinstance(labels, list) or len(labels) > count:
        raise AnswerError({"steps": "Label each step."})
    while labels and labels[-1] is None:
        labels = labels[:-1]
    if not all(isinstance(v, int) and not isinstance(v, bool) and v in (1, 0, -1) for v in labels):
        raise AnswerError({"steps": "Label each step up to the first wrong one."})
    if not labels or (len(labels) < count and -1 not in labels):
        raise AnswerError({"steps": "Label each step, or mark the first wrong one."})
    return {"labels": labels}


def _sensitive(sent: Mapping[str, Any], work: Work) -> dict[str, Any]:
    said = sent.get("sensitive")
    if said not in ("1", "0"):
        raise AnswerError({"sensitive": "Say whether the text is sensitive."})
    return {"sensitive": said == "1"}


def checked_effort(sent: Any) -> dict[str, Any]:
    """Counts that the page took: idle, away, moves, seen, revisits, input, contradictions, pasted_share, prefilled,
    prefilled_ties (rows that equal quality tied and nobody touched)."""
    if not isinstance(sent, Mapping):
        return {}
    numbers = ("idle", "away", "moves", "revisits", "contradictions", "pasted_share", "prefilled", "prefilled_ties")
    kept: dict[str, Any] = {
        key: round(float(sent[key]), 2)
        for key in numbers
        if isinstance(sent.get(key), int | float) and 0 <= sent[key] < 1e6
    }
    seen = sent.get("seen")
    if isinstance(seen, list) and len(seen) <= 9 and all(isinstance(v, bool) for v in seen):
        kept["seen"] = seen
    if sent.get("input") in ("keys", "pointer", "text", "none", "mixed"):
        kept["input"] = sent["input"]
    return kept


def _flag(sent: Mapping[str, Any], name: str) -> bool:
    return sent.get(name) in (True, "1", "on", "true")


def _text(value: Any, longest: int, field: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise AnswerError({field: "This is not text."})
    if len(value) > longest:
        raise AnswerError({field: f"This is longer than {longest:,} characters."})
    if "\x00" in value:
        raise AnswerError({field: "This holds a character that cannot be stored."})
    return value
