"""Records as rows of the formats that others read.

What a format has no place for (a tie in TRL's pairs, who labeled) is counted and named, never lost in silence.
"""

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

from tutelage.data.formats import Row
from tutelage.data.preferences import taken_apart
from tutelage.errors import UserError
from tutelage.records import Comparison, Dataset, Demonstration, Message, Prompt, StepLabel, Thumb

REMARKS = (
    "category",
    "labeler",
    "created",
    "seconds",
    "ratings",
    "flags",
    "note",
    "weight",
    "probability",
    "rest_below",
)


def preference_rows(comparison: Comparison, plain: bool) -> list[Row]:
    """TRL `prompt, chosen, rejected`: one row for each pair of which one is ranked better (ties have none)."""
    prompt = _prompt(comparison.messages or [], plain)
    return [
        {"prompt": prompt, "chosen": _answer(better, plain), "rejected": _answer(worse, plain)}
        for better, worse in ordered_pairs(comparison)
    ]


def ordered_pairs(comparison: Comparison) -> list[tuple[str, str]]:
    """(better answer, worse answer) for each pair that is ranked apart, in the order of the answers."""
    texts, ranks = comparison.completions or [], comparison.filled_ranks()
    found = []
    for i, j in combinations(range(len(texts)), 2):
        a, b = ranks[i], ranks[j]
        if a is not None and b is not None and a != b:
            found.append((texts[i], texts[j]) if a < b else (texts[j], texts[i]))
    return found


def ranking_rows(comparison: Comparison, plain: bool) -> list[Row]:
    """`prompt, completions, ranks`, the K-way form, with what is known of the labeler."""
    row: Row = {
        "prompt": _prompt(comparison.messages or [], plain),
        "completions": comparison.completions,
        "ranks": comparison.ranks,
    }
    return [row | {name: value for name in REMARKS if (value := getattr(comparison, name)) is not None}]


def thumb_rows(judged: Thumb | Comparison, plain: bool) -> list[Row]:
    """TRL `prompt, completion, label` (KTO): a thumb; a ranking taken apart as KTO takes it."""
    thumbs = [judged] if isinstance(judged, Thumb) else taken_apart(judged)
    return [
        {
            "prompt": _prompt(one.messages, plain),
            "completion": _answer(one.completion, plain),
            "label": one.label,
        }
        for one in thumbs
    ]


def dialogue_rows(comparison: Comparison, plain: bool) -> list[Row]:
    r"""hh-rlhf's `chosen, rejected`: whole dialogues as "\n\nHuman: …\n\nAssistant: …" text."""
    names = {"user": "Human", "assistant": "Assistant"}
    messages: list[Message] = comparison.messages or []
    if any(m["role"] not in names for m in messages):
        raise UserError(
            "hh-rlhf dialogues hold no system message",
            where=f"comparison {comparison.id}",
            mend="export to trl-preference instead",
        )
    head = "".join(f"\n\n{names[m['role']]}: {m['content']}" for m in messages)
    return [
        {"chosen": f"{head}\n\nAssistant: {better}", "rejected": f"{head}\n\nAssistant: {worse}"}
        for better, worse in ordered_pairs(comparison)
    ]


def sft_rows(demonstration: Demonstration, plain: bool) -> list[Row]:
    """TRL `prompt, completion`."""
    *prompt, answer = demonstration.messages
    return [{"prompt": _prompt(prompt, plain), "completion": _answer(answer["content"], plain)}]


def message_rows(demonstration: Demonstration, plain: bool) -> list[Row]:
    """TRL `messages`."""
    return [{"messages": demonstration.messages}]


def prompt_rows(prompt: Prompt, plain: bool) -> list[Row]:
    """TRL `prompt`, with what is known of it."""
    extra = {name: getattr(prompt, name) for name in ("category", "source", "user_id", "split")}
    return [{"prompt": _prompt(prompt.messages, plain)} | {k: v for k, v in extra.items() if v is not None}]


def step_rows(label: StepLabel, messages: list[Message], plain: bool) -> list[Row]:
    """TRL `prompt, completions, labels`: true and false; with a neutral step the labels stay -1, 0, 1."""
    marks: list[Any] = label.labels if 0 in label.labels else [mark == 1 for mark in label.labels]
    one_turn = len(messages) == 1 and messages[0]["role"] == "user"
    told = {name: found for name in ("values", "outcome", "solution") if (found := getattr(label, name)) is not None}
    return [{"prompt": _prompt(messages, plain or one_turn), "completions": label.steps, "labels": marks, **told}]


class Export(NamedTuple):
    """What a format is made of, its rows, and what of a record it has no place for."""

    records: Callable[[Dataset], list[Any]]
    rows: Callable[..., list[Row]]
    loses: str


_PAIR_LOSES = "ties, answers that are not ranked, and who labeled"
EXPORTS: dict[str, Export] = {
    "trl-preference": Export(lambda d: d.comparisons, preference_rows, _PAIR_LOSES),
    "trl-sft": Export(lambda d: d.demonstrations, sft_rows, "who wrote"),
    "trl-messages": Export(lambda d: d.demonstrations, message_rows, "who wrote"),
    "trl-unpaired": Export(
        lambda d: [*d.thumbs, *d.comparisons], thumb_rows, "answers that win as often as they lose, and who labeled"
    ),
    "trl-stepwise": Export(lambda d: d.steps, step_rows, "who labeled"),
    "trl-prompt": Export(lambda d: d.prompts, prompt_rows, "nothing"),
    "hh-rlhf": Export(lambda d: d.comparisons, dialogue_rows, _PAIR_LOSES),
    "ranking": Export(lambda d: d.comparisons, ranking_rows, "nothing but ids"),
}


def _prompt(messages: list[Message], plain: bool) -> list[Message] | str:
    if not plain:
        return messages
    if len(messages) != 1 or messages[0]["role"] != "user":
        raise UserError(
            "a prompt has several turns, which plain text cannot hold",
            where="option --plain",
            mend="leave the option out: messages can hold them",
        )
    return messages[0]["content"]


def _answer(text: str, plain: bool) -> list[Message] | str:
    return text if plain else [{"role": "assistant", "content": text}]
