"""What makes a row a sound record: field types, roles, ranks. Each fault is a UserError that names the field."""

import math
from functools import cache
from itertools import combinations
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from tutelage.data.formats import named
from tutelage.data.steps import check_joined
from tutelage.errors import UserError, did_you_mean
from tutelage.records import RECORDS, Comparison, Demonstration, Message, Prompt, Record, StepLabel, Thumb

ROLES = ["system", "user", "assistant"]
_OTHER_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "developer": "system"}


class DegenerateRow(UserError):  # a kind of UserError, which is named so for the user's sake
    """A well-formed row that teaches nothing. A few of them in a large file are dropped, counted and reported."""


def check_text(value: Any, where: str) -> str:
    """The value, if it is text that can be encoded."""
    if not isinstance(value, str):
        raise UserError(f"is {named(value)}, not text", where=where, mend="give a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            "holds half of a surrogate pair, which no text has", where=where, mend="repair the escape"
        ) from error
    return value


def check_messages(value: Any, where: str) -> list[Message]:
    """The value as messages, each with a known role and text; empty lists are refused."""
    if not isinstance(value, list):
        raise UserError(
            f"is {named(value)}, not a list of messages", where=where, mend='write [{"role": ..., "content": ...}]'
        )
    if not value:
        raise UserError("is an empty list", where=where, mend="give at least one message")
    return [_message(item, f"{where}, message {i}") for i, item in enumerate(value, start=1)]


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict) or "role" not in item:
        raise UserError(
            "is not a message",
            where=where,
            mend='write {"role": "user", "content": "..."} for each message of the list',
        )
    role, content = item["role"], item.get("content")
    if role not in ROLES:
        near = f" (did you mean {_OTHER_ROLES[role]}?)" if role in _OTHER_ROLES else did_you_mean(str(role), ROLES)
        raise UserError(f"the role {role!r} is not known{near}", where=where, mend=f"use one of {', '.join(ROLES)}")
    if isinstance(content, list):  # content in parts, as multimodal data has it
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            raise UserError("holds a part that is not text", where=where, mend="only text can be trained on")
        content = "".join(check_text(part.get("text"), where) for part in content)
    return {"role": role, "content": check_text(content, f"{where}, field content")}


def check_prompt(messages: list[Message], where: str) -> list[Message]:
    """The messages, if a user asks something and it is the assistant's turn."""
    if not any(m["role"] == "user" for m in messages):
        raise UserError("has no user turn", where=where, mend="a prompt holds at least one user message")
    if messages[-1]["role"] != "user":
        raise UserError(
            f"the last turn is the {messages[-1]['role']}'s, not the user's",
            where=where,
            mend="a prompt ends with a user message; the answer has a field of its own",
        )
    if any(not m["content"].strip() for m in messages if m["role"] == "user"):
        raise DegenerateRow("a user turn is empty", where=where, mend="take the row out")
    return messages


def check_ranks(ranks: Any, count: int, where: str, *, rest_below: bool = False) -> list[int | None]:
    """Ranks of `count` completions: whole numbers from 1 (best) without gaps, equal for ties, null for not ranked."""
    if not isinstance(ranks, list):
        raise UserError(
            f"is {named(ranks)}, not a list", where=where, mend="give one rank, or null, for each completion"
        )
    if len(ranks) != count:
        raise UserError(
            f"has {len(ranks)} {'entry' if len(ranks) == 1 else 'entries'} for {count} completions",
            where=where,
            mend="give one rank, or null, for each completion",
        )
    given = []
    for i, rank in enumerate(ranks, start=1):
        if rank is None:
            continue
        if isinstance(rank, bool) or not isinstance(rank, int):
            raise UserError(
                f"entry {i} is {rank!r}, not a whole number", where=where, mend="ranks are 1 (best), 2, 3 … or null"
            )
        if rank < 1:
            raise UserError(f"entry {i} is {rank}; ranks begin at 1", where=where, mend="1 is the best")
        given.append(rank)
    if not given:
        raise UserError(
            "ranks nothing: every entry is null", where=where, mend="rank at least two, or leave the row out"
        )
    if sorted(set(given)) != list(range(1, max(given) + 1)):
        raise UserError(
            f"the ranks {sorted(set(given))} have gaps",
            where=where,
            mend="use 1, 2, 3 … without gaps, equal ranks for ties",
        )
    if len(given) < 2 and count > 1 and not rest_below:
        raise UserError("ranks only one completion", where=where, mend="rank at least two, or set rest_below to true")
    return ranks


def record_of(row: dict[str, Any], where: str) -> Record:
    """One of our own records from a row with `schema`, every field checked."""
    schema = row["schema"]
    cls = RECORDS.get(schema) if isinstance(schema, str) else None
    if cls is None:
        near = did_you_mean(str(schema), list(RECORDS))
        raise UserError(f"unknown schema {schema!r}{near}", where=where, mend=f"use one of {', '.join(RECORDS)}")
    hints = _hints(schema)
    for name, spec in cls.__dataclass_fields__.items():
        place = f"{where}, field {name}"
        if name not in row:
            if spec.default is not None and not isinstance(spec.default, str):
                raise UserError("is missing", where=place, mend=f"a {schema} has it")
        elif not _matches(row[name], hints[name]):
            raise UserError(
                f"is {named(row[name])}, not {_said(hints[name])}", where=place, mend="write the type it has"
            )
    record = cls.from_json(row)
    _check_record(record, where)
    return record


