"""Files in and out: JSON Lines (plain or .gz), JSON, parquet, plain text; rows become records or an error that names the row."""

import gzip
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.records import RECORDS, Comparison, Dataset, Demonstration, Message, Prompt, Record, Thumb

ROLES = ("system", "user", "assistant")
SHAPES = "prompt+chosen+rejected, chosen+rejected, prompt+completions+ranks, prompt+completion(+label), messages, prompt, or text"


class Degenerate(Exception):
    """A row that is well formed but teaches nothing (equal answers, an empty one)."""


def read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(row number from 1, value) of each row of a file."""
    name = path.name
    if not path.exists():
        raise UserError("there is no such file", where=str(path), mend="check the path")
    try:
        if name.endswith(".parquet"):
            import pyarrow.parquet as parquet

            yield from enumerate(parquet.read_table(path).to_pylist(), 1)
        elif name.endswith((".jsonl", ".jsonl.gz", ".json")):
            text = (gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()).decode(
                "utf-8-sig"
            )
            if name.endswith(".json") and text.lstrip().startswith("["):
                yield from enumerate(json.loads(text), 1)
                return
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    yield number, _parse(path, number, line)
        else:
            raise UserError(
                "is of no known kind", where=str(path), mend="give .jsonl, .jsonl.gz, .json, .parquet or .txt"
            )
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text (byte {error.start})", where=str(path), mend="save it as UTF-8") from error
    except (OSError, EOFError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot be read ({error})", where=str(path), mend="check that the file is whole") from error


def _parse(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise UserError(
            f"is not JSON ({error})", where=f"{path}, row {number}", mend="one JSON object a line; is the file cut off?"
        ) from error


def read_dataset(path: Path) -> tuple[Dataset, list[str]]:
    """All records of a file, and warnings about rows that were left out."""
    data, warnings, dropped, rows = Dataset(), [], [], 0
    for number, row in read_rows(path):
        rows += 1
        where = f"{path}, row {number}"
        if not isinstance(row, dict):
            raise UserError(f"is {_kind(row)}, not an object", where=where, mend=f"give an object with {SHAPES}")
        try:
            _add(data, row, where)
        except Degenerate as reason:
            dropped.append((where, str(reason)))
    if rows == 0:
        raise UserError("is empty", where=str(path), mend=f"give rows with {SHAPES}")
    if dropped and (rows < 100 or len(dropped) > 0.1 * rows):
        raise UserError(dropped[0][1], where=dropped[0][0], mend="mend or remove the row")
    if dropped:
        warnings.append(
            f"{path.name}: {len(dropped)} of {rows} rows left out, the first: {dropped[0][0]}: {dropped[0][1]}"
        )
    return data, warnings


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    from tutelage.runs import write_text

    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(r.to_json(), ensure_ascii=False) + "\n" for r in records))


def _add(data: Dataset, row: dict[str, Any], where: str) -> None:
    schema = row.get("schema")
    if schema is not None:
        _add_record(data, row, where)
    elif "ranks" in row or "completions" in row:
        messages = _prompt(row, where)
        data.comparisons.append(_comparison(messages, _texts(row, where), row.get("ranks"), where))
    elif "chosen" in row or "rejected" in row:
        _add_pair(data, row, where)
    elif "messages" in row:
        messages = _messages(row["messages"], where, "messages")
        if messages[-1]["role"] == "assistant":
            data.demonstrations.append(_demonstration(messages, where))
        else:
            data.prompts.append(Prompt(id=_id(messages), messages=messages))
    elif "completion" in row and "label" in row:
        data.thumbs.append(_thumb(row, where))
    elif "completion" in row:
        messages = [*_prompt(row, where), _answer(row["completion"], where, "completion")]
        data.demonstrations.append(_demonstration(messages, where))
    elif "prompt" in row:
        messages = _prompt(row, where)
        data.prompts.append(Prompt(id=_id(messages), messages=messages))
    elif "text" in row:
        data.texts.append(_string(row["text"], where, "text"))
    else:
        raise UserError(
            f"has none of the known fields (it has {', '.join(map(str, row)) or 'none'})",
            where=where,
            mend=f"give {SHAPES}",
        )


def _add_record(data: Dataset, row: dict[str, Any], where: str) -> None:
    cls = RECORDS.get(str(row["schema"]))
    if cls is None:
        raise UserError(
            f"unknown schema {row['schema']!r}",
            where=f"{where}, field schema",
            mend=f"use one of: {', '.join(RECORDS)}",
        )
    if cls is Comparison and row.get("messages") and row.get("completions"):
        messages = _messages(row["messages"], where, "messages")
        if row.get("rest_below"):
            row = {**row, "ranks": _rest_ranked(row.get("ranks"))}
        checked = _comparison(messages, _texts(row, where), row.get("ranks"), where)
        record: Record = Comparison.from_json(
            {**row, "messages": messages, "ranks": checked.ranks, "completions": checked.completions}
        )
    else:
        try:
            record = cls.from_json(row)
        except TypeError as error:
            raise UserError(
                f"lacks a field ({error})", where=where, mend=f"see {cls.__name__} in the records' reference"
            ) from error
    places = ((Comparison, data.comparisons), (Demonstration, data.demonstrations), (Prompt, data.prompts))
    for kind, place in (*places, (Thumb, data.thumbs)):
        if isinstance(record, kind):
            place.append(record)  # type: ignore[arg-type]


def _rest_ranked(ranks: Any) -> Any:
    """Those that the labeler left below the ranked ones tie on a last rank: a loss then learns that they are worse."""
    if not isinstance(ranks, list) or not all(rank is None or isinstance(rank, int) for rank in ranks):
        return ranks
    last = max((rank for rank in ranks if rank is not None), default=0) + 1
    return [last if rank is None else rank for rank in ranks]


def _add_pair(data: Dataset, row: dict[str, Any], where: str) -> None:
    for key in ("chosen", "rejected"):
        if key not in row:
            raise UserError(
                f"has no field {key}", where=f"{where}, field {key}", mend="a pair needs chosen and rejected"
            )
    if "prompt" in row:
        messages = _prompt(row, where)
        answers = [_answer(row[key], where, key) for key in ("chosen", "rejected")]
    else:
        dialogs = [_dialog(row[key], where, key) for key in ("chosen", "rejected")]
        if any(d[-1]["role"] != "assistant" for d in dialogs):
            raise Degenerate("the dialog does not end with the assistant's answer")
        if dialogs[0][:-1] != dialogs[1][:-1]:
            raise Degenerate("chosen and rejected differ before the last turn")
        messages, answers = dialogs[0][:-1], [d[-1] for d in dialogs]
    chosen, rejected = (a["content"] for a in answers)
    if not chosen.strip() or not rejected.strip():
        raise Degenerate(f"field {'chosen' if not chosen.strip() else 'rejected'} is empty")
    data.comparisons.append(_comparison(messages, [chosen, rejected], [1, 2], where))


def _comparison(messages: list[Message], texts: list[str], ranks: Any, where: str) -> Comparison:
    k = len(texts)
    if not isinstance(ranks, list) or len(ranks) != k:
        count = len(ranks) if isinstance(ranks, list) else _kind(ranks)
        raise UserError(
            f"ranks has {count} entries for {k} completions",
            where=f"{where}, field ranks",
            mend="give one rank, or null, for each",
        )
    if k < 2:
        raise UserError("a ranking needs two completions", where=f"{where}, field completions", mend="give two or more")
    for rank in ranks:
        if rank is not None and (not isinstance(rank, int) or isinstance(rank, bool) or rank < 1):
            raise UserError(
                f"{rank!r} is not a rank", where=f"{where}, field ranks", mend="ranks are 1 (best), 2, … or null"
            )
    given = sorted({r for r in ranks if r is not None})
    if sum(r is not None for r in ranks) < 2:
        raise UserError("fewer than two completions are ranked", where=f"{where}, field ranks", mend="rank two or more")
    if given != list(range(1, len(given) + 1)):
        raise UserError(
            f"ranks {ranks} leave a gap",
            where=f"{where}, field ranks",
            mend="use 1, 2, 3 without gaps; equal ranks tie",
        )
    for i in range(k):
        for j in range(i):
            if texts[i] == texts[j] and ranks[i] and ranks[j] and ranks[i] != ranks[j]:
                raise Degenerate("chosen and rejected are the same text")
    name = _id(messages)
    ids = [f"{name}-{hashlib.blake2b(t.encode(), digest_size=4).hexdigest()}" for t in texts]
    number = hashlib.blake2b(repr((name, texts, ranks)).encode(), digest_size=6).hexdigest()
    return Comparison(
        id=f"c-{number}", prompt_id=name, completion_ids=ids, ranks=ranks, messages=messages, completions=texts
    )


def _demonstration(messages: list[Message], where: str) -> Demonstration:
    if not messages[-1]["content"].strip():
        raise Degenerate("the answer is empty")
    if not any(m["role"] == "user" for m in messages):
        raise UserError("has no user turn", where=where, mend="a conversation begins with what the user asks")
    return Demonstration(id=f"d-{_id(messages)}", prompt_id=_id(messages[:-1]), messages=messages)


def _thumb(row: dict[str, Any], where: str) -> Thumb:
    """TRL's unpaired rows: prompt, completion, label."""
    messages, text = _prompt(row, where), _answer(row["completion"], where, "completion")["content"]
    if row["label"] not in (True, False):  # 1 and 0 too
        raise UserError(
            f"label is {_kind(row['label'])}", where=f"{where}, field label", mend="give true (good) or false (bad)"
        )
    if not text.strip():
        raise Degenerate("the answer is empty")
    number = hashlib.blake2b(repr((messages, text, row["label"])).encode(), digest_size=6).hexdigest()
    return Thumb(
        id=f"t-{number}", prompt_id=_id(messages), messages=messages, completion=text, label=bool(row["label"])
    )


