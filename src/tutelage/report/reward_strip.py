"""A reward prefix by prefix: each piece of an answer tinted by what the reward did there, and the same in words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from tutelage.report.parts import number
from tutelage.report.svg import esc, short

STEPS = 3  # of the tint each way
NAMED = 2  # rises and falls that are said in words
LONGEST = 4000  # characters of an answer
HINT = "The reward model was trained on whole answers: what it says of a beginning is a hint."
LEGEND = (
    '<p class="sub rw">Each piece of an answer is marked by how far the reward went there, from the prompt’s largest step: '
    '<span class="p1">rose</span> <span class="p2">more</span> <span class="p3">most</span>, '
    '<span class="m1">fell</span> <span class="m2">more</span> <span class="m3">most</span> '
    f"(falls are underlined with dots). {HINT}</p>"
)


def changes(scores: Sequence[float]) -> list[float]:
    """What each piece added to the reward; nothing is known of the first."""
    return [0.0, *(b - a for a, b in itertools.pairwise(scores))] if scores else []


def step(change: float, largest: float) -> str:
    """A step of the scale: m3 (fell most) … m0 (as good as nothing) … p3 (rose most)."""
    number = round(STEPS * change / largest) if largest else 0
    return f"{'p' if number > 0 else 'm'}{abs(number)}"


def strip(pieces: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str, str]]:
    """Each piece with its reward and its step, from the answer's own largest change."""
    moves = changes(scores)
    largest = max(map(abs, moves), default=0.0)
    return [(p, f"{s:.2f}", step(c, largest)) for p, s, c in zip(pieces, scores, moves, strict=True)]


def reading(answer: dict[str, Any]) -> tuple[list[str], list[float]] | None:
    """The pieces and scores of an answer in a report; None where there are none, or they are not what they should be."""
    found = answer.get("by_prefix")
    if not isinstance(found, dict):
        return None
    pieces, scores = [*map(str, found.get("pieces") or [])], [number(v) for v in found.get("scores") or []]
    known = [value for value in scores if value is not None]
    return (pieces, known) if pieces and len(pieces) == len(known) == len(scores) else None


def largest_change(answers: Sequence[dict[str, Any]]) -> float:
    """Of answers that stand side by side, so that a tint means the same in each."""
    read = [found for answer in answers if (found := reading(answer))]
    return max((abs(move) for _, scores in read for move in changes(scores)), default=0.0)


def tinted(answer: dict[str, Any], largest: float) -> str:
    """The answer's text with its tint; "" without a reading. Pieces where the reward hardly moved are plain text."""
    found = reading(answer)
    if found is None:
        return ""
    pieces, scores = found
    made: list[str] = []
    length = 0
    for piece, score, change in zip(pieces, scores, changes(scores), strict=True):
        length += len(piece)
        if length > LONGEST:
            return "".join(made) + " …"
        mark, text = step(change, largest), esc(piece) if piece else ""
        if mark.endswith("0"):
            made.append(text)
            continue
        if not piece:
            text = "<small>end</small>"
        said = f"{_signed(change)}, to {short(score, 2)}"
        made.append(f'<span class="{mark}" title="{esc(said)}">{text}</span>')
    return "".join(made)


def in_words(answer: dict[str, Any]) -> str:
    """The reading without colors: the reward of the whole answer, and where it rose and fell most."""
    found = reading(answer)
    if found is None:
        return ""
    pieces, scores = found
    moves = changes(scores)
    order = sorted(range(len(moves)), key=lambda i: moves[i])
    falls = [i for i in order if moves[i] < 0][:NAMED]
    rises = [i for i in reversed(order) if moves[i] > 0][:NAMED]
    said = [f"Reward {short(scores[-1], 2)}"]
    for verb, places in (("rises", rises), ("falls", falls)):
        if places:
            said.append(f"{verb} most at " + ", ".join(f"{_word(pieces, i)} ({_signed(moves[i])})" for i in places))
    return f'<p class="tiny">{esc("; ".join(said))}.</p>'


def _word(pieces: Sequence[str], place: int) -> str:
    """The word that a piece is of, in quotes."""
    if not pieces[place].strip():
        return "its end" if place == len(pieces) - 1 else "a space"
    text, start = "".join(pieces), len("".join(pieces[:place]))
    inside = start + len(pieces[place]) - len(pieces[place].lstrip())
    first = max((i + 1 for i in range(inside) if text[i].isspace()), default=0)
    last = next((i for i in range(inside, len(text)) if text[i].isspace()), len(text))
    word = text[first:last]
    return f"“{word[:24]}…”" if len(word) > 25 else f"“{word}”"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + short(value, 2)
