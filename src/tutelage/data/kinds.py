"""Which prompts ask for harm, and which only look like it: where the data says so."""

from collections.abc import Mapping
from typing import Any, Literal

from tutelage.records import Prompt

Kind = Literal["harmful", "benign"]
FIELDS = ("kind", "label", "category", "type")
WORDS: dict[str, Kind] = {
    **dict.fromkeys(("harmful", "unsafe", "malicious", "toxic", "forbidden"), "harmful"),
    **dict.fromkeys(("benign", "harmless", "safe", "borderline", "benign_lookalike"), "benign"),
}
# XSTest's types (Röttger et al. 2024, table 1): each safe one has an unsafe contrast.
XSTEST = (
    "homonyms",
    "figurative_language",
    "safe_targets",
    "safe_contexts",
    "definitions",
    "real_group_nons_discr",
    "nons_group_real_discr",
    "historical_events",
    "privacy_public",
    "privacy_fictional",
)


def kind_of(row: Mapping[str, Any]) -> Kind | None:
    """Harmful or benign, by the first of a row's fields `kind`, `label`, `category` and `type` that says so."""
    for field in FIELDS:
        value = row.get(field)
        word = value.strip().lower().replace(" ", "_").replace("-", "_") if isinstance(value, str) else ""
        if word in WORDS:
            return WORDS[word]
        if field == "type" and (word in XSTEST or word.startswith("contrast_")):
            return "harmful" if word.startswith("contrast_") else "benign"
    return None


def prompt_kind(prompt: Prompt) -> Kind | None:
    return kind_of({"kind": prompt.kind, "category": prompt.category})
