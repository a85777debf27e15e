"""Opens the store: one SQLite file (write-ahead log) or a PostgreSQL database by URL, brought to the newest tables."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, InvalidatePoolError, OperationalError
from sqlalchemy.orm import Session as DatabaseSession
from sqlalchemy.orm import sessionmaker

from tutelage.errors import UserError
from tutelage.feedback.at_size import COUNTED
from tutelage.feedback.schema import Audit

BUSY_SECONDS = 10
IDLE_SECONDS = 0.5  # after which a connection is asked whether it is still there
CONNECTIONS = 15  # at most, and kept: a new one costs PostgreSQL a process, and each its prepared statements
COMMAND_LINE = "command line"  # who acts without an account, where the audit log names a person


class StoreUnavailable(Exception):
    """The database cannot be written now (full disk, lock, lost connection): the answer was not saved."""


class Store:
    """A database of projects, people, tasks and answers.

    `with store.write() as db` is one transaction: all of it is on disk when the block ends, or none.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        info: dict[str, Any] = {COUNTED: {}}
        # PostgreSQL shows each statement what is committed by then, in a transaction or not: a read does without one.
        reading = engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._reads = sessionmaker(reading, expire_on_commit=False, info=info)
        self._sessions = sessionmaker(engine, expire_on_commit=False, info=info)

    @classmethod
    def open(cls, where: str | Path, *, create: bool = True) -> "Store":
        """`where` is a file or a URL (postgresql://user@host/name)."""
        url = store_url(str(where), create)
        try:
            engine = create_engine(
                url,
                connect_args=_connect_args(url),
                pool_size=CONNECTIONS,
                max_overflow=0,
                hide_parameters=True,  # an error that is logged must not tell what was to be stored
            )
        except ImportError as error:
            raise UserError(f"needs a driver ({error})", where=url, mend="pip install 'psycopg[binary]'") from error
        except Exception as error:
            raise UserError(
                f"is no database address ({error})", where=str(where), mend="give a file, or postgresql://…"
            ) from error
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            event.listen(engine, "connect", _set_up_postgresql)
            event.listen(engine, "checkin", _note_use)
            event.listen(engine, "checkout", _ask_whether_alive)
        try:
            _migrate(engine)
        except DatabaseError as error:
            raise UserError(
                f"cannot be opened ({error.orig})", where=str(where), mend="give a store, or a new file"
            ) from error
        return cls(engine)

    @contextmanager
    def read(self) -> Iterator[DatabaseSession]:
        with _naming_failures(), self._reads() as db:
            db.connection(execution_options={"reading": True})
            yield db

    @contextmanager
    def write(self) -> Iterator[DatabaseSession]:
        with _naming_failures(), self._sessions.begin() as db:
            yield db

    def close(self) -> None:
        self.engine.dispose()


def audit(db: DatabaseSession, person_id: str | None, action: str, detail: str = "") -> None:
    db.add(Audit(created=time.time(), person_id=person_id, action=action, detail=detail))


@contextmanager
def _naming_failures() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        cause = str(error.orig).lower()
        if "full" in cause or "no space" in cause:
            reason = "the server's disk is full"
        elif "locked" in cause:
            reason = "the database is locked by another program"
        else:
            reason = "the database does not answer"
        raise StoreUnavailable(reason) from error


def store_url(where: str, create: bool) -> str:
    """The database's URL; `create` is whether the file need not exist."""
    if re.match(r"^postgres(ql)?(\+\w+)?://", where):
        return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg://", where)
    if "://" in where and not where.startswith("sqlite:///"):
        raise UserError("is no address of a store", where=where, mend="give a file, or postgresql://…")
    path = Path(where.removeprefix("sqlite:///")).expanduser()
    if path.is_dir():
        raise UserError("is a folder", where=str(path), mend="give a file, such as feedback.db")
    if not create and not path.exists():
        raise UserError("there is no such store", where=str(path), mend="check the path")
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path}"


def _connect_args(url: str) -> dict[str, Any]:
    return {"timeout": BUSY_SECONDS, "check_same_thread": False} if url.startswith("sqlite") else {}


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver starts no transaction by itself; `_begin_sqlite` does
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    # A transaction that reads first and writes later could fail halfway: writers take the lock at the start.
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _set_up_postgresql(connection: Any, _: Any) -> None:
    """A plan that was made while a table was small would read all of it long after it has grown."""
    connection.execute("SET plan_cache_mode = force_custom_plan")
    connection.commit()


def _note_use(_: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _ask_whether_alive(connection: Any, record: Any, _: Any) -> None:
    """A connection that lay idle may have been cut, by a restart or a firewall: the pool then opens another one."""
    if time.monotonic() - record.info.get("used", time.monotonic()) < IDLE_SECONDS:
        return
    try:
        connection.execute("")
        connection.rollback()
    except connection.OperationalError as error:
        raise InvalidatePoolError from error  # the others are no better


def known_revisions() -> set[str]:
    """Every version of the tables that this code can open."""
    from alembic.script import ScriptDirectory

    return {one.revision for one in ScriptDirectory.from_config(_migrations()).walk_revisions()}


@cache  # to find it, Python compiles every migration
def _newest() -> str | None:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_migrations()).get_current_head()


def _migrations() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.runtime.migration import MigrationContext

    with engine.connect().execution_options(reading=True) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()
    if current == _newest():
        return
    config = _migrations()
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # two servers may start at once
            connection.execute(text("SELECT pg_advisory_xact_lock(7264)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
