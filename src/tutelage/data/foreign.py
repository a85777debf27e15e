"""Rows of the formats people have, turned into records: TRL's, hh-rlhf's, K-way rankings, alpaca and ShareGPT.

The exports of annotation tools are in `tools`. Ids come from the content, so that the same prompt or answer has the
same id in every file.
"""

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from tutelage.data.formats import Row, named
from tutelage.data.kinds import kind_of
from tutelage.data.validation import (
    DegenerateRow,
    check_demonstration,
    check_messages,
    check_prompt,
    check_ranks,
    check_text,
    record_of,
)
from tutelage.errors import UserError
from tutelage.records import Comparison, Completion, Demonstration, Message, Prompt, Record, StepLabel, Thumb
from tutelage.solutions import final_answer

Item = Record | str  # a record, or a plain document
Reader = Callable[[Row, str], list[Item]]

_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}
_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


# --- the readers, one a format -------------------------------------------------------------------------------------


def preference(row: Row, where: str) -> list[Item]:
    prompt, chosen, rejected = split_pair(row, where)
    answers = {"chosen": chosen, "rejected": rejected}
    for name, text in answers.items():
        if not text.strip():
            raise DegenerateRow("the answer is empty", where=f"{where}, field {name}", mend="take the row out")
    if chosen == rejected:
        raise DegenerateRow("chosen and rejected are equal", where=where, mend="take the row out, or give two answers")
    return comparison(row, prompt, [chosen, rejected], [1, 2], where)


def ranking(row: Row, where: str) -> list[Item]:
    prompt = prompt_messages(row, where)
    place = f"{where}, field completions"
    if not isinstance(row["completions"], list):
        raise UserError(f"is {named(row['completions'])}, not a list", where=place, mend="list at least two answers")
    texts = [answer_text(value, f"{place}, entry {i}") for i, value in enumerate(row["completions"], start=1)]
    ranks = check_ranks(row["ranks"], len(texts), f"{where}, field ranks", rest_below=row.get("rest_below") is True)
    if len(texts) < 2:
        raise UserError(f"compares {len(texts)} completions", where=place, mend="list at least two answers")
    return comparison(row, prompt, texts, ranks, where)


def unranked(row: Row, where: str) -> list[Item]:
    """A prompt and its answers, of which nobody has said yet which is better."""
    prompt = prompt_of(prompt_messages(row, where), row)
    place = f"{where}, field completions"
    if not isinstance(row["completions"], list) or not row["completions"]:
        raise UserError(f"is {named(row['completions'])}, not a list of answers", where=place, mend="list the answers")
    texts = [answer_text(value, f"{place}, entry {i}") for i, value in enumerate(row["completions"], start=1)]
    model = row["model"] if isinstance(row.get("model"), str) else None
    made = [Completion(id=completion_id(prompt.id, t), prompt_id=prompt.id, text=t, model=model) for t in texts]
    return [prompt, *made]


def unpaired(row: Row, where: str) -> list[Item]:
    if row["label"] not in (True, False):  # 1 and 0 too
        raise UserError(
            f"is {row['label']!r}, not true or false", where=f"{where}, field label", mend="use true or false"
        )
    prompt = prompt_of(prompt_messages(row, where), row)
    text = answer_text(row["completion"], f"{where}, field completion")
    if not text.strip():
        raise DegenerateRow("the answer is empty", where=f"{where}, field completion", mend="take the row out")
    who = labeler_of(row)
    label = bool(row["label"])
    number = _id("t", prompt.id, text, label, who.get("labeler"))
    return [
        prompt,
        Thumb(id=number, prompt_id=prompt.id, messages=prompt.messages, completion=text, label=label, **who),
    ]


def stepwise(row: Row, where: str) -> list[Item]:
    prompt = prompt_of(prompt_messages(row, where), row)
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
    if not texts:
        raise DegenerateRow("has no step", where=where, mend="take the row out")
    if not all(text.strip() for text in texts):
        raise DegenerateRow(
            "a step is empty", where=f"{where}, field completions", mend="take the step and its label out"
        )
    who = labeler_of(row)
    more: Row = {name: row[name] for name in ("values", "outcome", "solution") if name in row}
    number = _id("s", prompt.id, texts, marks, who.get("labeler"), *([more] if more else []))
    record = {"schema": StepLabel.schema_name, "id": number, "prompt_id": prompt.id, "steps": texts, "labels": marks}
    return [prompt, record_of({**record, **who, **more}, where)]


def prompt_completion(row: Row, where: str) -> list[Item]:
    prompt = prompt_messages(row, where)
    value = row["completion"]
    if isinstance(value, str):
        answer = [{"role": "assistant", "content": check_text(value, f"{where}, field completion")}]
    else:
        answer = check_messages(value, f"{where}, field completion")
    return demonstration(row, [*prompt, *answer], f"{where}, field completion")


def conversation(row: Row, where: str) -> list[Item]:
    messages = check_messages(row["messages"], f"{where}, field messages")
    if messages[-1]["role"] != "assistant":
        return [prompt_of(check_prompt(messages, f"{where}, field messages"), row)]
    return demonstration(row, messages, f"{where}, field messages")


