"""A store on SQLite, and the same on a private PostgreSQL where its programs are installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tutelage.feedback.projects import create_project, import_records
from tutelage.feedback.store import Store
from tutelage.records import Completion, Prompt


def _postgres_programs():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")) if os.name == "posix" else []
    if found:
        return found[-1].parent
    return Path(shutil.which("pg_ctl")).parent if shutil.which("pg_ctl") else None


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """The address of a server that listens on a socket in a folder of ours."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())  # sockets need a short path
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        if not shutil.which("runuser") or subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("PostgreSQL needs a user `postgres` when tests run as root")
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    data = folder / "data"
    run = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*as_user, str(programs / "initdb"), "-D", str(data), "-U", "tutelage", "-A", "trust", "-N"], **run)
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    control = [*as_user, str(programs / "pg_ctl"), "-D", str(data)]
    subprocess.run([*control, "-w", "-l", str(folder / "log"), "-o", options, "start"], **run)
    yield f"postgresql://tutelage@/postgres?host={folder}"
    subprocess.run([*control, "-m", "immediate", "stop"], **run)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A file with the newest tables, to copy."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    Store.open(path).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path, empty_store):
    if request.param == "sqlite":
        shutil.copy(empty_store, tmp_path / "feedback.db")
        store = Store.open(tmp_path / "feedback.db")
    else:
        from sqlalchemy import text

        store = Store.open(request.getfixturevalue("postgres"))
        with store.write() as db:
            tables = "figures, job, login_failure, round, settlement, admission, api_token, audit, invitation, draft, answer, assignment, task, completion, prompt, project, session, person"
            db.execute(text(f"TRUNCATE {tables} CASCADE"))
    yield store
    store.close()


@pytest.fixture(scope="session")
def sampled():
    """Makes records as `tutelage sample` writes them."""
    return _sampled


def _sampled(prompts=3, answers=4):
    asked = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"Question {i}?"}]) for i in range(prompts)]
    drawn = [
        Completion(id=f"p{i}-{k}", prompt_id=f"p{i}", text=f"Answer {k} to {i}", model="runs/sft")
        for i in range(prompts)
        for k in range(answers)
    ]
    return asked, drawn


@pytest.fixture
def project(store, sampled):
    """The name of a project of three rank tasks."""
    with store.write() as db:
        made = create_project(db, "Round 1", overlap=2)
        import_records(db, made, *sampled())
    return made.id
