"""Rounds of a project: what one is to do, where it stands, and the process that runs it.

A round is a row whose process gives signs of life (`beat`) and holds a lock in the round's folder, which the system
opens when the process and its step have ended, however they end.
"""

import fcntl
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session as Db

from tutelage.configs.rounds import RoundSettings
from tutelage.feedback.queue import Refused
from tutelage.feedback.schema import Project, Round, Task
from tutelage.feedback.store import Store, audit

ACTIVE = ("sampling", "labeling", "training")
ALIVE_SECONDS = 30.0  # the process gives a sign of life every few seconds
RECIPES = {"reward-round": "a reward model", "ppo-round": "a reward model, then the policy by PPO"}
COMMAND = (sys.executable, "-m", "tutelage")
TAIL = 2_000  # characters of the log that the page shows
PROGRESS = "progress.json"  # in the round's folder, written by the step that runs


@dataclass(frozen=True)
class Doing:
    """How far a step is. left: seconds, None where nothing was finished yet."""

    label: str
    done: int
    total: int
    unit: str
    left: float | None

    @property
    def time_left(self) -> str:
        if self.left is None:
            return ""
        minutes = math.ceil(self.left / 60)
        return "less than a minute left" if minutes <= 1 else f"about {minutes} minutes left"


@dataclass(frozen=True)
class Standing:
    """A round as the page and the command tell it."""

    number: int
    state: str
    labeled: int
    needed: int
    alive: bool
    enough: bool
    result: dict[str, Any]
    settings: RoundSettings
    log: str
    said: str
    doing: Doing | None = None

    @property
    def share(self) -> float:
        return min(1.0, self.labeled / self.needed) if self.needed else 0.0


def start_round(db: Db, project: Project, settings: RoundSettings, out: Path, *, waits: bool = False) -> Round:
    """A new round; refused while another one is under way. waits: as `waiting` says."""
    now = time.time()
    last = last_round(db, project)
    if last is not None and last.state != "done":
        raise Refused(f"Round {last.number} is not done: go on with it first.")
    number = 1 if last is None else last.number + 1
    folder = out.expanduser().resolve() / project.id / str(number)
    row = Round(
        project_id=project.id,
        number=number,
        settings={**asdict(settings), "model": list(settings.model), "ensemble": list(settings.ensemble)},
        state="sampling",
        folder=str(folder),
        result=waiting({}, waits),
        created=now,
        beat=now,
    )
    db.add(row)
    db.flush()
    return row


def waiting(result: dict[str, Any], waits: bool) -> dict[str, Any]:
    """A round's results, with the folder (`at`) where a process that waits for people runs it, or without.

    Such a round is taken up again when its process was killed; one that its caller goes on with is not.
    """
    rest = {name: value for name, value in result.items() if name != "at"}
    return {**rest, "at": os.getcwd()} if waits else rest


def last_round(db: Db, project: Project) -> Round | None:
    return db.scalar(select(Round).filter_by(project_id=project.id).order_by(Round.number.desc()).limit(1))


def settings_of(row: Round) -> RoundSettings:
    return RoundSettings(**row.settings)


def following(row: Round) -> RoundSettings:
    """The next round's settings: the same, with the policy that this one trained."""
    settings = settings_of(row)
    policy = row.result.get("policy")
    return RoundSettings(**{**asdict(settings), "model": (policy,), "base": ""}) if policy else settings


def labels(db: Db, row: Round) -> tuple[int, int]:
    """(answers so far, answers needed) of the round's items."""
    query = select(func.sum(Task.filled), func.sum(Task.overlap)).where(
        Task.project_id == row.project_id, Task.round == row.number, Task.is_gold.is_(False)
    )
    filled, needed = db.execute(query).one()
    return int(filled or 0), int(needed or 0)


def standings(db: Db, project: Project, now: float) -> list[Standing]:
    """All rounds, the newest first."""
    found = []
    for row in db.scalars(select(Round).filter_by(project_id=project.id).order_by(Round.number.desc())):
        labeled, needed = labels(db, row)
        alive = row.state in ACTIVE and (now - row.beat < ALIVE_SECONDS or is_held(Path(row.folder)))
        log = _tail(Path(row.folder) / "log.txt") if row.state in ("failed", "stopped") else ""
        found.append(
            Standing(
                row.number,
                row.state,
                labeled,
                needed,
                alive,
                row.enough,
                row.result,
                settings_of(row),
                log,
                row.said,
                doing_of(row) if alive else None,
            )
        )
    return found