@cache
def _hints(schema: str) -> dict[str, Any]:
    return get_type_hints(RECORDS[schema])


def _check_record(record: Record, where: str) -> None:
    if isinstance(record, Prompt):
        check_prompt(check_messages(record.messages, f"{where}, field messages"), f"{where}, field messages")
    elif isinstance(record, Demonstration):
        check_demonstration(record.messages, f"{where}, field messages")
    elif isinstance(record, Comparison):
        _check_comparison(record, where)
    elif isinstance(record, Thumb):
        check_prompt(check_messages(record.messages, f"{where}, field messages"), f"{where}, field messages")
        if not record.completion.strip():
            raise DegenerateRow("the answer is empty", where=f"{where}, field completion", mend="take the row out")
    elif isinstance(record, StepLabel):
        if len(record.steps) != len(record.labels):
            raise UserError(
                f"has {len(record.labels)} labels for {len(record.steps)} steps",
                where=f"{where}, field labels",
                mend="give one label for each step",
            )
        if any(label not in (-1, 0, 1) for label in record.labels):
            raise UserError("holds a label that is not -1, 0 or 1", where=f"{where}, field labels", mend="right is 1")
        if not record.steps or not all(step.strip() for step in record.steps):
            what = "a step is empty" if record.steps else "has no step"
            raise DegenerateRow(what, where=f"{where}, field steps", mend="take it out, with its label")
        if record.values is not None and len(record.values) != len(record.steps):
            what = f"has {len(record.values)} values for {len(record.steps)} steps"
            raise UserError(what, where=f"{where}, field values", mend="give one share for each step")
        if any(not 0 <= value <= 1 for value in record.values or []):
            raise UserError("holds a share that is not from 0 to 1", where=f"{where}, field values", mend="use shares")
        if record.solution is not None:
            check_joined(record, record.solution, f"{where}, field steps")


def check_demonstration(messages: Any, where: str) -> list[Message]:
    """Messages that end with an answer to a user."""
    checked = check_messages(messages, where)
    if checked[-1]["role"] != "assistant":
        raise UserError("does not end with the assistant's turn", where=where, mend="add the answer")
    check_prompt(checked[:-1] or [{"role": "system", "content": ""}], where)
    if not checked[-1]["content"].strip():
        raise DegenerateRow("the assistant's text is empty", where=where, mend="take the row out")
    return checked


def _check_comparison(record: Comparison, where: str) -> None:
    count = len(record.completion_ids)
    if count < 2:
        raise UserError(
            f"compares {count} completions", where=f"{where}, field completion_ids", mend="give at least two"
        )
    check_ranks(record.ranks, count, f"{where}, field ranks", rest_below=bool(record.rest_below))
    for name in ("completions", "ratings", "flags"):
        value = getattr(record, name)
        if value is not None and len(value) != count:
            raise UserError(
                f"has {len(value)} entries for {count} completions",
                where=f"{where}, field {name}",
                mend="give one each",
            )
    for i, j in combinations(range(count if record.completions else 0), 2):
        ranked = (record.ranks[i], record.ranks[j])
        if record.completions[i] == record.completions[j] and None not in ranked and ranked[0] != ranked[1]:  # type: ignore[index]
            raise DegenerateRow("two equal answers are ranked apart", where=where, mend="take the row out")
    if any(r is not None and not 1 <= r <= 7 for r in record.ratings or []):
        raise UserError("holds a rating that is not from 1 to 7", where=f"{where}, field ratings", mend="use 1 to 7")
    if record.probability is not None:
        _check_probability(record, f"{where}, field probability")
    if record.messages is not None:
        check_prompt(check_messages(record.messages, f"{where}, field messages"), f"{where}, field messages")
    for name in ("weight", "seconds"):
        number = getattr(record, name)
        if number is not None and not (math.isfinite(number) and number >= 0):
            raise UserError(
                f"is {number}", where=f"{where}, field {name}", mend="give zero or a finite number above it"
            )


def _check_probability(record: Comparison, where: str) -> None:
    """A soft label is for two answers, from 0 to 1, and on the side that the ranks name."""
    p, ranks = record.probability, record.ranks
    if len(ranks) != 2:
        raise UserError(f"is given for {len(ranks)} answers", where=where, mend="give it for two, or take it out")
    if p is None or not 0 <= p <= 1:
        raise UserError(f"is {p}", where=where, mend="give a number from 0 to 1")
    first, second = ranks
    if first is not None and second is not None and first != second and (p > 0.5) != (first < second):
        raise UserError(f"is {p}, but the ranks say otherwise", where=where, mend="rank the likelier answer 1")


def _matches(value: Any, hint: Any) -> bool:
    origin, options = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_matches(value, option) for option in options)
    if origin is list:
        return isinstance(value, list) and all(_matches(item, options[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_matches(item, options[1]) for item in value.values())
    if hint is NoneType:
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _said(hint: Any) -> str:
    """A type hint in words: `list[int | None]` is "a list of whole numbers (or null)"."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_said(option) for option in options if option is not NoneType)
    if origin is list:
        inner = options[0]
        return "a list of " + {str: "texts", int: "whole numbers"}.get(inner, "the right kind")
    if origin is dict:
        return "an object"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(hint, str(hint))
