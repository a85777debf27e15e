"""Records turned into rows of the formats that others read, and whole files from one format to another.

A record that a format has no place for (a tie in TRL's pairs, a system message in hh-rlhf) is counted or refused,
never lost in silence.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from tutelage.data.formats import data_files, extension_of, write_rows
from tutelage.data.sources import Split, load_data, read_file
from tutelage.errors import UserError, did_you_mean
from tutelage.records import Comparison, Dataset, Demonstration, Message, Prompt, Record, StepLabel

Row = dict[str, Any]


@dataclass(frozen=True)
class Exported:
    """What was written: rows, and items that the format has no place for (ties, other kinds)."""

    path: str
    format: str
    rows: int
    left_out: int


def preference_rows(comparison: Comparison, *, conversational: bool = True) -> list[Row]:
    """TRL `prompt/chosen/rejected`: one row for each pair of which one is ranked better (ties have none)."""
    texts, prompt = _texts(comparison), _prompt(comparison.messages or [], conversational)
    rows = []
    for a, b in combinations(range(len(texts)), 2):
        first, second = comparison.ranks[a], comparison.ranks[b]
        if first is None and second is None:
            continue
        if first is None or second is None:
            if not comparison.rest_below:
                continue
            better, worse = (a, b) if second is None else (b, a)
        elif first == second:
            continue
        else:
            better, worse = (a, b) if first < second else (b, a)
        rows.append(
            {
                "prompt": prompt,
                "chosen": _answer(texts[better], conversational),
                "rejected": _answer(texts[worse], conversational),
            }
        )
    return rows


def ranking_rows(comparison: Comparison, *, conversational: bool = True) -> list[Row]:
    """`prompt/completions/ranks`, the K-way form: lossless for texts, ranks and ties."""
    row: Row = {
        "prompt": _prompt(comparison.messages or [], conversational),
        "completions": _texts(comparison),
        "ranks": comparison.ranks,
    }
    for name in ("rest_below", "labeler", "created", "seconds", "ratings", "note", "weight", "category"):
        if getattr(comparison, name) is not None:
            row[name] = getattr(comparison, name)
    return [row] if len(comparison.ranks) > 1 else []


def unpaired_rows(comparison: Comparison, *, conversational: bool = True) -> list[Row]:
    """TRL `prompt/completion/label` (KTO): a single completion's label; of a ranking the best and the worst."""
    texts, prompt = _texts(comparison), _prompt(comparison.messages or [], conversational)
    if len(texts) == 1:
        labels = {0: not comparison.all_bad}
    else:
        worst = max(rank for rank in comparison.ranks if rank is not None)
        if worst == 1 and not comparison.all_bad:
            return []  # all tie: neither good nor bad is said
        ends = [i for i, rank in enumerate(comparison.ranks) if rank in (1, worst)]
        labels = {i: comparison.ranks[i] == 1 and not comparison.all_bad for i in ends}
    answers = {i: _answer(texts[i], conversational) for i in labels}
    return [{"prompt": prompt, "completion": answers[i], "label": label} for i, label in labels.items()]


def dialogue_rows(comparison: Comparison, *, conversational: bool = True) -> list[Row]:
    """hh-rlhf `chosen/rejected`: whole dialogues as text."""
    head = dialogue_text(comparison.messages or [])
    pairs = preference_rows(comparison)
    return [
        {key: f"{head}\n\nAssistant: {pair[key][0]['content']}" for key in ("chosen", "rejected")} for pair in pairs
    ]


def dialogue_text(messages: list[Message]) -> str:
    r"""Messages as "\n\nHuman: …\n\nAssistant: …"; UserError for a system message, which has no place there."""
    names = {"user": "Human", "assistant": "Assistant"}
    for message in messages:
        if message["role"] not in names:
            raise UserError("hh-rlhf dialogues hold no system message", mend="export as `preference` instead")
    return "".join(f"\n\n{names[m['role']]}: {m['content']}" for m in messages)


def demonstration_rows(demonstration: Demonstration, *, conversational: bool = True) -> list[Row]:
    """TRL `prompt/completion`."""
    *prompt, answer = demonstration.messages
    return [{"prompt": _prompt(prompt, conversational), "completion": _answer(answer["content"], conversational)}]


def message_rows(demonstration: Demonstration, *, conversational: bool = True) -> list[Row]:
    """TRL `messages`: always conversational."""
    return [{"messages": demonstration.messages}]