def sharegpt(row: Row, where: str) -> list[Item]:
    place = f"{where}, field conversations"
    turns = row["conversations"]
    if not isinstance(turns, list) or not all(isinstance(t, dict) and "from" in t for t in turns):
        raise UserError("is not a list of {from, value}", where=place, mend="write ShareGPT rows, or use `messages`")
    messages = [{"role": _SHAREGPT_ROLES.get(t["from"], t["from"]), "content": t.get("value")} for t in turns]
    return conversation({**row, "messages": messages}, place)


def alpaca(row: Row, where: str) -> list[Item]:
    ask = check_text(row["instruction"], f"{where}, field instruction")
    more = check_text(row.get("input", ""), f"{where}, field input")
    answer = check_text(row["output"], f"{where}, field output")
    messages = [
        {"role": "user", "content": f"{ask}\n\n{more}" if more.strip() else ask},
        {"role": "assistant", "content": answer},
    ]
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": check_text(row["system"], f"{where}, field system")})
    return demonstration(row, messages, where)


def question_answer(row: Row, where: str) -> list[Item]:
    return alpaca({**row, "instruction": row["question"], "output": row["answer"]}, where)


def prompt_only(row: Row, where: str) -> list[Item]:
    return [prompt_of(prompt_messages(row, where), row)]


def text(row: Row, where: str) -> list[Item]:
    text = check_text(row["text"], f"{where}, field text")
    if not text.strip():
        raise DegenerateRow("the text is empty", where=f"{where}, field text", mend="take the row out")
    return [text]


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
        if not is_dialogue(rejected):
            what, mend = "is no dialogue, but chosen is one", "take the row out, or write both alike"
            raise DegenerateRow(what, where=f"{where}, field rejected", mend=mend)
        left, right = dialogue(chosen, f"{where}, field chosen"), dialogue(rejected, f"{where}, field rejected")
    else:
        left = check_messages(chosen, f"{where}, field chosen")
        right = check_messages(rejected, f"{where}, field rejected")
        if explicit is not None and left[0]["role"] == right[0]["role"] == "assistant":
            return explicit, answer_text(left, f"{where}, field chosen"), answer_text(right, f"{where}, field rejected")
    prompt, *answers = _common_turns(left, right, where)
    said = {turn["content"].strip() for turn in prompt}
    if any(turn["role"] == "user" and turn["content"].strip() not in said for turn in explicit or []):
        what, mend = "is not the prompt of chosen and rejected", "take the row out, or the field"
        raise DegenerateRow(what, where=f"{where}, field prompt", mend=mend)
    return prompt, answers[0], answers[1]


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


def answer_text(value: Any, where: str) -> str:
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
    """The id of a prompt without one: a hash of its messages. The split of a file's prompts hangs on it."""
    return "p-" + hashlib.blake2b(json.dumps(messages, sort_keys=True).encode(), digest_size=6).hexdigest()


def completion_id(prompt: str, text: str) -> str:
    """The id of a completion without one: its prompt's, and a hash of the text."""
    return f"{prompt}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def _id(letter: str, *content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return f"{letter}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"


def prompt_of(messages: list[Message], row: Row) -> Prompt:
    """The prompt's record, with what the row says of it."""
    optional = {key: row[key] for key in ("category", "source", "user_id", "split") if isinstance(row.get(key), str)}
    if kind := kind_of(row):
        optional["kind"] = kind
    answer = row.get("answer")
    if isinstance(answer, str | int | float) and not isinstance(answer, bool):  # of a problem: 18, or a text ending so
        found = (
            final_answer(f"#### {answer}") if not isinstance(answer, str) else final_answer(answer) or _number(answer)
        )
        optional |= {"answer": found} if found else {}
    return Prompt(id=prompt_id(messages), messages=messages, **optional)


def _number(text: str) -> str | None:
    """The text, if it is a number and nothing else."""
    return final_answer(f"#### {text}") if re.fullmatch(r"\s*\$?-?[\d,]*\.?\d+\s*", text) else None


def labeler_of(row: Row) -> dict[str, str]:
    """Who labeled or wrote, and when, where the row says it."""
    return {key: row[key] for key in ("labeler", "created") if isinstance(row.get(key), str)}


def demonstration(row: Row, messages: list[Message], where: str) -> list[Item]:
    check_demonstration(messages, where)
    prompt = prompt_of(messages[:-1], row)
    who = labeler_of(row)
    number = _id("d", messages, who.get("labeler"))
    return [prompt, Demonstration(id=number, prompt_id=prompt.id, messages=messages, **who)]


def comparison(
    row: Row,
    messages: list[Message],
    texts: list[str],
    ranks: list[int | None],
    where: str,
    *,
    all_bad: bool | None = None,
) -> list[Item]:
    """The prompt's and the comparison's records, with what the row says of the labeler."""
    prompt = prompt_of(messages, row)
    extras: Row = {
        key: row[key]
        for key in ("rest_below", "labeler", "created", "seconds", "ratings", "flags", "note", "weight", "probability")
        if key in row
    }
    ids = [completion_id(prompt.id, text) for text in texts]
    record: Row = {
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
    return [prompt, record_of(record, where)]
