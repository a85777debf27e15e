import json

import pytest
from sqlalchemy import create_engine, text

from tutelage.errors import UserError
from tutelage.feedback.schema import Base
from tutelage.feedback.store import Store, StoreUnavailable


def test_the_migrations_make_the_tables_that_the_code_expects(store):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_rounds_that_processes_ran_become_jobs(tmp_path):
    """A store of before 0010: a round that was under way is a job, one that waits for people or its caller is none."""
    from alembic import command

    from tutelage.feedback.schema import Job
    from tutelage.feedback.store import _migrations

    engine = create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    config = _migrations()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0009")
        for number, (state, result) in enumerate(
            [("training", {"at": "/srv"}), ("labeling", {"at": "/srv"}), ("sampling", {}), ("done", {"at": "/srv"})]
        ):
            name = f"p{number}"
            connection.execute(
                text(
                    "INSERT INTO project (id, name, overlap, gold_every, lease_seconds, instructions, paused, seed, created,"
                    " screening) VALUES (:n, :n, 1, 0, 60, '', 0, '', 0, 0)"
                ),
                {"n": name},
            )
            connection.execute(
                text("INSERT INTO round VALUES (:n, 1, '{}', :s, 0, '/srv/runs', '', :r, 5, 6)"),
                {"n": name, "s": state, "r": json.dumps(result)},
            )
    engine.dispose()
    store = Store.open(tmp_path / "old.db")
    with store.read() as db:
        (job,) = db.query(Job)
        assert (job.project_id, job.kind, job.settings, job.at) == ("p0", "round", {"number": 1}, "/srv")
        assert (job.state, job.attempts, job.folder, job.alone) == ("waiting", 0, "/srv/runs", "round p0")
    store.close()


def test_a_transaction_that_fails_leaves_nothing(store):
    from tutelage.feedback.people import add_person, has_admin

    with pytest.raises(ZeroDivisionError), store.write() as db:
        add_person(db, "Ana", "admin", "a long password")
        raise ZeroDivisionError
    with store.read() as db:
        assert not has_admin(db)


@pytest.mark.parametrize("where", ["mysql://host/db", "postgresql://u@127.0.0.1:1/none"])
def test_an_address_that_cannot_be_opened_is_the_users_mistake(where):
    with pytest.raises(UserError):
        Store.open(where)


def test_a_file_that_is_no_store_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no database at all, but some text " * 50)
    with pytest.raises(UserError, match="not a database"):
        Store.open(path)
    with pytest.raises(UserError, match="no such store"):
        Store.open(tmp_path / "absent.db", create=False)
    with pytest.raises(UserError, match="is a folder"):
        Store.open(tmp_path)


def test_a_locked_database_says_so(tmp_path, monkeypatch, empty_store):
    import shutil

    from tutelage.feedback import store as module

    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    shutil.copy(empty_store, tmp_path / "feedback.db")
    one, other = Store.open(tmp_path / "feedback.db"), Store.open(tmp_path / "feedback.db")
    with one.write() as db:
        db.connection()
        with pytest.raises(StoreUnavailable, match="locked"), other.write() as second:
            second.connection()


def test_answers_decisions_and_the_log_are_append_only(store, project):
    from sqlalchemy.exc import DBAPIError

    from tutelage.feedback import adjudication, people, queue
    from tutelage.feedback.projects import find_project
    from tutelage.feedback.store import audit

    with store.write() as db:
        people.add_person(db, "Ana", "lead", None, person_id="ana")
        found = find_project(db, project)
        task = queue.lease_next(db, found, "ana")
        queue.submit(db, "answer-0001", task.id, "ana", "rank", {"ranks": [1, 2, 3, 4]})
        adjudication.order_first(db, found, task.id, "ana", [1, 2, 3, 4])
        adjudication.settle(db, found, task.id, "ana", [2, 1, 3, 4], "slip", "")
        audit(db, "ana", "settle", "round-1")
    for table, column in (("answer", "kind"), ("settlement", "note"), ("audit", "detail")):
        for change in (f"UPDATE {table} SET {column} = 'other'", f"DELETE FROM {table}"):
            with pytest.raises(DBAPIError, match="append-only"), store.write() as db:
                db.execute(text(change))
    if store.engine.dialect.name == "postgresql":
        for tables in (
            "answer",
            "settlement",
            "audit",
            "project CASCADE",
            "person CASCADE",
            "task, assignment CASCADE",
        ):
            with pytest.raises(DBAPIError, match="append-only"), store.write() as db:
                db.execute(text(f"TRUNCATE {tables}"))
    with store.read() as db:
        rows = db.execute(text("SELECT cause, own, ranks FROM settlement ORDER BY number")).all()
        assert [row.cause for row in rows] == [None, "slip"]  # the lead's own order, and the decision after it