def prompt_rows(prompt: Prompt, *, conversational: bool = True) -> list[Row]:
    """TRL `prompt`, with the category and source where there are any."""
    extra = {key: getattr(prompt, key) for key in ("category", "source", "split") if getattr(prompt, key) is not None}
    return [{"prompt": _prompt(prompt.messages, conversational), **extra}]


def step_rows(label: StepLabel, prompts: dict[str, Prompt], *, conversational: bool = False) -> list[Row]:
    """TRL stepwise `prompt/completions/labels`: true and false; with a neutral step the labels stay -1, 0, 1."""
    marks: list[Any] = label.labels if 0 in label.labels else [mark == 1 for mark in label.labels]
    prompt = prompts[label.prompt_id].messages
    return [{"prompt": _prompt(prompt, not _plain(prompt)), "completions": label.steps, "labels": marks}]


# format -> (kind of record it is made of, the rows of one)
EXPORTS: dict[str, tuple[type[Record], Callable[..., list[Row]]]] = {
    "preference": (Comparison, preference_rows),
    "ranking": (Comparison, ranking_rows),
    "unpaired": (Comparison, unpaired_rows),
    "hh-rlhf": (Comparison, dialogue_rows),
    "prompt-completion": (Demonstration, demonstration_rows),
    "messages": (Demonstration, message_rows),
    "prompt": (Prompt, prompt_rows),
    "stepwise": (StepLabel, step_rows),
}


def import_data(spec: str, out: str) -> Exported:
    """Read anything `load_data` reads and write our own records, each with its `schema`, as JSON Lines."""
    records = [item for file in data_files(spec) for _, item in read_file(file).items]
    unique = {(r.schema_name, r.id): r for r in records if isinstance(r, Record)}
    if not unique:
        raise UserError("holds documents only, no records", where=spec, mend="use it as --data or --ptx-data as it is")
    rows = write_rows(out, (record.to_json() for record in unique.values()))
    return Exported(str(out), "tutelage", rows, len(records) - len(unique))


def export_data(spec: str, out: str, format: str, *, conversational: bool = True, split: Split = "all") -> Exported:
    """Write a file of another format from whatever `spec` names; `left_out` counts what it has no place for."""
    if format not in EXPORTS:
        raise UserError(
            f"{format!r} is not a format we write{did_you_mean(format, list(EXPORTS))}",
            where="option --format",
            mend=f"use one of {', '.join(EXPORTS)}",
        )
    extension_of(Path(out))  # a bad name fails before the work
    left_out = 0

    def rows() -> Iterator[Row]:
        nonlocal left_out
        for made in _rows_of(spec, format, conversational, split):
            left_out += not made
            yield from made

    count = write_rows(out, rows())
    if not count:
        Path(out).unlink(missing_ok=True)
        raise UserError(f"holds nothing that {format} can express", where=spec, mend="choose another --format")
    return Exported(str(out), format, count, left_out)


def _rows_of(spec: str, format: str, conversational: bool, split: Split) -> Iterator[list[Row]]:
    kind, make = EXPORTS[format]
    if kind is StepLabel or format == "unpaired":  # load_data pairs single labels up; here they stay as they are
        found = [item for file in data_files(spec) for _, item in read_file(file).items]
        prompts = {item.id: item for item in found if isinstance(item, Prompt)}
        chosen = [item for item in found if isinstance(item, kind)]
        for item in chosen:
            yield make(item, prompts) if kind is StepLabel else make(item, conversational=conversational)
        return
    dataset: Dataset = load_data(spec, split)
    of_kind: dict[type[Record], list[Any]] = {
        Comparison: dataset.comparisons,
        Demonstration: dataset.demonstrations,
        Prompt: dataset.prompts,
    }
    for record in of_kind[kind]:
        yield make(record, conversational=conversational)


def _texts(comparison: Comparison) -> list[str]:
    if comparison.completions is None or comparison.messages is None:
        raise UserError(
            "holds ids only",
            where=f"comparison {comparison.id}",
            mend="give the folder that holds prompts and completions too",
        )
    return comparison.completions


def _plain(messages: list[Message]) -> bool:
    """Whether the prompt is one user turn, which the standard (text) form can hold."""
    return len(messages) == 1 and messages[0]["role"] == "user"


def _prompt(messages: list[Message], conversational: bool) -> list[Message] | str:
    if conversational:
        return messages
    if not _plain(messages):
        raise UserError(
            "a prompt has several turns, which plain text cannot hold",
            where="option --conversational",
            mend="export it in the conversational form",
        )
    return messages[0]["content"]


def _answer(text: str, conversational: bool) -> list[Message] | str:
    return [{"role": "assistant", "content": text}] if conversational else text
