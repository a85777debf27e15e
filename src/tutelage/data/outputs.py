"""Files of a model's outputs: what some system answered to the prompts, to be compared with others."""

from pathlib import Path
from typing import Any

from tutelage.data.formats import _id, _messages, _prompt, _string, read_rows
from tutelage.errors import UserError
from tutelage.records import Completion, Message, Prompt

TEXT_FIELDS = ("completion", "output", "response", "answer", "text")
SHAPES = "records of `tutelage sample`, or rows with prompt (or instruction) and output (or completion)"


def read_outputs(path: Path) -> dict[str, tuple[str, str]]:
    """The first answer to each prompt and how it ended ("stop", "length"), by the prompt's id and by its words."""
    found: dict[str, tuple[str, str]] = {}
    aliases: dict[str, str] = {}
    for number, row in read_rows(path):
        where = f"{path}, row {number}"
        if not isinstance(row, dict):
            raise UserError("is not an object", where=where, mend=f"give {SHAPES}")
        if row.get("schema") == Prompt.schema_name:
            aliases[row["id"]] = prompt_key(row["messages"])
        elif row.get("schema") == Completion.schema_name:
            found.setdefault(row["prompt_id"], (row["text"], row.get("finish", "stop")))
        else:
            key, text = _plain_row(row, where)
            found.setdefault(key, (text, "stop"))
    if not found:
        raise UserError("holds no outputs", where=str(path), mend=f"give {SHAPES}")
    return {**{aliases[name]: answer for name, answer in found.items() if name in aliases}, **found}


def prompt_key(messages: list[Message]) -> str:
    """What a prompt is called where it has no id of its own: a hash of its words."""
    return _id(messages)


def _plain_row(row: dict[str, Any], where: str) -> tuple[str, str]:
    if "instruction" in row and "prompt" not in row:  # AlpacaEval's name
        row = {**row, "prompt": row["instruction"]}
    messages = row.get("messages")
    if "prompt" not in row and isinstance(messages, list):  # a conversation that ends with the answer
        turns = _messages(messages, where, "messages")
        if turns[-1]["role"] == "assistant":
            return prompt_key(turns[:-1]), turns[-1]["content"]
    field = next((name for name in TEXT_FIELDS if name in row), None)
    if field is None:
        raise UserError(
            f"has no answer (it has {', '.join(row)})", where=where, mend=f"give one of: {', '.join(TEXT_FIELDS)}"
        )
    return prompt_key(_prompt(row, where)), _string(row[field], where, field)
