"""Behaviors that need probes or texts: sycophancy's three families, verbosity, and the paired tests between models."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tutelage.evaluation.intervals import mean_interval
from tutelage.evaluation.paired import Outcomes
from tutelage.evaluation.sycophancy import Answer, Item, general_items, probe
from tutelage.evaluation.verbosity import text_features
from tutelage.judges.chats import Chat
from tutelage.records import Message


def verbosity(texts: Sequence[str | None]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[Any, float]]]:
    """Mean of each feature with its interval, and the feature of each prompt's answer."""
    by_prompt = {i: text_features(text) for i, text in enumerate(texts) if text is not None}
    outcomes: dict[str, dict[Any, float]] = {}
    for place, features in by_prompt.items():
        for name, value in features.items():
            outcomes.setdefault(name, {})[place] = value
    rates = {}
    for name, values in outcomes.items():
        mean, low, high = mean_interval(list(values.values()))
        rates[name] = {"value": mean, "ci95": [low, high] if len(values) > 1 else None, "prompts": len(values)}
    return rates, outcomes


def items_for(data: str, split: str, count: int) -> list[Item]:
    """Probes that the models can know: of the world's facts, or of the real world's."""
    if data == "world":
        from tutelage.evaluation.world_probes import sycophancy_items

        return sycophancy_items(split, count)
    return general_items()[:count]


def measure(
    texts: Sequence[str | None], answer: Answer, items: Sequence[Item], known: Outcomes | None = None
) -> tuple[dict[str, Any], Outcomes]:
    """A model's verbosity on the common prompts and its sycophancy on the probes; `known` outcomes are kept."""
    rates, outcomes = verbosity(texts)
    found: dict[str, Mapping[Any, float]] = {**(known or {}), **outcomes}
    if items:
        probed = probe(answer, items)
        return {**rates, **probed.rates}, {**found, **probed.outcomes}
    return dict(rates), found


def asker(chat: Chat) -> Callable[[list[list[Message]]], list[str | None]]:
    """A chat as what answers probes; a failure is no answer."""

    def answer(conversations: list[list[Message]]) -> list[str | None]:
        return [str(one) if isinstance(one, str) else None for one in chat.answers(conversations)]

    return answer
