"""Copies of a store, and a store from a copy: whole and checked, or what was there before stays.

SQLite needs nothing else; PostgreSQL's own programs (pg_dump, pg_restore, psql) do it for a database by URL.
"""

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Engine, func, inspect, select
from sqlalchemy.engine import make_url

from tutelage.errors import UserError
from tutelage.feedback.schema import Answer, Base, Person, Project
from tutelage.feedback.store import COMMAND_LINE, Store, audit, known_revisions, store_url
from tutelage.runs.files import sync_file, sync_folder

LEFT_BY_SQLITE = ("-wal", "-shm", "-journal")
LOCK_SECONDS = 10  # that a restore waits for others to let go of the tables


def backup(store: Store, out: Path) -> None:
    """A whole copy of a store while it is in use."""
    if out.exists():
        raise UserError("exists already", where=str(out), mend="name a new file")
    with _beside(out) as scratch:
        if store.engine.dialect.name == "sqlite":
            with store.engine.connect() as connection:
                raw = connection.connection.driver_connection
                raw.rollback()  # type: ignore[union-attr]
                raw.execute("VACUUM INTO ?", (str(scratch),))  # type: ignore[union-attr]
        else:
            _run(store.engine, "pg_dump", "--format=custom", "--no-owner", f"--file={scratch}")
        sync_file(scratch)
        os.replace(scratch, out)


def restore(where: str, source: Path, *, force: bool = False) -> dict[str, int]:
    """Make the store of a backup. `force` is needed where that would take answers away. Returns what it holds."""
    if not source.is_file():
        raise UserError("there is no such backup", where=str(source), mend="check the path")
    url = store_url(where, create=True)
    if url.startswith("sqlite"):
        _restore_sqlite(Path(url.removeprefix("sqlite:///")), source, force)
    else:
        _restore_postgresql(where, source, force)
    store = Store.open(where, create=False)
    with store.write() as db:
        audit(db, COMMAND_LINE, "restore", source.name)
        tables = {"answers": Answer, "people": Person, "projects": Project}
        counts = {name: db.scalar(select(func.count()).select_from(table)) or 0 for name, table in tables.items()}
    store.close()
    return counts


# --- SQLite --------------------------------------------------------------------------------------------------------


def _restore_sqlite(target: Path, source: Path, force: bool) -> None:
    if target.exists() and target.samefile(source):
        raise UserError("is the store itself", where=str(source), mend="give a backup of it")
    with _beside(target) as scratch:
        try:
            address = f"file:{quote(str(source.absolute()))}?mode=ro"
            with closing(sqlite3.connect(address, uri=True)) as old, closing(sqlite3.connect(scratch)) as new:
                _check(old, source)
                old.backup(new)
            Store.open(scratch, create=False).close()  # brings an older backup to the newest tables
            with closing(sqlite3.connect(scratch)) as new:
                _check(new, source)
        except sqlite3.Error as error:
            raise UserError(f"is no sound backup ({error})", where=str(source), mend="take another one") from error
        sync_file(scratch)
        with _given_up(target, force):
            for name in LEFT_BY_SQLITE:  # a log of the old file must never be applied to the new one
                target.with_name(target.name + name).unlink(missing_ok=True)
            os.replace(scratch, target)
        sync_folder(target.parent)


def _check(connection: sqlite3.Connection, source: Path) -> None:
    """Every page and reference is as it should be, and the tables are those of a store."""
    wrong = [str(row[0]) for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    wrong += [f"a row of {row[0]} refers to none in {row[2]}" for row in connection.execute("PRAGMA foreign_key_check")]
    if wrong:
        mend = "take another backup"
        raise UserError(f"is damaged ({wrong[0]}; {len(wrong)} faults)", where=str(source), mend=mend)
    try:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        raise UserError("is no backup of a store", where=str(source), mend="give what `backup` wrote") from error
    if found is None or found[0] not in known_revisions():
        mend = "restore it with the version of tutelage that wrote it, or a newer one"
        raise UserError("is of a newer version than this one", where=str(source), mend=mend)


@contextmanager
def _given_up(target: Path, force: bool) -> Iterator[None]:
    """Nobody else has the old store open while the block runs, and nothing is lost that was not meant to be."""
    if not target.exists():
        yield
        return
    with closing(sqlite3.connect(target, timeout=1.0, isolation_level=None)) as old:
        try:
            answers = old.execute("SELECT count(*) FROM answer").fetchone()[0]
        except sqlite3.Error as error:
            if not force:
                raise UserError(
                    f"cannot be read ({error}), and may hold answers", where=str(target), mend="--force replaces it"
                ) from error
            yield  # it is no database, or a damaged one: nobody works with it
            return
        if answers and not force:
            what = f"holds {answers} answers, which would be lost"
            raise UserError(what, where=str(target), mend="back it up first; --force replaces it")
        try:
            old.execute("PRAGMA journal_mode=DELETE")  # fails while anybody has the store open
            old.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise UserError(f"is in use ({error})", where=str(target), mend="stop the server first") from error
        yield


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A name for the unfinished file in the folder of the finished one; nothing of it is left."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=str(out), mend="choose another place") from error
    try:
        yield Path(folder) / "copy.db"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- PostgreSQL ----------------------------------------------------------------------------------------------------


def _restore_postgresql(where: str, source: Path, force: bool) -> None:
    """One transaction: the old tables go and those of the backup come, or nothing changes."""
    listed = _run(None, "pg_restore", "--list", str(source))
    if not all(f" TABLE public {name} " in listed for name in ("answer", "alembic_version")):
        raise UserError("is no backup of a store", where=str(source), mend="give what `backup` wrote")
    store = Store.open(where)
    with store.read() as db:
        answers = db.scalar(select(func.count()).select_from(Answer)) or 0
        tables = [name for name in inspect(db.connection()).get_table_names() if name in Base.metadata.tables]
    if answers and not force:
        what = f"holds {answers} answers, which would be lost"
        mend = "back it up first; --force replaces it"
        raise UserError(what, where=make_url(where).render_as_string(), mend=mend)
    store.close()
    drop = ", ".join(f'public."{name}"' for name in [*tables, "alembic_version"])
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "restore.sql"
        _run(None, "pg_restore", "--no-owner", f"--file={script}", str(source))
        first = (
            f"SET lock_timeout = '{LOCK_SECONDS}s';\nDROP TABLE IF EXISTS {drop} CASCADE;\n"
            "DROP FUNCTION IF EXISTS public.answer_append_only(), public.append_only() CASCADE;\n"
        )
        (Path(folder) / "first.sql").write_text(first, encoding="utf-8")
        files = (f"--file={Path(folder) / 'first.sql'}", f"--file={script}")
        _run(store.engine, "psql", "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--single-transaction", *files)


def _run(engine: Engine | None, program: str, *words: str) -> str:
    """Run one of PostgreSQL's programs; the password goes by the environment, since all may read a command line."""
    path = shutil.which(program)
    if path is None:
        raise UserError(f"{program} is not installed", mend="install PostgreSQL's client programs (postgresql-client)")
    env = dict(os.environ)
    if engine is not None:
        url = engine.url.set(drivername="postgresql")
        if url.password:
            env["PGPASSWORD"] = str(url.password)
        words = (*words, "--dbname", url._replace(password=None).render_as_string(hide_password=False))
    done = subprocess.run([path, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UserError(f"failed: {said[0] if said else done.returncode}", where=program, mend="nothing was changed")
    return done.stdout
