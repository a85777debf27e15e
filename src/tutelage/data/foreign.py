"""Rows of the formats people have, turned into records: TRL's, hh-rlhf's, K-way rankings, alpaca and ShareGPT.

Ids come from the content, so that the same prompt or answer has the same id in every file.
"""

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from tutelage.data.validation import (
    DegenerateRow,
    check_demonstration,
    check_messages,
    check_prompt,
    check_ranks,
    check_text,
    named,
    record_of,
)
from tutelage.errors import UserError, did_you_mean
from tutelage.records import Comparison, Demonstration, Message, Prompt, Record, StepLabel

Row = dict[str, Any]
Item = Record | str  # a record, or a plain document

_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}
_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def items_of(row: Row, where: str) -> list[Item]:
    """The records, or the document, that one row holds. UserError (DegenerateRow) names what is wrong."""
    present = {key: value for key, value in row.items() if value is not None}
    return _reader(present, where)(present, where)


def format_of(row: Row, where: str = "row") -> str:
    """The name of the row's format, as `data check` shows it."""
    present = {key: value for key, value in row.items() if value is not None}
    if "schema" in present:
        return str(present["schema"])
    reader = _reader(present, where)
    name = next(name for name, (_, known) in FORMATS.items() if known is reader)
    if reader is _preference and isinstance(present["chosen"], str) and is_dialogue(present["chosen"]):
        return "hh-rlhf"
    return name


def _reader(row: Row, where: str) -> Callable[[Row, str], list[Item]]:
    if "schema" in row:
        return lambda present, place: [record_of(present, place)]
    for field, partners in _PARTNERS.items():
        if field in row and not any(partner in row for partner in partners):
            near = did_you_mean(partners[0], list(row))
            raise UserError(
                f"has {field} but no {' or '.join(partners)}{near}", where=where, mend=f"add the field `{partners[0]}`"
            )
    for fields, reader in FORMATS.values():
        if all(field in row for field in fields):
            return reader
    if {"completions", "completion", "ranks", "labels"} & set(row):
        raise UserError("has no prompt", where=where, mend="add the field `prompt`: text or a list of messages")
    keys = ", ".join(map(str, row)) or "nothing"
    known = sorted({field for fields, _ in FORMATS.values() for field in fields})
    near = next((hint for key in row if (hint := did_you_mean(str(key), known))), "")
    raise UserError(
        f"has no prompt and is of no known format; its fields are: {keys}{near}",
        where=where,
        mend=f"give one of: {'; '.join(' + '.join(fields) for fields, _ in FORMATS.values())}",
    )


# --- the readers, one a format -------------------------------------------------------------------------------------


def _preference(row: Row, where: str) -> list[Item]:
    prompt, chosen, rejected = split_pair(row, where)
    answers = {"chosen": chosen, "rejected": rejected}
    for name, text in answers.items():
        if not text.strip():
            raise DegenerateRow("the answer is empty", where=f"{where}, field {name}", mend="take the row out")
    if chosen == rejected:
        raise DegenerateRow("chosen and rejected are equal", where=where, mend="take the row out, or give two answers")
    return _comparison(row, prompt, [chosen, rejected], [1, 2], where)


def _ranking(row: Row, where: str) -> list[Item]:
    prompt = prompt_messages(row, where)
    place = f"{where}, field completions"
    if not isinstance(row["completions"], list):
        raise UserError(f"is {named(row['completions'])}, not a list", where=place, mend="list at least two answers")
    texts = [_answer(value, f"{place}, entry {i}") for i, value in enumerate(row["completions"], start=1)]
    ranks = check_ranks(row["ranks"], len(texts), f"{where}, field ranks", rest_below=row.get("rest_below") is True)
    if len(texts) < 2:
        raise UserError(f"compares {len(texts)} completions", where=place, mend="list at least two answers")
    if any(not text.strip() for text in texts):
        raise DegenerateRow("an answer is empty", where=place, mend="take the row out")
    if len(set(texts)) == 1:
        raise DegenerateRow("all completions are equal", where=place, mend="take the row out")
    return _comparison(row, prompt, texts, ranks, where)


