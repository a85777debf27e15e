"""Files of rows, in and out: JSON Lines, JSON, parquet, saved `datasets` folders and plain text.

A row that cannot be read is a UserError which names the file and the row (rows count from 1).
"""

import errno
import gzip
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tutelage.errors import UserError, did_you_mean
from tutelage.records import Record
from tutelage.runs import check_folder

Row = dict[str, Any]

EXTENSIONS = [
    ".jsonl",
    ".jsonl.gz",
    ".ndjson",
    ".json",
    ".json.gz",
    ".parquet",
    ".arrow",
    ".txt",
    ".txt.gz",
]
WRITABLE = [".jsonl", ".jsonl.gz", ".json", ".parquet"]


def extension_of(path: Path, known: list[str] = EXTENSIONS) -> str:
    """The known extension that the file's name ends with; UserError for another."""
    for extension in known:
        if path.name.lower().endswith(extension):
            return extension
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    near = did_you_mean(suffix, known) if suffix else ""
    raise UserError(
        f"is of no known kind ({suffix or 'no extension'}){near}",
        where=str(path),
        mend=f"use one of {', '.join(known)}",
    )


def check_file(path: Path, source: str) -> None:
    """A UserError where a file of records cannot be written, or would replace the one it is made from."""
    extension_of(path, WRITABLE)
    check_folder(path.absolute().parent)
    if path.is_dir():
        raise UserError("is a folder, not a file", where=str(path), mend="give --out a file's name")
    if path.exists() and Path(source).expanduser().exists() and path.samefile(Path(source).expanduser()):
        raise UserError("is what --data names, and would be replaced", where=str(path), mend="choose another --out")


def data_files(spec: str | Path) -> list[Path]:
    """The data files that a path names: the file, those of a saved `datasets` folder, or those in a folder."""
    path = Path(spec).expanduser()
    if not path.exists():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise UserError(
            f"there is no such file or folder{near}", where=str(spec), mend="check the path, or use `world`"
        )
    if not path.is_dir():
        extension_of(path)
        return [path]
    if (path / "dataset_dict.json").exists():
        splits = _json_of(path / "dataset_dict.json")["splits"]
        return [file for split in splits for file in data_files(path / split)]
    if (path / "state.json").exists():
        return [path / file["filename"] for file in _json_of(path / "state.json")["_data_files"]]
    inside = [*path.glob("*"), *path.glob("data/*")]  # a snapshot of the hub has its files in data/
    files = sorted(p for p in inside if p.is_file() and p.name.lower().endswith(tuple(EXTENSIONS)))
    if not files:
        raise UserError("holds no data file", where=str(spec), mend=f"put files there: {', '.join(EXTENSIONS)}")
    return files


def read_rows(path: str | Path, faults: list[UserError] | None = None) -> Iterator[tuple[int, Row]]:
    """(row number from 1, row) for each row; blank lines are passed over.

    With `faults` the rows that cannot be read are collected there; without it the first of them is raised.
    """
    file = Path(path)
    extension = extension_of(file)
    if not file.exists():
        raise UserError("there is no such file", where=str(path), mend="check the path")
    try:
        for number, row in _rows(file, extension):
            if isinstance(row, UserError):
                if faults is None:
                    raise row
                faults.append(row)
            else:
                yield number, row
    except (EOFError, gzip.BadGzipFile) as error:
        fault = "the gzip file is cut off" if isinstance(error, EOFError) else "is not a sound gzip file"
        raise UserError(fault, where=str(path), mend="copy or download the file again") from error
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror or error})", where=str(path), mend="check the file"
        ) from error


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    """Records, one a line, whole or not at all."""
    write_rows(path, [record.to_json() for record in records])


def write_rows(path: Path, rows: list[Row]) -> None:
    """Rows in the format of the file's extension, whole or not at all; equal rows give equal bytes."""
    content = encode_rows(path, rows)
    write_bytes(path, content)


def write_bytes(path: Path, content: bytes) -> None:
    from tutelage.runs import DiskFullError

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"the disk is full: {path} could not be written") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def arrow_table(rows: list[Row]) -> Any:
    """A column for each field that a row has."""
    import pyarrow

    columns = list(dict.fromkeys(key for row in rows for key in row))  # from_pylist sees the first row's only
    return pyarrow.Table.from_pylist([{key: row.get(key) for key in columns} for row in rows])


