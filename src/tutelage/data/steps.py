"""Labeled steps against the solution that they are of, and as tokens."""

from collections.abc import Sequence
from typing import Any

from tutelage.data.templates import render_prompt
from tutelage.errors import UserError
from tutelage.records import Message, StepLabel


def check_joined(labels: StepLabel, text: str, where: str) -> None:
    """A UserError where the steps, put together, are not the solution that they are said to be of."""
    joined, whole = "".join("".join(labels.steps).split()), "".join(text.split())
    if joined != whole:
        at = next(
            (i for i, (a, b) in enumerate(zip(joined, whole, strict=False)) if a != b), min(len(joined), len(whole))
        )
        what = f"the steps do not join to the solution: after {joined[max(0, at - 20) : at]!r} they differ"
        raise UserError(what, where=where, mend="cut the solution into steps again, with nothing left out or changed")


def render_steps(tokenizer: Any, messages: Sequence[Message], steps: Sequence[str]) -> tuple[list[int], list[int]]:
    """Token ids of a prompt and its steps, a line each, and the place of the last token of every step."""
    ids, ends = render_prompt(tokenizer, messages), []
    for step in steps:
        ids = ids + tokenizer(f"{step}\n", add_special_tokens=False)["input_ids"]
        ends.append(len(ids) - 1)
    return ids, ends
