"""Files of rows, in and out: JSON Lines, JSON, parquet and plain text, each also gzipped where that is usual.

A row that cannot be read is a UserError which names the file and the row (rows count from 1).
"""

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

from tutelage.errors import UserError, did_you_mean

Row = dict[str, Any]

EXTENSIONS = [".jsonl", ".jsonl.gz", ".ndjson", ".json", ".json.gz", ".parquet", ".txt", ".txt.gz"]
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
DOCUMENT_CHARACTERS = 2000
"""A plain text file becomes documents of whole paragraphs, about this long: a file is rarely one document."""


def extension_of(path: Path) -> str:
    """The known extension that the file's name ends with; UserError for another."""
    for extension in EXTENSIONS:
        if path.name.lower().endswith(extension):
            return extension
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    raise UserError(
        f"{suffix or 'no extension'} is not a format we read{did_you_mean(suffix, EXTENSIONS) if suffix else ''}",
        where=str(path),
        mend=f"convert it to one of {', '.join(EXTENSIONS)}",
    )


def data_files(spec: str | Path) -> list[Path]:
    """The data files that a path names: the file, or those in the folder (not its sub-folders), sorted by name."""
    path = Path(spec).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.name.lower().endswith(tuple(EXTENSIONS)))
        if not files:
            raise UserError(
                "the folder holds no data file",
                where=str(spec),
                mend=f"put files there that end in {', '.join(EXTENSIONS)}",
            )
        return files
    if not path.exists():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise UserError(
            f"there is no such file{near}", where=str(spec), mend="give the path of a data file, or `world`"
        )
    extension_of(path)
    return [path]


def read_rows(path: str | Path) -> Iterator[tuple[int, Row]]:
    """(row number from 1, row) for each row of a file; blank lines are passed over."""
    file = Path(path)
    extension = extension_of(file)
    if file.is_dir() or not file.exists():
        raise UserError("is a folder, not a file" if file.is_dir() else "there is no such file", where=str(path))
    try:
        if extension == ".parquet":
            yield from _read_parquet(file)
        elif extension.startswith(".txt"):
            yield from _read_text(file)
        elif extension.startswith(".json") and "jsonl" not in extension:
            yield from _read_json(file)
        else:
            yield from _read_lines(file)
    except (EOFError, gzip.BadGzipFile) as error:
        fault = "the gzip file is cut off" if isinstance(error, EOFError) else "is not a sound gzip file"
        raise UserError(fault, where=str(path), mend="copy or download the file again") from error
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror or error})", where=str(path), mend="check the file"
        ) from error


def write_rows(path: str | Path, rows: Iterable[Row]) -> int:
    """Write rows in the format of the file's extension, whole or not at all; the number of rows."""
    file = Path(path).expanduser()
    extension = extension_of(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    # The temporary name keeps the extension out of sight of a reader of the folder.
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        count = _write(temporary, extension, rows)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _open(file: Path) -> BufferedIOBase:
    """Bytes of the file, unpacked where it is gzip whatever its name says."""
    with open(file, "rb") as head:
        packed = head.read(2) == b"\x1f\x8b"
    if not packed and file.name.lower().endswith(".gz") and file.stat().st_size:
        raise UserError(
            "is not a gzip file, although its name ends in .gz", where=str(file), mend="rename it, or gzip it"
        )
    return gzip.open(file, "rb") if packed else open(file, "rb")


def _read_lines(file: Path) -> Iterator[tuple[int, Row]]:
    with _open(file) as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{file}, row {number}"
            text = _decode(line, where)
            if text.strip():
                yield number, _row(_parse(text, where), where)


def _read_json(file: Path) -> Iterator[tuple[int, Row]]:
    with _open(file) as stream:
        text = _decode(stream.read(), str(file))
    if not text.strip():
        return
    try:
        value = _parse(text, str(file))
    except UserError:
        # Many a ".json" holds JSON Lines; if its first line is not a row by itself, the first error stands.
        lines = text.strip().splitlines()
        if len(lines) < 2 or not _is_object(lines[0]):
            raise
        yield from _read_lines(file)
        return
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise UserError(f"holds {_named(value)}, not a list of rows", where=str(file), mend="write [{...}, {...}]")
    for number, item in enumerate(value, start=1):
        yield number, _row(item, f"{file}, row {number}")


def _read_parquet(file: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"is not a sound parquet file ({reason})", where=str(file), mend="write the file again"
        ) from error


def _read_text(file: Path) -> Iterator[tuple[int, Row]]:
    with _open(file) as stream:
        text = _decode(stream.read(), str(file))
    number, document = 0, ""
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        if document and len(document) + len(paragraph) > DOCUMENT_CHARACTERS:
            number += 1
            yield number, {"text": document}
            document = ""
        if paragraph.strip():
            document = f"{document}\n\n{paragraph.strip()}".strip()
    if document:
        yield number + 1, {"text": document}


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        mend = "save the file as UTF-8" + (
            " (this looks like UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        )
        raise UserError(f"is not UTF-8 (byte {error.start + 1})", where=where, mend=mend) from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or "Unterminated" in error.msg
        fault = "is cut off in the middle" if cut else f"is not JSON ({error.msg}, column {error.colno})"
        raise UserError(fault, where=where, mend="each row is one JSON object on one line") from error
    except (ValueError, RecursionError) as error:
        fault = str(error) if isinstance(error, ValueError) else "is nested too deeply"
        raise UserError(fault, where=where, mend="write numbers and null as JSON has them") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that JSON has")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"is {_named(value)}, not an object", where=where, mend='write {"prompt": ..., ...}')
    return value


def _named(value: Any) -> str:
    names = {list: "a list", dict: "an object", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _write(file: Path, extension: str, rows: Iterable[Row]) -> int:
    if extension == ".parquet":
        import pyarrow
        import pyarrow.parquet

        listed = list(rows)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(listed), file)
        return len(listed)
    count = 0
    with open(file, "wb") as raw:
        # No name and no time in the gzip header: equal rows give equal bytes.
        packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) if extension.endswith(".gz") else None
        stream: IO[bytes] = packed or raw  # type: ignore[assignment]
        whole = extension.startswith(".json") and "jsonl" not in extension
        for row in rows:
            if extension.startswith(".txt"):
                line = str(row["text"]) + "\n\n"
            else:
                line = json.dumps(row, ensure_ascii=False, allow_nan=False) + ("" if whole else "\n")
            stream.write((("[\n" if count == 0 else ",\n") + line if whole else line).encode())
            count += 1
        if whole:
            stream.write(b"\n]\n" if count else b"[]\n")
        if packed:
            packed.close()
    return count
