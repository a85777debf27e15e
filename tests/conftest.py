"""A nano model of the world, with fresh weights, that any stage can load; stores on both databases."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share two cores
os.environ["TUTELAGE_STRICT_METRICS"] = "1"  # a metric that is not registered is an error
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests in the background ignores it
MEMORY = Path("/dev/shm")
if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    # A run's half a gigabyte of files needs no disk, and what waits for one (fsync) is a large part of the time.
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# The files that take longest are begun first, so that no process is left alone with one at the end.
LONG = (
    "stages/test_curves.py", "device/test_pretended.py", "web/test_checklist.py", "studies/test_fast.py",
    "web/test_unsent.py", "stages/test_crash.py", "web/test_loop_closes.py", "stages/test_processes.py",
    "web/test_browser.py", "web/test_story.py", "web/test_versions.py", "feedback/test_rounds_killed.py",
    "stages/test_abilities.py", "stages/test_preference.py", "stages/test_group_policy.py", "serving/test_serve.py",
    "feedback/test_jobs.py", "feedback/test_workers.py", "stages/test_adapters_in_stages.py", "runs/test_crash.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.relative_to(Path(__file__).parent).as_posix(), len(LONG)))


@pytest.fixture(scope="session")
def tokenizer():
    """The packaged base's, which `make_tokenizer` makes (`test_corpus.py`)."""
    from tutelage.models.checkpoint import load_tokenizer
    from tutelage.world import base_path

    return load_tokenizer(base_path())


@pytest.fixture(scope="module")
def little_text():
    """Stages that mix plain text in, or measure the loss on it, make little of it, and on-policy ones few prompts."""
    from tutelage.data import sources
    from tutelage.stages import evaluate, group_policy, ppo, sft

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "CHUNK", 20)
        patch.setattr(ppo, "PTX_TOKENS", 2000)
        patch.setattr(sft, "MIXED_TOKENS", 2000)
        patch.setattr(evaluate, "CORPUS_TOKENS", 1500)
        for stage in (ppo, group_policy):
            patch.setattr(stage, "ON_POLICY_PROMPTS", 400)
        yield


@pytest.fixture(scope="session")
def nano(tmp_path_factory, tokenizer) -> Path:
    """A folder with an untrained nano policy."""
    from tutelage.models import Policy, save_model
    from tutelage.world.build import SIZES, make_model

    folder = tmp_path_factory.mktemp("nano") / "model"
    save_model(
        folder, Policy(make_model(SIZES["nano"], tokenizer, 0, "float32"), tokenizer), {"role": "policy"}, verify=True
    )
    return folder


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
    from tutelage.feedback import Store

    path = tmp_path_factory.mktemp("store") / "empty.db"
    Store.open(path).close()
    return path


@pytest.fixture
def new_store(request, tmp_path, empty_store):
    """Opens an empty store on "sqlite" or "postgresql"; each test may have one of each."""
    from tutelage.feedback import Store

    opened = []

    def make(kind):
        if kind == "sqlite":
            shutil.copy(empty_store, tmp_path / "feedback.db")
            store = Store.open(tmp_path / "feedback.db")
        else:
            store = Store.open(request.getfixturevalue("postgres"))
            _empty(store)
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


def _empty(store) -> None:
    """Take every row out of a PostgreSQL store; its triggers refuse that, so the server's owner puts them aside."""
    from sqlalchemy import text

    from tutelage.feedback.schema import Base

    with store.write() as db:
        db.execute(text("SET LOCAL session_replication_role = replica"))
        db.execute(text(f"TRUNCATE {', '.join(Base.metadata.tables)} CASCADE"))
