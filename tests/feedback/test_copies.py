"""Backups are whole; a restore is checked before and after, takes no answers away unasked, and happens or does not."""

import os
import shutil
import sqlite3
import subprocess
import sys

import pytest
from sqlalchemy import create_engine, text

from tutelage.errors import UserError
from tutelage.feedback import people, queue
from tutelage.feedback.copies import backup, restore
from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import create_project, find_project
from tutelage.feedback.schema import Answer, Audit
from tutelage.feedback.store import Store


def fill(store, sampled, answers=1):
    with store.write() as db:
        project = create_project(db, "Round 1")
        import_records(db, project, *sampled())
        people.add_person(db, "Ana", "labeler", None, person_id="ana")
    label(store, answers)


def label(store, answers):
    with store.write() as db:
        for _ in range(answers):
            task = queue.lease_next(db, find_project(db, "round-1"), "ana")
            queue.submit(db, f"ana-{task.id:08}", task.id, "ana", "rank", {"ranks": [1, 2, 3, 4]})


def answers_in(where):
    store = Store.open(where)
    with store.read() as db:
        count = db.query(Answer).count()
    store.close()
    return count


@pytest.fixture
def kept(tmp_path, sampled):
    """A store with two answers, and a backup from when it had one."""
    store = Store.open(tmp_path / "feedback.db")
    fill(store, sampled)
    backup(store, tmp_path / "copy.db")
    label(store, 1)
    store.close()
    return tmp_path / "feedback.db", tmp_path / "copy.db"


def only_these_files(folder):
    return {path.name for path in folder.iterdir()} == {"feedback.db", "copy.db"}


def test_a_backup_is_whole_and_replaces_nothing(kept):
    store, copy = kept
    assert answers_in(copy) == 1 and answers_in(store) == 2
    with pytest.raises(UserError, match="exists"):
        backup(Store.open(store), copy)


def test_a_restore_makes_the_store_anew(kept, tmp_path):
    _, copy = kept
    found = restore(str(tmp_path / "other" / "new.db"), copy)
    assert found == {"answers": 1, "people": 1, "projects": 1}
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["new.db"]
    with Store.open(tmp_path / "other" / "new.db").write() as db:
        assert [(one.person_id, one.action) for one in db.query(Audit)][-1] == ("command line", "restore")
        with pytest.raises(Exception, match="append-only"):  # the triggers came along
            db.execute(text("UPDATE answer SET kind = 'skip'"))


def test_answers_are_taken_away_only_by_force(kept, tmp_path):
    store, copy = kept
    with pytest.raises(UserError, match="holds 2 answers"):
        restore(str(store), copy)
    assert answers_in(store) == 2 and only_these_files(tmp_path)
    assert restore(str(store), copy, force=True)["answers"] == 1 == answers_in(store)
    assert only_these_files(tmp_path)


def test_a_log_of_the_old_store_is_never_applied_to_the_new_one(kept, tmp_path):
    """A server that was killed leaves what SQLite has not yet written into the file itself."""
    store, copy = kept
    code = (
        "import sys; from tutelage.feedback.store import Store; from tutelage.feedback.projects import create_project\n"
        "import os\nstore = Store.open(sys.argv[1])\nwith store.write() as db: create_project(db, 'Late')\nos._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(store)], check=False)
    assert os.path.getsize(f"{store}-wal") > 0
    assert restore(str(store), copy, force=True) == {"answers": 1, "people": 1, "projects": 1}
    with sqlite3.connect(store) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_store_in_use_is_left_alone(kept):
    store, copy = kept
    server = Store.open(store)
    with server.read() as db:
        assert db.query(Answer).count() == 2
    with pytest.raises(UserError, match=r"in use(.|\n)*stop the server"):
        restore(str(store), copy, force=True)
    label(server, 1)
    server.close()
    assert answers_in(store) == 3


def cut(copy):
    copy.write_bytes(copy.read_bytes()[:-9000])


def scribbled(copy):
    whole = bytearray(copy.read_bytes())
    whole[8192:12288] = b"x" * 4096
    copy.write_bytes(whole)


def dangling(copy):
    with sqlite3.connect(copy) as db:
        db.execute("DROP TRIGGER answer_no_delete")
        db.execute("DELETE FROM task")


def another(copy):
    copy.unlink()
    with sqlite3.connect(copy) as db:
        db.execute("CREATE TABLE song (name TEXT)")


def newer(copy):
    with sqlite3.connect(copy) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (cut, "damaged|no sound backup"),
        (scribbled, "damaged|no sound backup"),
        (dangling, "refers to none in task"),
        (another, "no backup of a store"),
        (newer, "newer version"),
        (lambda copy: copy.write_text("notes " * 999), "no sound backup"),
        (lambda copy: copy.write_bytes(b""), "no backup of a store"),
        (lambda copy: copy.unlink(), "no such backup"),
    ],
)
def test_a_bad_backup_changes_nothing(kept, harm, said):
    store, copy = kept
    harm(copy)
    with pytest.raises(UserError, match=said):
        restore(str(store), copy, force=True)
    assert answers_in(store) == 2


