"""Files that are written whole or not at all, and the one error for a full disk."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# torch and the Rust libraries report a failed write as text, not as an OSError.
FULL_DISK_TEXTS = (
    "No space left on device",
    "os error 28",
    "Disk quota exceeded",
    "os error 122",
    "PytorchStreamWriter failed writing",
    "unexpected pos",
)


class DiskFullError(Exception):
    """The disk filled while a run was writing; what was complete before is untouched."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that nothing more could be written."""
    while error is not None:
        if isinstance(error, DiskFullError) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(part in str(error) for part in FULL_DISK_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turn whatever a full disk raises inside into a DiskFullError that names `path`."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if is_disk_full(error):
            what = f"the disk is full: {path} could not be written; what was complete before is good"
            raise DiskFullError(what) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a whole file, on disk when this returns, or leave the old one."""
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


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is no such file, or it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a JSON Lines file that may be growing; none where there is no such file."""
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # being written, or cut off by a kill
    return [row for row in rows if isinstance(row, dict)]


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows of JSON Lines in one write; if the disk fills, the file is cut back to what it was."""
    data = memoryview("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    with naming_full_disk(path), open(path, "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            if os.fstat(file.fileno()).st_size > before:
                file.truncate(before)
            raise


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that is appended to (none where there is no file); a line that a kill cut off is taken out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_text(path, whole)
    return [json.loads(line) for line in whole.split("\n") if line]


def point_link(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, replacing an old one in one move."""
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent))
    os.replace(temporary, link)
    sync_folder(link.parent)


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
