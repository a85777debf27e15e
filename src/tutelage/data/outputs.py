"""Files of a model's outputs: what some system answered to the prompts, to be compared with others."""

from pathlib import Path

from tutelage.data.foreign import prompt_id, prompt_messages
from tutelage.data.formats import Row, read_rows
from tutelage.data.validation import check_messages, check_text
from tutelage.errors import UserError
from tutelage.records import Completion, Prompt

TEXT_FIELDS = ("completion", "output", "response", "answer", "text")
SHAPES = "records of `tutelage sample`, or rows with prompt (or instruction) and output (or completion)"


def read_outputs(path: Path) -> dict[str, tuple[str, str]]:
    """The first answer to each prompt and how it ended ("stop", "length"), by the prompt's id and by its words."""
    found: dict[str, tuple[str, str]] = {}
    aliases: dict[str, str] = {}
    for number, row in read_rows(path):
        where = f"{path}, row {number}"
        if row.get("schema") == Prompt.schema_name:
            aliases[row["id"]] = prompt_id(row["messages"])
        elif row.get("schema") == Completion.schema_name:
            found.setdefault(row["prompt_id"], (row["text"], row.get("finish", "stop")))
        else:
            key, text = _plain_row(row, where)
            found.setdefault(key, (text, "stop"))
    if not found:
        raise UserError("holds no outputs", where=str(path), mend=f"give {SHAPES}")
    return {**{aliases[name]: answer for name, answer in found.items() if name in aliases}, **found}


def _plain_row(row: Row, where: str) -> tuple[str, str]:
    if "instruction" in row and "prompt" not in row:  # AlpacaEval's name
        row = {**row, "prompt": row["instruction"]}
    messages = row.get("messages")
    if "prompt" not in row and isinstance(messages, list):  # a conversation that ends with the answer
        turns = check_messages(messages, f"{where}, field messages")
        if turns[-1]["role"] == "assistant":
            return prompt_id(turns[:-1]), turns[-1]["content"]
    field = next((name for name in TEXT_FIELDS if name in row), None)
    if field is None:
        raise UserError(
            f"has no answer (it has {', '.join(row)})", where=where, mend=f"give one of: {', '.join(TEXT_FIELDS)}"
        )
    return prompt_id(prompt_messages(row, where)), check_text(row[field], f"{where}, field {field}")
