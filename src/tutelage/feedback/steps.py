"""A job's heavy work: `tutelage` commands as processes of their own, watched, that end with the one that started them."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tutelage.errors import UserError
from tutelage.feedback.store import Store

COMMAND = (sys.executable, "-m", "tutelage")
PROGRESS = "progress.json"  # in the job's folder, written by the step that runs
LOG = "log.txt"
POLL = 1.0  # seconds between looks at the job
BAD_INPUT = 2  # the status of a command that would fail again


class StepFailed(UserError):
    """A step that may go well the next time: an endpoint was down, memory ran out, somebody killed it."""


def run_step(
    store: Store,
    words: tuple[str, ...],
    folder: Path,
    check: Callable[[], None],
    *,
    name: str,
    at: Path | None = None,
    lock: IO[bytes] | None = None,
) -> None:
    """Run `tutelage WORDS`; a UserError with its last words where it fails.

    check: raises when the step must end. name: of the job, for people. lock: held until the step has ended, too.
    """
    print(f"{name}: tutelage {' '.join(words)}", file=sys.stderr, flush=True)
    log, told = folder / LOG, folder / PROGRESS
    told.unlink(missing_ok=True)
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=at,
            env={**environment(store), "TUTELAGE_PROGRESS": os.path.abspath(told)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            pass_fds=(lock.fileno(),) if lock else (),
            preexec_fn=_end_with_parent(),
        )
        try:
            while process.poll() is None:
                check()
                try:
                    process.wait(POLL)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = next((line for line in reversed(said) if line.strip()), "no word")
        kind = UserError if process.returncode == BAD_INPUT else StepFailed
        raise kind(f"failed: {last}", where=f"{name}, {words[0]}", mend=f"see {log}; then go on")


def environment(store: Store) -> dict[str, str]:
    """The store's address goes by the environment: a command line, with a password in it, is for all to read."""
    url = store.engine.url
    address = os.path.abspath(url.database or "") if url.drivername == "sqlite" else url.render_as_string(False)
    return {**os.environ, "TUTELAGE_STORE": address}


def _end_with_parent() -> Callable[[], None] | None:
    """For a step: on Linux it gets SIGTERM (training saves a checkpoint) when the thread that started it is no more."""
    if sys.platform != "linux":
        return None
    library, parent, set_death_signal = ctypes.CDLL(None), os.getpid(), 1

    def ask() -> None:
        library.prctl(set_death_signal, int(signal.SIGTERM))
        if os.getppid() != parent:  # it was killed meanwhile
            os._exit(1)

    return ask


def tail(path: Path, most: int = 2_000, lines: int = 8) -> str:
    """The end of a log, without what progress bars wrote over."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - most))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(line.rpartition("\r")[2] for line in text.splitlines()[-lines:])