def doing_of(row: Round) -> Doing | None:
    """What the running step tells of itself; None before it does, and where it says nothing that can be read."""
    try:
        told = json.loads((Path(row.folder) / PROGRESS).read_text(encoding="utf-8"))
        label, unit = str(told["label"]), str(told["unit"])
        done, total, first, seconds = (float(told[name]) for name in ("done", "total", "first", "seconds"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    pace = (done - first) / seconds if seconds > 0 else 0.0
    part = label.removeprefix("samples-")
    if part != label and row.state == "sampling" and part.isdecimal():
        # One step samples of one model; the round's answers are those of all of them.
        counts = shares(settings_of(row))
        prompts = total / counts[int(part)] if int(part) < len(counts) else 0.0
        done, total = done + prompts * sum(counts[: int(part)]), prompts * sum(counts)
    return Doing(label, round(done), round(total), unit, (total - done) / pace if pace > 0 else None)


def shares(settings: RoundSettings) -> list[int]:
    """How many of a prompt's K answers each model gives."""
    return [len(range(i, settings.samples, len(settings.model))) for i in range(len(settings.model))]


def _tail(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(line.rpartition("\r")[2] for line in text.splitlines()[-8:])


def change_state(db: Db, project: Project, state: str) -> Round:
    """Stop what runs, or take a stopped or failed round up again where it was."""
    row = last_round(db, project)
    if row is None:
        raise Refused("There is no round.")
    if state == "stopped":
        if row.state not in ACTIVE:
            raise Refused("The round is not running.")
        row.result, row.state = {**row.result, "stopped_at": row.state}, "stopped"
    elif state == "continue":
        if row.state in ("stopped", "failed"):
            row.state, row.said = row.result.get("stopped_at", "sampling"), ""
        elif row.state == "done":
            raise Refused("The round is done.")
    elif state == "enough":
        if row.state != "labeling" or not labels(db, row)[0]:
            raise Refused("There is nothing to train on yet.")
        row.enough = True
    else:
        raise Refused("A round can be stopped, continued, or trained now.")
    return row


def hold(folder: Path) -> IO[bytes] | None:
    """The round's lock, for as long as the file, or a child's copy of it, is open; None where another process has it."""
    file = (folder / ".runner").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def is_held(folder: Path) -> bool:
    """Whether a process on this machine runs the round, or a step that outlived it."""
    if not (folder / ".runner").exists():
        return False
    file = hold(folder)
    if file is not None:
        file.close()
    return file is None


def is_running(row: Round, now: float) -> bool:
    """Whether a process runs it: here, or where its folder is."""
    folder = Path(row.folder)
    alive = is_held(folder) if folder.is_dir() else now - row.beat < ALIVE_SECONDS
    return row.state in ACTIVE and alive


def spawn(store: Store, project_id: str, out: Path, log: Path, at: Path | None = None) -> None:
    """A process of its own that goes on with the project's round; it outlives this one, and the store tells of it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = ["feedback", "round", "--project", project_id, "--wait", "--out", str(out)]
    with log.open("ab") as file:
        subprocess.Popen(
            [*COMMAND, *words],
            cwd=at,
            env=environment(store),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def take_up(store: Store) -> list[str]:
    """Go on with the rounds of this machine whose processes are gone, killed or by a reboot; says which.

    Several servers may start at once: the one that changes the sign of life that all of them read goes on.
    """
    with store.read() as db:
        rows = list(db.scalars(select(Round).where(Round.state.in_(ACTIVE))))
    found = []
    for row in rows:
        folder, at = Path(row.folder), Path(row.result.get("at", ""))
        if "at" not in row.result or not folder.is_dir() or not at.is_dir() or is_held(folder):
            continue
        mine = update(Round).where(Round.project_id == row.project_id, Round.number == row.number)
        with store.write() as db:
            mine = mine.where(Round.beat == row.beat, Round.state == row.state)
            if not db.execute(mine.values(beat=time.time())).rowcount:  # type: ignore[attr-defined]
                continue
            audit(db, None, "round: taken up", f"{row.project_id}: {row.number}")
        spawn(store, row.project_id, folder.parent.parent, folder / "process.txt", at)
        found.append(f"round {row.number} of {row.project_id}")
    return found


def environment(store: Store) -> dict[str, str]:
    """The store's address goes by the environment: a command line, with a password in it, is for all to read."""
    url = store.engine.url
    address = os.path.abspath(url.database or "") if url.drivername == "sqlite" else url.render_as_string(False)
    return {**os.environ, "TUTELAGE_STORE": address}