def _unpaired(row: Row, where: str) -> list[Item]:
    if not isinstance(row["label"], bool):
        raise UserError(
            f"is {row['label']!r}, not true or false", where=f"{where}, field label", mend="use true or false"
        )
    prompt = prompt_messages(row, where)
    text = _answer(row["completion"], f"{where}, field completion")
    if not text.strip():
        raise DegenerateRow("the answer is empty", where=f"{where}, field completion", mend="take the row out")
    # One completion cannot be ranked against another; all_bad holds the label.
    return _comparison(row, prompt, [text], [1], where, all_bad=not row["label"])


def _stepwise(row: Row, where: str) -> list[Item]:
    prompt = _prompt(prompt_messages(row, where), row)
    steps, labels = row["completions"], row["labels"]
    for name, value in (("completions", steps), ("labels", labels)):
        if not isinstance(value, list):
            raise UserError(
                f"is {named(value)}, not a list", where=f"{where}, field {name}", mend="give one entry a step"
            )
    texts = [check_text(step, f"{where}, field completions, entry {i}") for i, step in enumerate(steps, start=1)]
    if len(labels) != len(texts):
        raise UserError(
            f"has {len(labels)} labels for {len(texts)} steps", where=f"{where}, field labels", mend="label each step"
        )
    if any(not isinstance(label, bool) and label not in (-1, 0, 1) for label in labels):
        raise UserError("a label is not true, false, -1, 0 or 1", where=f"{where}, field labels", mend="right is true")
    marks = [(1 if label else -1) if isinstance(label, bool) else label for label in labels]
    return [prompt, StepLabel(id=_id("s", prompt.id, texts, marks), prompt_id=prompt.id, steps=texts, labels=marks)]


def _prompt_completion(row: Row, where: str) -> list[Item]:
    prompt = prompt_messages(row, where)
    value = row["completion"]
    if isinstance(value, str):
        answer = [{"role": "assistant", "content": check_text(value, f"{where}, field completion")}]
    else:
        answer = check_messages(value, f"{where}, field completion")
    return _demonstration(row, [*prompt, *answer], f"{where}, field completion")


def _conversation(row: Row, where: str) -> list[Item]:
    messages = check_messages(row["messages"], f"{where}, field messages")
    if messages[-1]["role"] != "assistant":
        return [_prompt(check_prompt(messages, f"{where}, field messages"), row)]
    return _demonstration(row, messages, f"{where}, field messages")


def _sharegpt(row: Row, where: str) -> list[Item]:
    place = f"{where}, field conversations"
    turns = row["conversations"]
    if not isinstance(turns, list) or not all(isinstance(t, dict) and "from" in t for t in turns):
        raise UserError("is not a list of {from, value}", where=place, mend="write ShareGPT rows, or use `messages`")
    messages = [{"role": _SHAREGPT_ROLES.get(t["from"], t["from"]), "content": t.get("value")} for t in turns]
    return _conversation({**row, "messages": messages}, place)


def _alpaca(row: Row, where: str) -> list[Item]:
    ask = check_text(row["instruction"], f"{where}, field instruction")
    more = check_text(row.get("input", ""), f"{where}, field input")
    answer = check_text(row["output"], f"{where}, field output")
    messages = [
        {"role": "user", "content": f"{ask}\n\n{more}" if more.strip() else ask},
        {"role": "assistant", "content": answer},
    ]
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": check_text(row["system"], f"{where}, field system")})
    return _demonstration(row, messages, where)


def _question_answer(row: Row, where: str) -> list[Item]:
    return _alpaca({"instruction": row["question"], "output": row["answer"]}, where)


def _prompt_only(row: Row, where: str) -> list[Item]:
    return [_prompt(prompt_messages(row, where), row)]


def _text(row: Row, where: str) -> list[Item]:
    text = check_text(row["text"], f"{where}, field text")
    if not text.strip():
        raise DegenerateRow("the text is empty", where=f"{where}, field text", mend="take the row out")
    return [text]


