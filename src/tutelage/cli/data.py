"""`tutelage data check|import|export|stats`: files of feedback, in and out."""

import json as jsonlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from tutelage.cli.options import parse_words
from tutelage.errors import UserError, did_you_mean

File = Annotated[str, tyro.conf.Positional]


@dataclass(kw_only=True)
class CheckOptions:
    """Say what a file or folder holds and what is wrong with it. Exit status 2 where training would refuse it."""

    data: File
    """The file or folder."""
    against: str | None = None
    """Other data that must share no prompt with it, such as the test set."""
    model: str | None = None
    """A model's folder: check lengths, end token and chat template with its tokenizer."""
    max_length: int = 1024
    """Longest sequence in tokens that training will see (with --model)."""
    json: bool = False
    """Print one JSON object last."""


@dataclass(kw_only=True)
class StatsOptions:
    """The paper's tables of its data (1 and 6 to 11), made of a file or folder."""

    data: File
    """The file or folder."""
    model: str | None = None
    """A model's folder: count tokens of its tokenizer in place of words."""
    chart: str | None = None
    """An .svg file to draw the tables into, as bars and boxes."""
    json: bool = False
    """Print one JSON object last."""


@dataclass(kw_only=True)
class ImportOptions:
    """Turn a file or folder of any format that is read into records. With a bad row nothing is written."""

    source: File
    """The file or folder to read."""
    out: str
    """The file to write: .jsonl, .jsonl.gz, .json or .parquet."""
    skip_bad: bool = False
    """Import the sound rows, and list the others."""
    json: bool = False
    """Print one JSON object last."""


@dataclass(kw_only=True)
class ExportOptions:
    """Write a file or folder in a format that others read, and a dataset card with it."""

    data: File
    """The file or folder to read."""
    to: str
    """trl-preference, trl-sft, trl-messages, trl-unpaired, trl-stepwise, trl-prompt, hh-rlhf or ranking."""
    out: str
    """The file to write: .jsonl, .jsonl.gz, .json or .parquet; or, without an ending, a folder as `datasets` saves one."""
    plain: bool = False
    """Text in place of messages (TRL's standard form); single turns only."""
    split: str | None = None
    """Only train, tune or report."""
    json: bool = False
    """Print one JSON object last."""


ACTIONS: dict[str, tuple[type[Any], str]] = {
    "check": (CheckOptions, "what a file holds and what is wrong with it"),
    "stats": (StatsOptions, "use cases, lengths and customers, as the paper's tables"),
    "import": (ImportOptions, "any format that is read, into records"),
    "export": (ExportOptions, "records into a format that others read"),
}


def main(verb: str, arguments: list[str]) -> dict[str, Any] | None:
    action = arguments[0] if arguments else ""
    if action in ("", "-h", "--help"):
        print("usage: tutelage data ACTION [options]\n")
        print("\n".join(f"  {name:<7} {about}" for name, (_, about) in ACTIONS.items()))
        return None
    if action not in ACTIONS:
        near = did_you_mean(action, list(ACTIONS))
        raise UserError(f"unknown action {action!r}{near}", where="tutelage data", mend=f"use {', '.join(ACTIONS)}")
    options = parse_words(ACTIONS[action][0], f"data {action}", arguments[1:])
    run: dict[str, Callable[[Any], tuple[dict[str, Any], list[str]]]]
    run = {"check": _check, "stats": _stats, "import": _import, "export": _export}
    found, lines = run[action](options)
    if not options.json:
        print("\n".join(lines))
    return found


def _check(options: CheckOptions) -> tuple[dict[str, Any], list[str]]:
    from tutelage.data.check import check

    report = check(
        options.data, against=options.against, tokenizer=_tokenizer(options.model), max_length=options.max_length
    )
    if not report.ok:
        print(jsonlib.dumps(report.to_json(), ensure_ascii=False) if options.json else "\n".join(report.lines()))
        report.raise_if_broken()
    return report.to_json(), report.lines()


def _stats(options: StatsOptions) -> tuple[dict[str, Any], list[str]]:
    from tutelage.data.stats import lines, stats

    chart = Path(options.chart).expanduser() if options.chart else None
    if chart is not None and chart.suffix.lower() != ".svg":
        raise UserError("is no .svg file", where=f"--chart {options.chart}", mend="name a file such as stats.svg")
    tables = stats(options.data, _tokenizer(options.model))
    if chart is None:
        return tables, lines(tables)
    from tutelage.report.data_chart import data_chart

    try:
        chart.parent.mkdir(parents=True, exist_ok=True)
        chart.write_text(data_chart(tables), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot be written ({error})", where=str(chart), mend="name another file") from error
    return tables, [*lines(tables), f"chart: {chart}"]


def _import(options: ImportOptions) -> tuple[dict[str, Any], list[str]]:
    from tutelage.data.convert import import_data

    done = import_data(options.source, options.out, skip_bad=options.skip_bad)
    return done.to_json(), done.lines()


def _export(options: ExportOptions) -> tuple[dict[str, Any], list[str]]:
    from tutelage.data.convert import export_data

    done = export_data(options.data, options.out, options.to, plain=options.plain, split=options.split)
    return done.to_json(), done.lines()


def _tokenizer(model: str | None) -> Any:
    """The tokenizer of a model's folder, or of `world`, without torch."""
    if model is None:
        return None
    folder = Path(__file__).parents[1] / "world" / "base" if model == "world" else Path(model).expanduser()
    if not (folder / "tokenizer.json").exists():
        raise UserError("holds no tokenizer.json", where=model, mend="give a Hugging Face model's folder")
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, model_max_length=2**30)
    except Exception as error:  # whatever the file's parser raises
        raise UserError(f"its tokenizer cannot be read ({error})", where=model, mend="copy the folder again") from error
    if tokenizer.chat_template is None:
        raise UserError("its tokenizer has no chat template", where=model, mend="add chat_template.jinja to the folder")
    return tokenizer