def _id(messages: list[Message]) -> str:
    return "p-" + hashlib.blake2b(json.dumps(messages, sort_keys=True).encode(), digest_size=6).hexdigest()


def _prompt(row: dict[str, Any], where: str) -> list[Message]:
    if "prompt" not in row and "messages" not in row:
        raise UserError("has no prompt", where=f"{where}, field prompt", mend="give what the user asks")
    value = row.get("prompt", row.get("messages"))
    if isinstance(value, str) and "\n\nHuman:" in value:
        value = _hh(value)
    if isinstance(value, str):
        if not value.strip():
            raise UserError("the prompt is empty", where=f"{where}, field prompt", mend="give what the user asks")
        return [{"role": "user", "content": value}]
    messages = _messages(value, where, "prompt")
    if messages[-1]["role"] != "user":
        raise UserError(
            "the prompt does not end with the user's turn",
            where=f"{where}, field prompt",
            mend="leave the assistant's turn to the answer",
        )
    return messages


def _answer(value: Any, where: str, field: str) -> Message:
    if isinstance(value, list):
        messages = _messages(value, where, field)
        if messages[-1]["role"] != "assistant":
            raise UserError(
                "does not end with the assistant's turn",
                where=f"{where}, field {field}",
                mend="give the assistant's answer",
            )
        return messages[-1]
    return {"role": "assistant", "content": _string(value, where, field)}


