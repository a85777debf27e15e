"""Personal data in text: e-mail addresses, phone numbers and secret keys, by their shapes."""

import re
from collections.abc import Iterable
from typing import Any

PATTERNS = {
    "email": re.compile(r"\b[\w.+-]+@[\w-]+\.(?:[\w-]+\.)*[A-Za-z]{2,}\b"),
    # With a country code, or ten digits in groups as they are written in North America.
    "phone": re.compile(
        r"(?<![\w.])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,4}"
        r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w])"
    ),
    "key": re.compile(
        r"\b(?:AKIA[0-9A-Z]{16}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{36,}|hf_[A-Za-z0-9]{30,}|AIza[\w-]{35}"
        r"|xox[baprs]-[\w-]{10,})|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
    ),
}
EXAMPLES = 3


def find(texts: Iterable[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """Of (place, text): for each kind how often it stands there, in how many texts, and a few examples, masked."""
    found: dict[str, dict[str, Any]] = {name: {"count": 0, "texts": 0, "examples": []} for name in PATTERNS}
    for place, text in texts:
        for name, pattern in PATTERNS.items():
            hits = [match[0] for match in pattern.finditer(text)]
            if hits:
                found[name]["count"] += len(hits)
                found[name]["texts"] += 1
                if len(found[name]["examples"]) < EXAMPLES:
                    found[name]["examples"].append({"where": place, "text": masked(hits[0])})
    return found


def masked(text: str) -> str:
    """Enough to find it again, too little to use it."""
    return text[:4] + "…" * (len(text) > 4)
