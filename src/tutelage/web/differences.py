"""Words that a text has more or less than another, for reading two answers side by side."""

import difflib
import re

LONGEST = 3_000  # words; beyond it the comparison would keep the server busy


def differences(old: str, new: str) -> list[tuple[str, str]]:
    """Pieces of `new` in order: ("same" | "new", text), and ("gone", text) where words of `old` are missing."""
    a, b = re.findall(r"\S+\s*", old), re.findall(r"\S+\s*", new)
    if len(a) > LONGEST or len(b) > LONGEST:
        return [("same", new)]
    words_a, words_b = [w.strip() for w in a], [w.strip() for w in b]
    pieces: list[tuple[str, str]] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, words_a, words_b, autojunk=False).get_opcodes():
        if tag in ("replace", "delete"):
            pieces.append(("gone", "".join(a[i1:i2])))
        if tag != "delete":
            pieces.append(("same" if tag == "equal" else "new", "".join(b[j1:j2])))
    return pieces
