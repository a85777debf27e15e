"""Files that are written whole or not at all, rows that are read or refused, and the one error for a full disk."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tutelage.errors import UserError

# torch and safetensors report a failed write as text, not as an OSError.
_FULL_DISK_TEXTS = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
_TORCH_WRITER_TEXTS = ("PytorchStreamWriter failed writing", "unexpected pos")


class DiskFullError(RuntimeError):
    """The disk filled while a run was writing. `message` is one line; `checkpoint` is the last good one, if any."""

    def __init__(self, path: Path, checkpoint: Path | None = None):
        self.path, self.checkpoint = path, checkpoint
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint yet"
        self.message = f"the disk is full: {path}; {kept}"
        super().__init__(self.message)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that nothing more could be written."""
    while error is not None:
        text = str(error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(part in text for part in (*_FULL_DISK_TEXTS, *_TORCH_WRITER_TEXTS)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def naming_full_disk(path: Path, checkpoint: Callable[[], Path | None] = lambda: None) -> Iterator[None]:
    """Turn whatever a full disk raises inside into a DiskFullError that names `path`."""
    try:
        yield
    except DiskFullError as error:
        raise DiskFullError(path, checkpoint()) from error
    except Exception as error:
        if is_disk_full(error):
            raise DiskFullError(path, checkpoint()) from error
        raise


def atomic_write_text(path: Path, text: str) -> None:
    """Write a whole file, on disk when this returns, or leave the old one. Raises DiskFullError, OSError."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with naming_full_disk(path):
        try:
            with open(temporary, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def atomic_write_json(path: Path, value: Any) -> None:
    """Like atomic_write_text. NaN and infinities are refused (ValueError): they are not JSON."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_text(path: Path, text: str) -> None:
    """Append in one write; if the disk fills, the file is cut back to what it was. Raises OSError."""
    data = memoryview(text.encode("utf-8"))
    with open(path, "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            with_size = os.fstat(file.fileno())
            if with_size.st_size > before:
                file.truncate(before)
            raise


def read_jsonl_rows(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file. A row that is not an object is a UserError that names it; none is skipped."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(path), mend="check the path") from error
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [parse_row(line, path, number) for number, line in enumerate(lines, start=1)]


def parse_row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """One JSON object; `number` counts rows from 1."""
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _bad_row(f"is not UTF-8 (byte {error.start + 1})", path, number) from error
    except ValueError as error:
        raise _bad_row(f"is not JSON ({error})", path, number) from error
    if not isinstance(row, dict):
        raise _bad_row(f"is {type(row).__name__}, not an object", path, number)
    return row


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _bad_row(what: str, path: Path, number: int) -> UserError:
    return UserError(what, where=f"{path}, row {number}", mend="write one JSON object a line")


def point_link(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, replacing an old one in one move."""
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent))
    os.replace(temporary, link)
    sync_folder(link.parent)


def replace_folder(new: Path, final: Path) -> None:
    """Rename `new` to `final`. An older `final` steps aside as `.old-NAME`, which restore_folders puts back."""
    aside = final.with_name(f".old-{final.name}")
    if final.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(final, aside)
    os.rename(new, final)
    sync_folder(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def restore_folders(parent: Path) -> None:
    """Undo a replace_folder that was cut off between its two renames; drop what it left behind otherwise."""
    for aside in parent.glob(".old-*"):
        final = parent / aside.name.removeprefix(".old-")
        if final.exists():
            shutil.rmtree(aside)
        else:
            os.rename(aside, final)


def remove_folder(folder: Path) -> None:
    """Delete a folder so that a process killed midway leaves no half-empty one under its name."""
    doomed = folder.with_name(f".tmp-removed-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(folder, doomed)
    shutil.rmtree(doomed)


def sync_tree(folder: Path) -> None:
    """Wait until every file and folder below is on disk."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)


def sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """A rename is on disk only when its folder is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
