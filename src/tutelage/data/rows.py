"""The formats that a row can have, in the order in which they are tried."""

from collections.abc import Callable
from typing import NamedTuple

from tutelage.data import foreign, tools
from tutelage.data.foreign import Item, Reader
from tutelage.data.formats import Row
from tutelage.data.validation import record_of
from tutelage.errors import UserError, did_you_mean


class Format(NamedTuple):
    """A format is known by fields that stand in a row together."""

    fields: tuple[str, ...]
    read: Reader


# The first format whose fields are all there is taken, so those with more fields come first.
FORMATS: dict[str, Format] = {
    "records": Format(("schema",), lambda row, where: [record_of(row, where)]),
    "arena": Format(("conversation_a", "conversation_b", "winner"), tools.arena),
    "alpacafarm": Format(("instruction", "output_1", "output_2", "preference"), tools.alpacafarm),
    "argilla": Format(("fields", "responses"), tools.argilla),
    "label-studio": Format(("data", "annotations"), tools.label_studio),
    "potato": Format(("label_annotations",), tools.potato),
    "prm800k": Format(("question", "label"), tools.prm800k),
    "math-shepherd": Format(("input", "label"), tools.math_shepherd),
    "thumbs": Format(("prompt", "thumbs"), tools.thumbs),
    "ranking": Format(("prompt", "completions", "ranks"), foreign.ranking),
    "trl-stepwise": Format(("prompt", "completions", "labels"), foreign.stepwise),
    "trl-preference": Format(("chosen", "rejected"), foreign.preference),
    "trl-unpaired": Format(("prompt", "completion", "label"), foreign.unpaired),
    "trl-sft": Format(("prompt", "completion"), foreign.prompt_completion),
    "trl-messages": Format(("messages",), foreign.conversation),
    "sharegpt": Format(("conversations",), foreign.sharegpt),
    "alpaca": Format(("instruction", "output"), foreign.alpaca),
    "question-answer": Format(("question", "answer"), foreign.question_answer),
    "trl-prompt": Format(("prompt",), foreign.prompt_only),
    "text": Format(("text",), foreign.text),
}

# A row with the one field and not the other has lost something; it is not a row of a simpler format.
_PARTNERS = {
    "chosen": ("rejected",),
    "rejected": ("chosen",),
    "completions": ("ranks", "labels", "label_annotations"),
    "ranks": ("completions",),
    "instruction": ("output", "output_1", "label_annotations"),
}


def items_of(row: Row, where: str, *, unranked: bool = False) -> list[Item]:
    """The records, or the document, that one row holds. UserError (DegenerateRow) names what is wrong.

    unranked: `prompt` and `completions` by themselves are answers that somebody is to label; to train on, they are a
    row that has lost its ranks.
    """
    present = _present(row)
    if unranked and is_unranked(present):
        return foreign.unranked(present, where)
    return FORMATS[_name(present, where)].read(present, where)


def format_of(row: Row, where: str = "row") -> str:
    """The name of the row's format; the dialogues of hh-rlhf, which are pairs of text, have their own."""
    present = _present(row)
    name = _name(present, where)
    if name == "trl-preference" and isinstance(present["chosen"], str) and foreign.is_dialogue(present["chosen"]):
        return "hh-rlhf"
    return name


def is_unranked(row: Row) -> bool:
    """Whether the row holds answers without a label, and no misspelled one."""
    labels = ("schema", *_PARTNERS["completions"])
    near = any(did_you_mean(name, list(row)) for name in _PARTNERS["completions"])
    return {"prompt", "completions"} <= row.keys() and not near and not any(name in row for name in labels)


def _present(row: Row) -> Row:
    return {key: value for key, value in row.items() if value is not None}


def _name(row: Row, where: str) -> str:
    if "schema" in row:
        return "records"
    if any(key.endswith(".responses") for key in row):  # Argilla as it is pushed to the hub
        return "argilla"
    for field, partners in _PARTNERS.items():
        if field in row and not any(partner in row for partner in partners):
            near = did_you_mean(partners[0], list(row))
            raise UserError(
                f"has {field} but no {' or '.join(partners[:2])}{near}",
                where=f"{where}, field {partners[0]}",
                mend=f"add the field `{partners[0]}`",
            )
    for name, known in FORMATS.items():
        if all(field in row for field in known.fields) and _SHAPES.get(name, lambda row: True)(row):
            return name
    if {"completions", "completion", "ranks", "labels"} & set(row):
        raise UserError(
            "has no prompt", where=f"{where}, field prompt", mend="add the field `prompt`: text or a list of messages"
        )
    known_fields = sorted({field for known in FORMATS.values() for field in known.fields})
    near = next((hint for key in row if (hint := did_you_mean(str(key), known_fields))), "")
    raise UserError(
        f"has no prompt and is of no known format; its fields are: {', '.join(map(str, row)) or 'none'}{near}",
        where=where,
        mend=f"give one of: {'; '.join(' + '.join(known.fields) for known in FORMATS.values())}",
    )


# Formats whose fields' names say too little.
_SHAPES: dict[str, Callable[[Row], bool]] = {
    "argilla": lambda row: isinstance(row["fields"], dict) and isinstance(row["responses"], dict),
    "label-studio": lambda row: isinstance(row["annotations"], list),
    "potato": lambda row: isinstance(row["label_annotations"], dict),
    "prm800k": lambda row: isinstance(row["question"], dict),
    "math-shepherd": lambda row: isinstance(row["input"], str) and "ки" in row["input"],
}
