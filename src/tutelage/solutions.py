"""Solutions in steps, one a line: taking them apart, and their final answers."""

import re
from collections.abc import Sequence

ANSWER = re.compile(r"(?:####|\bA:|\banswer(?:\s+is)?\s*:?|\\boxed\{)\s*\$?\s*(-?[\d,]*\.?\d+)", re.IGNORECASE)
NUMBER = re.compile(r"\s*\$?\s*(-?[\d,]*\.?\d+)\s*\.?\s*")
WORD = re.compile(r"^\s*Answer:\s*([^\W\d_]+)\.?\s*$", re.IGNORECASE | re.MULTILINE)


def split_steps(text: str) -> list[str]:
    """The lines of a solution that hold something."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def final_answer(text: str) -> str | None:
    """The number behind the last `####`, `A:`, `Answer:` or `answer is`, or the one word of a line `Answer: WORD`.

    None where the solution comes to neither.
    """
    if found := ANSWER.findall(text):
        return plain_number(found[-1])
    said = WORD.findall(text)
    return said[-1] if said else None


def solves(text: str, answer: str | None) -> bool:
    """Whether a solution comes to the answer of its problem, however that is written: 1,000.0 is 1000."""
    found = final_answer(text)
    if found is None or answer is None:
        return False
    number = NUMBER.fullmatch(answer)
    return found == (plain_number(number[1]) if number else final_answer(answer) or answer.strip())


def plain_number(text: str) -> str:
    """A number so that equal ones are equal texts: no separators, no trailing zeros."""
    value = float(text.replace(",", ""))
    return str(int(value)) if value == int(value) else str(value)


def repeated(steps: Sequence[str]) -> list[bool]:
    """Which steps say again, word for word, what an earlier one said."""
    return [step in steps[:place] for place, step in enumerate(steps)]


def step_ends(pieces: Sequence[str]) -> list[int]:
    """Of an answer's tokens as text: the place of the token that ends each step (the line's break, or the last token)."""
    ends: list[int] = []
    holds = False  # whether the line so far holds something
    for place, piece in enumerate(pieces):
        for letter in piece:
            if letter == "\n":
                if holds:
                    ends.append(place)
                holds = False
            elif not letter.isspace():
                holds = True
    return [*ends, len(pieces) - 1] if holds else ends
