"""Words that a text has more or less than another, for reading two answers side by side."""

import difflib
import re

LONGEST = 3_000  # words; beyond it the comparison would keep the server busy
SHORTEST = 3  # words that count as shared between two changes


def differences(old: str, new: str) -> list[tuple[str, str]]:
    """Pieces of `new` in order: ("same" | "new", text), and ("gone", text) where words of `old` are missing."""
    a, b = re.findall(r"\S+\s*", old), re.findall(r"\S+\s*", new)
    if len(a) > LONGEST or len(b) > LONGEST:
        return [("same", new)]
    words_a, words_b = [w.strip() for w in a], [w.strip() for w in b]
    pieces: list[tuple[str, str]] = []
    gone, new = "", ""

    def flush() -> None:
        nonlocal gone, new
        pieces.extend((kind, text) for kind, text in (("gone", gone), ("new", new)) if text)
        gone, new = "", ""

    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, words_a, words_b, autojunk=False).get_opcodes():
        inside = i1 > 0 and i2 < len(a) and (gone or new)
        if tag == "equal" and not (inside and i2 - i1 < SHORTEST):
            flush()
            pieces.append(("same", "".join(b[j1:j2])))
        else:  # a word or two that two changes have in common would only break them up
            gone, new = gone + "".join(a[i1:i2]), new + "".join(b[j1:j2])
    flush()
    return pieces