# The first format whose fields are all there is taken, so those with more fields come first.
FORMATS: dict[str, tuple[tuple[str, ...], Callable[[Row, str], list[Item]]]] = {
    "ranking": (("prompt", "completions", "ranks"), _ranking),
    "stepwise": (("prompt", "completions", "labels"), _stepwise),
    "preference": (("chosen", "rejected"), _preference),
    "unpaired": (("prompt", "completion", "label"), _unpaired),
    "prompt-completion": (("prompt", "completion"), _prompt_completion),
    "messages": (("messages",), _conversation),
    "sharegpt": (("conversations",), _sharegpt),
    "alpaca": (("instruction", "output"), _alpaca),
    "question-answer": (("question", "answer"), _question_answer),
    "prompt": (("prompt",), _prompt_only),
    "text": (("text",), _text),
}


# A row with the one field and not the other has lost something; it is not a row of a simpler format.
_PARTNERS = {
    "chosen": ("rejected",),
    "rejected": ("chosen",),
    "completions": ("ranks", "labels"),
    "ranks": ("completions",),
    "instruction": ("output",),
}


# --- prompts and answers -------------------------------------------------------------------------------------------


def split_pair(row: Row, where: str) -> tuple[list[Message], str, str]:
    """(prompt, chosen answer, rejected answer) of a preference row, whatever way it writes the prompt."""
    chosen, rejected = row["chosen"], row["rejected"]
    explicit = prompt_messages(row, where) if "prompt" in row else None
    if isinstance(chosen, str) and isinstance(rejected, str):
        chosen = check_text(chosen, f"{where}, field chosen")
        rejected = check_text(rejected, f"{where}, field rejected")
        if explicit is not None and not is_dialogue(chosen):
            return explicit, chosen, rejected
        if not is_dialogue(chosen):
            return _common_text(chosen, rejected, where)
        left, right = dialogue(chosen, f"{where}, field chosen"), dialogue(rejected, f"{where}, field rejected")
    else:
        left = check_messages(chosen, f"{where}, field chosen")
        right = check_messages(rejected, f"{where}, field rejected")
        if explicit is not None and left[0]["role"] == right[0]["role"] == "assistant":
            return explicit, _answer(left, f"{where}, field chosen"), _answer(right, f"{where}, field rejected")
    return _common_turns(left, right, where)


def _common_turns(left: list[Message], right: list[Message], where: str) -> tuple[list[Message], str, str]:
    """Two whole dialogues that differ in the assistant's last turn only."""
    for messages, name in ((left, "chosen"), (right, "rejected")):
        if messages[-1]["role"] != "assistant":
            raise DegenerateRow(
                "does not end with the assistant's turn", where=f"{where}, field {name}", mend="take the row out"
            )
    if left[:-1] != right[:-1]:
        raise DegenerateRow("the two dialogues differ before their last answer", where=where, mend="take the row out")
    if len(left) == 1:
        raise UserError("has no prompt", where=where, mend="add the field `prompt`: text or a list of messages")
    return check_prompt(left[:-1], where), left[-1]["content"], right[-1]["content"]


def _common_text(chosen: str, rejected: str, where: str) -> tuple[list[Message], str, str]:
    """Two texts with an implicit prompt: what they have in common, up to a word's end (as TRL does)."""
    if chosen == rejected:
        raise DegenerateRow("chosen and rejected are equal", where=where, mend="take the row out, or give two answers")
    common = 0
    while common < min(len(chosen), len(rejected)) and chosen[common] == rejected[common]:
        common += 1
    while common and not chosen[common - 1].isspace() and not chosen[common : common + 1].isspace():
        common -= 1
    if common and chosen[common - 1] == " ":
        common -= 1
    if not chosen[:common].strip():
        raise UserError("has no prompt", where=where, mend="add the field `prompt`: text or a list of messages")
    return [{"role": "user", "content": chosen[:common]}], chosen[common:], rejected[common:]


