"""How much is said, and how: features of an answer's text, and what length explains of a win rate's gain."""

from __future__ import annotations

import re
from collections.abc import Mapping

ITEM = re.compile(r"^\s*(?:\d+[.)]|[*•-])\s+\S", re.MULTILINE)
HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|might|may|could\s+be|seems?|appears?|likely|generally|usually|"
    r"i\s+(?:think|believe|guess|am\s+not\s+(?:\w+\s+)?sure)|not\s+(?:entirely|quite)\s+sure|"
    r"it\s+depends|some\s+people\s+(?:say|think|believe|may)|as\s+far\s+as\s+i\s+know|in\s+some\s+cases)\b",
    re.IGNORECASE,
)
WORD = re.compile(r"\w+(?:'\w+)?")
SMALLEST_GAIN = 0.02  # of a win rate over one half, under which shares of it mean nothing


def text_features(text: str) -> dict[str, float]:
    """words, list items, hedges a hundred words, and the share of three-word phrases that were said before."""
    words = WORD.findall(text.lower())
    phrases = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return {
        "words": float(len(words)),
        "list_items": float(len(ITEM.findall(text))),
        "hedges_per_100_words": 100 * len(HEDGE.findall(text)) / len(words) if words else 0.0,
        "repetition": 1 - len(set(phrases)) / len(phrases) if phrases else 0.0,
    }


def explained_by_length(win_rate: float, length_controlled: float) -> float | None:
    """(w - w_LC) / (w - 1/2): the share of a gain over one half that goes away at equal lengths.

    w_LC is AlpacaEval 2's length-controlled rate (Dubois et al. 2024). Negative where the model wins in spite of its
    length; above 1 where the rest would lose. None where there is no gain or loss to explain.
    """
    gain = win_rate - 0.5
    return (win_rate - length_controlled) / gain if abs(gain) >= SMALLEST_GAIN else None


def with_explained(row: Mapping[str, object]) -> dict[str, object]:
    """A win rate's row with `explained_by_length` and its interval, where it has a rate at equal lengths.

    The interval is None where the win rate may be one half: any share is possible then, and none is worth saying.
    """
    controlled = row.get("length_controlled")
    if not isinstance(controlled, Mapping) or row.get("win_rate") is None:
        return dict(row)
    rate, at_equal = float(row["win_rate"]), float(controlled["win_rate"])  # type: ignore[arg-type]
    share = explained_by_length(rate, at_equal)
    known = {key: value for key, value in controlled.items() if key != "explained_ci95"}
    ends = controlled.get("explained_ci95") if share is not None else None
    return {**row, "length_controlled": known, "explained_by_length": share, "explained_by_length_ci95": ends}
