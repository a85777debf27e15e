"""One process writes a folder at a time; the system lets go of it when that process ends, however it ends."""

import fcntl
import os
import struct
from pathlib import Path
from typing import IO

from tutelage.errors import UserError

LOCK = ".lock"


def lock_folder(path: Path) -> IO[bytes]:
    """Hold a folder for this process until the file is closed. Raises UserError where another one holds it."""
    file = open(path / LOCK, "ab")  # noqa: SIM115 (held as long as the work)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        mend = "wait until it ends, or choose another --out"
        raise UserError("another process is writing this run", where=str(path), mend=mend) from error
    except OSError:
        pass  # a file system without locks
    return file


def holder(path: Path) -> int | None:
    """The process that writes a folder; None where nobody does."""
    lock = path / LOCK
    if not lock.exists():
        return None
    try:
        with open(lock, "rb") as file:
            asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_, pid = struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, asked)[: struct.calcsize("hhqqi")])
    except OSError:
        return None
    return pid if kind != fcntl.F_UNLCK and pid > 0 else None