def _texts(row: dict[str, Any], where: str) -> list[str]:
    value = row.get("completions")
    if not isinstance(value, list):
        raise UserError(
            f"completions is {_kind(value)}, not a list",
            where=f"{where}, field completions",
            mend="give a list of answers",
        )
    return [_answer(v, where, "completions")["content"] for v in value]


def _dialog(value: Any, where: str, field: str) -> list[Message]:
    if isinstance(value, str):
        if "\n\nHuman:" not in value:
            raise UserError(
                "there is no prompt",
                where=f"{where}, field {field}",
                mend="add a field prompt, or write the dialog as \\n\\nHuman: … \\n\\nAssistant: …",
            )
        return _hh(value)
    return _messages(value, where, field)


def _hh(text: str) -> list[Message]:
    """hh-rlhf's dialogs: `\\n\\nHuman: … \\n\\nAssistant: …`."""
    messages: list[Message] = []
    for turn in text.split("\n\nHuman:")[1:]:
        user, *answers = turn.split("\n\nAssistant:")
        messages.append({"role": "user", "content": user.strip()})
        messages += [{"role": "assistant", "content": a.strip()} for a in answers]
    return messages


def _messages(value: Any, where: str, field: str) -> list[Message]:
    place = f"{where}, field {field}"
    if not isinstance(value, list) or not value:
        raise UserError(
            f"is {_kind(value)}, not a list of messages", where=place, mend='give [{"role": "user", "content": "…"}]'
        )
    messages = []
    for message in value:
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            raise UserError("a message lacks role or content", where=place, mend='give {"role": …, "content": …}')
        if message["role"] not in ROLES:
            raise UserError(f"unknown role {message['role']!r}", where=place, mend=f"use one of: {', '.join(ROLES)}")
        messages.append({"role": message["role"], "content": _string(message["content"], where, field)})
    return messages


def _string(value: Any, where: str, field: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"is {_kind(value)}, not text", where=f"{where}, field {field}", mend="give text")
    return value


def _kind(value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    names = {
        type(None): "null or missing",
        bool: "true/false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
