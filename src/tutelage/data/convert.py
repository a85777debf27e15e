"""`data import` and `data export`: whole files from one format to another, all or nothing."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tutelage.data.export import EXPORTS
from tutelage.data.formats import Row, encode_rows, write_bytes
from tutelage.data.saved import DATA, is_folder, write_folder
from tutelage.data.sources import Contents, assemble, data_hash, part, read_contents, unique_records
from tutelage.errors import UserError, did_you_mean
from tutelage.records import Comparison, Dataset, StepLabel


@dataclass
class Converted:
    """What was read and written."""

    source: str
    out: str
    format: str
    rows: int
    written: dict[str, int]
    unchanged: bool
    left_out: list[str] = field(default_factory=list)
    card: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For a terminal."""
        kinds = ", ".join(f"{count:,} {name}" for name, count in self.written.items()) or "nothing"
        out = [f"{self.out}: {kinds} out of {self.rows:,} rows" + (" (unchanged)" if self.unchanged else "")]
        out += [f"  left out: {line}" for line in self.left_out]
        return out + ([f"{self.card}: its dataset card"] if self.card else [])


def import_data(source: str, out: str, *, skip_bad: bool = False) -> Converted:
    """Our own records out of anything that is read; with a bad row nothing is written, unless it is to be skipped."""
    contents = read_contents(source)
    bad = _bad_rows(contents)
    if bad and not skip_bad:
        raise _refusal(bad, contents, "mend them, or add --skip-bad to import the other rows")
    records = [record for _, record in unique_records(contents)]
    if not records:
        texts = any(isinstance(item, str) for one in contents for _, item in one.items)
        fault = "holds plain text only, no records" if texts else "holds no record"
        raise UserError(fault, where=source, mend="plain text is used as it is: --data FILE")
    if skip_bad:  # what hangs together only through a row that was skipped would not load
        assemble(contents)
    counts: dict[str, int] = {}
    for record in records:
        name = record.schema_name.split(".")[1].split("/")[0].replace("_", " ") + "s"
        counts[name] = counts.get(name, 0) + 1
    unchanged = _write(Path(out), [record.to_json() for record in records])
    lines = [error.message.replace("\n  mend", "; mend") for error in bad]
    return Converted(source, out, "records", sum(one.rows for one in contents), counts, unchanged, lines)


def export_data(source: str, out: str, to: str, *, plain: bool = False, split: str | None = None) -> Converted:
    """Rows of another format, and a dataset card beside them."""
    if to not in EXPORTS:
        raise UserError(
            f"{to!r} is not a format that is written{did_you_mean(to, list(EXPORTS))}",
            where="option --to",
            mend=f"use one of {', '.join(EXPORTS)}",
        )
    contents = read_contents(source)
    bad = _bad_rows(contents)
    if bad:
        raise _refusal(bad, contents, f"mend them; `tutelage data check {source}` tells more")
    whole, declared = assemble(contents)
    data = whole if split is None else part(whole, declared, split)
    rows, empty = _rows(data, to, plain)
    if not rows:
        raise UserError(f"holds nothing that {to} can express", where=source, mend="choose another --to")
    path = Path(out)
    unchanged = write_folder(path, rows) if is_folder(path) else _write(path, rows)
    left_out = [f"{empty} records that {to} has no row for (ties)"] if empty else []
    result = Converted(source, out, to, sum(one.rows for one in contents), {"rows": len(rows)}, unchanged, left_out)
    beside = path / "README.md" if is_folder(path) else path.with_name(path.name.split(".")[0] + ".md")
    result.card = str(beside)
    write_bytes(Path(result.card), _card(result, rows, data).encode())
    return result


def _rows(data: Dataset, to: str, plain: bool) -> tuple[list[Row], int]:
    """The rows, and how many records have none."""
    known = {p.id: p.messages for p in data.prompts}
    rows: list[Row] = []
    empty = 0
    paired = {f"r-{one.prompt_id}" for one in data.thumbs}  # stand for thumbs, which export as themselves
    for record in EXPORTS[to].records(data):
        if isinstance(record, Comparison) and record.id in paired and to == "trl-unpaired":
            continue
        if isinstance(record, StepLabel) and record.prompt_id not in known:
            raise UserError(
                f"the prompt {record.prompt_id!r} is not in the data",
                where=f"step label {record.id}",
                mend="give the folder that holds the prompts too",
            )
        made = EXPORTS[to].rows(record, *([known[record.prompt_id]] if isinstance(record, StepLabel) else []), plain)
        rows += made
        empty += not made
    return rows, empty


def _bad_rows(contents: list[Contents]) -> list[UserError]:
    return [error for one in contents for error in [*one.faults, *one.degenerate]]


def _refusal(bad: list[UserError], contents: list[Contents], mend: str) -> UserError:
    if len(bad) == 1:
        return UserError(bad[0].what, where=bad[0].where, mend=f"{bad[0].mend}; {mend}")
    lines = "\n".join(f"  {error.where}: {error.what}" for error in bad)
    rows = sum(one.rows for one in contents)
    return UserError(f"{len(bad)} of {rows} rows are bad, so nothing was written:\n{lines}", mend=mend)


def _write(path: Path, rows: list[Row]) -> bool:
    """Whether the file was there already with this content; with other content it is refused."""
    content = encode_rows(path, rows)
    if not path.exists():
        write_bytes(path, content)
        return False
    if path.is_dir() or path.read_bytes() != content:
        raise UserError("is there already, with other content", where=str(path), mend="choose another --out")
    return True


def _card(result: Converted, rows: list[Row], data: Dataset) -> str:
    """A card as the hub reads it: in a folder, or to be renamed to README.md beside the file."""
    out = Path(result.out)
    file = out / DATA if is_folder(out) else out
    size = next((name for most, name in _SIZES if len(rows) < most), "1M<n")
    head = ["---", "task_categories:\n- text-generation", f"size_categories:\n- {size}", "tags:"]
    head += ["- human-feedback", "- tutelage", f"- {result.format}", "configs:", "- config_name: default"]
    head += [f"  data_files: {file.name}", "---"]
    judged: list[Any] = [*data.comparisons, *data.demonstrations, *data.thumbs, *data.steps]
    labelers = {one.labeler for one in judged if one.labeler}
    facts = [
        ("format", result.format),
        ("rows", f"{len(rows):,}"),
        ("prompts", f"{len(data.prompts):,}"),
        ("labelers", f"{len(labelers):,}" if labelers else "not recorded"),
        ("made from", f"`{Path(result.source).name}`, sha256 {data_hash(result.source)[:16]}"),
        ("this file", f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"),
        ("not kept", EXPORTS[result.format].loses),
        ("left out", "; ".join(result.left_out) or "nothing"),
        ("license", "not stated: fill it in"),
    ]
    body = [f"# {Path(result.out).name.split('.')[0]}", "", "| | |", "|---|---|"]
    body += [f"| {name} | {value} |" for name, value in facts]
    example = json.dumps(rows[0], ensure_ascii=False, indent=2)
    return "\n".join([*head, "", *body, "", "The first row:", "", "```json", example, "```", ""])


_SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