def prompt_messages(row: Row, where: str) -> list[Message]:
    """The row's `prompt` (text, hh-rlhf dialogue or messages) as messages that end with the user's."""
    place = f"{where}, field prompt"
    value = row.get("prompt")
    if value is None:
        raise UserError("has no prompt", where=where, mend="add the field `prompt`: text or a list of messages")
    if isinstance(value, list):
        return check_prompt(check_messages(value, place), place)
    text = check_text(value, place)
    if not text.strip():
        raise DegenerateRow("the prompt is empty", where=place, mend="take the row out")
    if not is_dialogue(text):
        return [{"role": "user", "content": text}]
    messages = dialogue(text, place)
    if messages[-1] == {"role": "assistant", "content": ""}:  # "…\n\nAssistant:" asks for the answer
        messages.pop()
    return check_prompt(messages, place)


def is_dialogue(text: str) -> bool:
    """Whether the text is a dialogue as hh-rlhf writes it."""
    return text.startswith(("\n\nHuman:", "Human:", "\nHuman:"))


def dialogue(text: str, where: str) -> list[Message]:
    r"""Messages of "\n\nHuman: …\n\nAssistant: …" text. Turns of one speaker in a row become one."""
    parts = _TURN.split("\n\n" + text.lstrip("\n"))
    messages: list[Message] = []
    for name, said in zip(parts[1::2], parts[2::2], strict=True):
        role, content = _HH_ROLES[name], check_text(said.strip(), where)
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = f"{messages[-1]['content']}\n\n{content}".strip()
        else:
            messages.append({"role": role, "content": content})
    return messages


def _answer(value: Any, where: str) -> str:
    """An answer given as text, as a message or as a list of one assistant message."""
    if isinstance(value, str):
        return check_text(value, where)
    messages = check_messages([value] if isinstance(value, dict) else value, where)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        roles = ", ".join(m["role"] for m in messages)
        raise UserError(f"has the turns {roles}, not one answer", where=where, mend="give one assistant message")
    return messages[0]["content"]


# --- records -------------------------------------------------------------------------------------------------------


def prompt_id(messages: list[Message]) -> str:
    """The id of a prompt without one: a hash of its messages."""
    return _id("p", messages)


def completion_id(prompt: str, text: str) -> str:
    """The id of a completion without one: a hash of the prompt's id and the text."""
    return _id("c", prompt, text)


def _id(letter: str, *content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return f"{letter}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _prompt(messages: list[Message], row: Row) -> Prompt:
    optional = {key: row[key] for key in ("category", "source", "split") if isinstance(row.get(key), str)}
    return Prompt(id=prompt_id(messages), messages=messages, **optional)


def _demonstration(row: Row, messages: list[Message], where: str) -> list[Item]:
    check_demonstration(messages, where)
    prompt = _prompt(messages[:-1], row)
    labeler = row["labeler"] if isinstance(row.get("labeler"), str) else None
    one = Demonstration(id=_id("d", messages), prompt_id=prompt.id, messages=messages, labeler=labeler)
    return [prompt, one]


def _comparison(
    row: Row,
    messages: list[Message],
    texts: list[str],
    ranks: list[int | None],
    where: str,
    *,
    all_bad: bool | None = None,
) -> list[Item]:
    prompt = _prompt(messages, row)
    extras: Row = {
        key: row[key]
        for key in ("rest_below", "labeler", "created", "seconds", "ratings", "note", "weight")
        if key in row
    }
    ids = [completion_id(prompt.id, text) for text in texts]
    comparison: Row = {
        "schema": Comparison.schema_name,
        "id": _id("r", prompt.id, texts, ranks, all_bad, extras.get("labeler")),
        "prompt_id": prompt.id,
        "completion_ids": ids,
        "ranks": ranks,
        "messages": messages,
        "completions": texts,
        "all_bad": all_bad,
        "category": prompt.category,
        **extras,
    }
    return [prompt, record_of(comparison, where)]