def encode_rows(path: Path, rows: list[Row]) -> bytes:
    """The bytes that `write_rows` writes."""
    extension = extension_of(path, WRITABLE)
    if extension == ".parquet":
        import pyarrow.parquet

        buffer = io.BytesIO()
        pyarrow.parquet.write_table(arrow_table(rows), buffer)
        return buffer.getvalue()
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    text = "[\n" + ",\n".join(lines) + "\n]\n" if extension == ".json" else "".join(f"{line}\n" for line in lines)
    return gzip.compress(text.encode(), mtime=0) if extension.endswith(".gz") else text.encode()


def _json_of(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"is not JSON ({error})", where=str(file), mend="save the dataset again") from error


def _rows(file: Path, extension: str) -> Iterator[tuple[int, Row | UserError]]:
    if extension in (".parquet", ".arrow"):
        yield from _arrow_rows(file, extension)
        return
    if extension.startswith(".txt"):
        pieces = [p.strip() for p in _decode(_bytes(file), str(file)).replace("\r\n", "\n").split("\n\n")]
        yield from ((number, {"text": piece}) for number, piece in enumerate(filter(None, pieces), 1))
        return
    content = _bytes(file)
    if extension.startswith(".json") and "jsonl" not in extension:
        text = _decode(content, str(file)).strip()
        # Many a ".json" holds JSON Lines: one of whose lines is a whole object is taken for that.
        if text and not _is_object(text.split("\n", 1)[0]):
            yield from _whole_json(text, file)
            return
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield number, _line(line, f"{file}, row {number}")


def _bytes(file: Path) -> bytes:
    """The file's bytes, unpacked where it is gzip whatever its name says."""
    content = file.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            return gzip.decompress(content)
        except OSError as error:
            raise gzip.BadGzipFile(str(error)) from error
        except Exception as error:  # zlib.error, which is no OSError
            if isinstance(error, EOFError):
                raise
            raise gzip.BadGzipFile(str(error)) from error
    if file.name.lower().endswith(".gz") and content:
        raise UserError(
            "is not a gzip file, although its name ends in .gz", where=str(file), mend="rename it, or gzip it"
        )
    return content


def _whole_json(text: str, file: Path) -> Iterator[tuple[int, Row | UserError]]:
    value = _parse(text, str(file))
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise UserError(f"holds {named(value)}, not a list of rows", where=str(file), mend="write [{...}, {...}]")
    for number, item in enumerate(value, 1):
        where = f"{file}, row {number}"
        yield number, item if isinstance(item, dict) else _not_an_object(item, where)


def _line(line: bytes, where: str) -> Row | UserError:
    try:
        value = _parse(_decode(line, where), where)
    except UserError as error:
        return error
    return value if isinstance(value, dict) else _not_an_object(value, where)


def _not_an_object(value: Any, where: str) -> UserError:
    return UserError(f"is {named(value)}, not an object", where=where, mend='write {"prompt": ..., ...}')


def _arrow_rows(file: Path, extension: str) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        if extension == ".parquet":
            batches = pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1024)
        else:  # `datasets` saves streams; feather and others save files
            source = pyarrow.memory_map(str(file))
            try:
                batches = iter(pyarrow.ipc.open_stream(source))
            except pyarrow.ArrowInvalid:
                reader = pyarrow.ipc.open_file(source)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield number, _without_nulls(row)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"is not a sound {extension[1:]} file ({reason})", where=str(file), mend="write the file again"
        ) from error


def _without_nulls(value: Any) -> Any:
    """A table's rows have every column, null where there was none; entries of lists stay as they are."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        hint = " (this looks like UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise UserError(
            f"is not UTF-8 text (byte {error.start + 1})", where=where, mend=f"save it as UTF-8{hint}"
        ) from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or "Unterminated" in error.msg
        fault = "is cut off in the middle" if cut else f"is not JSON ({error.msg}, column {error.colno})"
        raise UserError(fault, where=where, mend="write one JSON object on one line for each row") from error
    except (ValueError, RecursionError) as error:
        fault = str(error) if isinstance(error, ValueError) else "is nested too deeply"
        raise UserError(fault, where=where, mend="write numbers and null as JSON has them") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that JSON has")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def named(value: Any) -> str:
    """The JSON name of a value's type, with its article."""
    names = {
        list: "a list",
        dict: "an object",
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)