def test_a_store_is_no_backup_of_itself_and_a_damaged_one_needs_force(kept):
    store, copy = kept
    with pytest.raises(UserError, match="the store itself"):
        restore(str(store), store, force=True)
    store.write_text("what was a database once " * 500)
    with pytest.raises(UserError, match="may hold answers"):
        restore(str(store), copy)
    assert restore(str(store), copy, force=True)["answers"] == 1


def test_a_restore_that_is_interrupted_leaves_the_old_store(kept, tmp_path, monkeypatch):
    from tutelage.feedback import copies

    store, copy = kept

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(copies.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        restore(str(store), copy, force=True)
    assert answers_in(store) == 2 and only_these_files(tmp_path)


@pytest.fixture
def database(postgres):
    """An empty database of its own."""
    if not all(map(shutil.which, ("pg_dump", "pg_restore", "psql"))):
        pytest.skip("PostgreSQL's client programs are not installed")
    admin = create_engine(postgres.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS copied"))
        connection.execute(text("CREATE DATABASE copied"))
    admin.dispose()
    return postgres.replace("/postgres?", "/copied?")


def test_postgresql_is_dumped_and_restored_by_its_own_programs(database, sampled, tmp_path):
    store, copy = Store.open(database), tmp_path / "copy.dump"
    fill(store, sampled)
    backup(store, copy)
    label(store, 1)
    with pytest.raises(UserError, match="holds 2 answers"):
        restore(database, copy)
    assert answers_in(database) == 2
    (tmp_path / "bad.dump").write_bytes(copy.read_bytes()[:2000])
    with pytest.raises(UserError):
        restore(database, tmp_path / "bad.dump", force=True)
    assert answers_in(database) == 2
    assert restore(database, copy, force=True) == {"answers": 1, "people": 1, "projects": 1}
    label(store, 1)  # a server that went on finds the restored tables
    with pytest.raises(Exception, match="append-only"), store.write() as db:
        db.execute(text("DELETE FROM answer"))
    store.close()
    with pytest.raises(UserError, match="pg_restore"):
        (tmp_path / "other.dump").write_text("no dump")
        restore(database, tmp_path / "other.dump", force=True)


def test_a_password_is_on_no_command_line(monkeypatch, tmp_path):
    from tutelage.feedback import copies

    ran = []

    def run(words, env, **_):
        ran.append((words, env.get("PGPASSWORD")))
        return subprocess.CompletedProcess(words, 1, "", "could not connect")

    monkeypatch.setattr(copies.subprocess, "run", run)
    monkeypatch.setattr(copies.shutil, "which", lambda name: f"/bin/{name}")
    engine = create_engine("postgresql+psycopg://tutelage:s3cret@host/name")
    with pytest.raises(UserError, match="could not connect"):
        copies.backup(Store(engine), tmp_path / "x.dump")
    ((words, password),) = ran
    assert password == "s3cret" and not any("s3cret" in word for word in words)
    assert words[-2:] == ["--dbname", "postgresql://tutelage@host/name"]
