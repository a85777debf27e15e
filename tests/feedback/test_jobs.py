"""The queue of jobs: each one is done once, whoever asks at the same time and whoever is killed."""

import os
import random
import signal
import threading
import time

import pytest

from tutelage.errors import UserError
from tutelage.feedback import jobs, jobs_run, lease, people
from tutelage.feedback.imports import import_records
from tutelage.feedback.jobs import Lost
from tutelage.feedback.lease import Lease
from tutelage.feedback.projects import find_project
from tutelage.feedback.queue import Refused
from tutelage.feedback.schema import Answer, Audit, Completion, Job, Task
from tutelage.feedback.steps import StepFailed
from tutelage.feedback.store import Store, audit
from tutelage.records import Prompt


@pytest.fixture
def quick(monkeypatch):
    """Leases and pauses of tests."""
    monkeypatch.setattr(jobs, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(jobs, "PAUSE", 0.0)
    monkeypatch.setattr(lease, "RENEWED", 0.1)
    monkeypatch.setattr(jobs_run, "IDLE", 0.01)


def put(store, project, count=1, kind="label"):
    with store.write() as db:
        return [jobs.put(db, kind, project, {"by": f"world:{i}"}).id for i in range(count)]


def states(store):
    with store.read() as db:
        return {job.id: (job.state, job.attempts) for job in db.query(Job)}


def until(condition, seconds=60):
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.01)


def test_of_a_round_and_of_figures_there_is_one_job_at_a_time(store, project):
    with store.write() as db:
        assert jobs.put(db, "quality", project, {}) is not None
        assert jobs.put(db, "quality", project, {}) is None
        assert jobs.put(db, "round", project, {"number": 1}) is not None
        assert [jobs.put(db, "label", project, {}) is None for _ in range(2)] == [False, False]
    claim = jobs.claim(store, "w", ["quality"])
    with store.write() as db:
        assert jobs.put(db, "quality", project, {}) is None  # it runs
        jobs.end(db, claim, "done")
        assert jobs.put(db, "quality", project, {}) is not None
        jobs.stop(db, jobs.open_job(db, f"round {project}"))
        assert jobs.put(db, "round", project, {"number": 1}) is not None


def test_workers_that_ask_at_once_get_each_job_once(store, project):
    wanted = put(store, project, 40)
    found, ready = [], threading.Barrier(6)

    def work(number):
        mine = Store.open(store.engine.url.render_as_string(False))
        ready.wait()
        while (claim := jobs.claim(mine, f"worker {number}", ["label"])) is not None:
            found.append(claim.id)
        mine.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A claim that meets a row that another one has locked passes it by: all are there after one more look.
    while (claim := jobs.claim(store, "last", ["label"])) is not None:
        found.append(claim.id)
    assert sorted(found) == wanted and set(states(store).values()) == {("running", 1)}


def test_a_lease_that_is_renewed_stays_and_one_that_ended_is_taken(store, project, quick):
    put(store, project)
    claim = jobs.claim(store, "first", ["label"])
    with Lease(store, claim) as mine:
        time.sleep(1.3)
        mine.check()
        assert jobs.claim(store, "second", ["label"]) is None
    time.sleep(1.1)
    taken = jobs.claim(store, "second", ["label"])
    assert (taken.id, taken.attempt) == (claim.id, 2)
    assert not jobs.renew(store, claim) and jobs.renew(store, taken)
    for write in (lambda db: jobs.end(db, claim, "done"), lambda db: jobs.again(db, claim, "")):
        with pytest.raises(Lost), store.write() as db:
            write(db)  # the first worker was asleep, and may write nothing any more
    with pytest.raises(Lost), Lease(store, claim) as late:
        time.sleep(0.3)
        late.check()


def test_what_fails_is_tried_again_a_bounded_number_of_times(store, project, quick, monkeypatch):
    tried = []

    def fails(lease):
        tried.append(lease.claim.attempt)
        raise StepFailed("failed: the endpoint is down", where="job")

    monkeypatch.setitem(jobs_run.DO, "label", fails)
    (name,) = put(store, project)
    worker = jobs_run.Worker(store)
    while worker.once(["label"]):
        pass
    assert tried == [1, 2, 3] and states(store)[name] == ("failed", 3)
    with store.write() as db:
        row = jobs.job_of(db, name)
        assert "the endpoint is down" in row.said
        jobs.retry(db, row)
        with pytest.raises(Refused):
            jobs.stop(db, row)
    monkeypatch.setitem(jobs_run.DO, "label", lambda lease: {"done": 1})
    assert worker.once(["label"]) and states(store)[name + 1] == ("done", 1)

    def refuses(lease):
        raise UserError("is no such model", where="job")

    monkeypatch.setitem(jobs_run.DO, "label", refuses)
    (name,) = put(store, project)
    assert worker.once(["label"]) and not worker.once(["label"]) and states(store)[name] == ("failed", 1)


def test_a_pause_comes_before_the_next_attempt(store, project):
    put(store, project)
    claim = jobs.claim(store, "w", ["label"])
    with store.write() as db:
        assert jobs.again(db, claim, "down")
    assert jobs.claim(store, "w", ["label"]) is None
    with store.read() as db:
        row = db.query(Job).one()
        assert jobs.standing(row, jobs.moment(db)).startswith("tried again in")
        assert row.until - jobs.moment(db) == pytest.approx(jobs.PAUSE, abs=5)


def test_a_job_whose_folder_is_elsewhere_is_left_alone(store, project, tmp_path):
    with store.write() as db:
        row = jobs.put(db, "sample", project, {}, folder=tmp_path / "here")
        assert (tmp_path / "here").is_dir()
        row.at = "/on/another/machine"
    assert jobs.claim(store, "w", ["sample"]) is None


# Each worker writes a line when it begins a job and one when it has ended it, and rests in between.
def laborious(folder):
    def work(lease):
        with (folder / "begun").open("a") as file:
            file.write(f"{lease.claim.id}\n")
        for _ in range(20):
            time.sleep(0.01)
            lease.check()
        with lease.write() as db:  # what a job writes is there once: with this transaction, or not at all
            audit(db, None, "did", str(lease.claim.id))
            jobs.end(db, lease.claim, "done")
        raise Lost  # it has been ended

    return work


def test_workers_that_are_killed_lose_no_job_and_do_none_twice(store, project, quick, monkeypatch, tmp_path):
    """kill -9 of one of three workers, time and again; each job's write is made once."""
    monkeypatch.setitem(jobs_run.DO, "label", laborious(tmp_path))
    monkeypatch.setattr(jobs, "ATTEMPTS", 50)
    address, draw, workers = store.engine.url.render_as_string(False), random.Random(5), []
    wanted = put(store, project, 30)

    def fork():
        pid = os.fork()
        if pid == 0:
            try:
                worker = jobs_run.Worker(Store.open(address), [["label"]])
                worker.start()
                worker.ending.wait()
            finally:
                os._exit(0)
        workers.append(pid)

    def kill(pid):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        workers.remove(pid)

    try:
        for _ in range(3):
            fork()
        for _ in range(8):
            time.sleep(draw.uniform(0.05, 0.3))
            kill(draw.choice(workers))
            fork()
        until(lambda: all(state == "done" for state, _ in states(store).values()))
    finally:
        for pid in list(workers):
            kill(pid)
    with store.read() as db:
        written = [int(row.detail) for row in db.query(Audit)]
    assert sorted(written) == wanted
    begun = (tmp_path / "begun").read_text().split()
    assert len(begun) == sum(attempts for _, attempts in states(store).values()) > len(wanted)


def test_a_stopped_job_ends_within_a_sign_of_life(store, project, quick, monkeypatch):
    reached = threading.Event()

    def endless(lease):
        while True:
            reached.set()
            lease.check()
            time.sleep(0.01)

    monkeypatch.setitem(jobs_run.DO, "label", endless)
    (name,) = put(store, project)
    with jobs_run.working(store) as worker:
        reached.wait(10)
        with store.write() as db:
            jobs.stop(db, jobs.job_of(db, name))
        monkeypatch.setitem(jobs_run.DO, "label", lambda lease: {})
        (other,) = put(store, project)
        until(lambda: states(store)[other] == ("done", 1))
    assert states(store)[name] == ("stopped", 1) and not any(thread.is_alive() for thread in worker.threads)


def test_simulated_labelers_and_fresh_answers_are_jobs(store, project, sampled, monkeypatch, tmp_path):
    """With the real command's records, and its process left out."""
    ran = []

    def step(lease, *words):
        ran.append(words)
        if words[0] == "sample":
            from tutelage.data.formats import write_jsonl

            write_jsonl(lease.claim.folder / "samples.jsonl", [*sampled(2)[0], *sampled(2)[1]])

    monkeypatch.setattr(jobs_run, "_step", step)
    wanted = {"model": "world", "prompts": 2, "samples": 4, "max_new_tokens": 8, "temperature": 0.5}
    with store.write() as db:
        asked = [Prompt(id="own", messages=[{"role": "user", "content": "Own?"}])]
        import_records(db, find_project(db, project), asked, [], "prompts")
        jobs.put(db, "sample", project, wanted, folder=tmp_path / "7")
        jobs.put(db, "label", project, {"by": "world:fair"}, folder=tmp_path / "8")
        before = db.query(Task).count()
    worker = jobs_run.Worker(store)
    assert worker.once(["sample", "label"]) and worker.once(["sample", "label"])
    assert ran[0][:3] == ("sample", "--model", "world") and ran[1] == (
        "label",
        "--by",
        "world:fair",
        "--project",
        project,
    )
    with store.write() as db:
        assert db.query(Task).count() == before + 2
        assert {one.id for one in db.query(Completion)} >= {"j7-p0-0", "j7-p1-3"}
        row = db.query(Job).filter_by(kind="sample").one()
        assert row.result == {"items": 2, "answers": 8}
        row.state = "failed"  # as if the worker had died before it could say so
        jobs.retry(db, row)
    assert worker.once(["sample"])
    with store.read() as db:
        assert db.query(Task).count() == before + 2 and len(ran) == 2


def test_a_labelers_job_is_done_by_the_real_command(store, tmp_path, monkeypatch):
    """End to end: the worker starts `tutelage label`, which answers the world's items in this store."""
    from tutelage.feedback.projects import create_project
    from tutelage.records import Completion as Drawn
    from tutelage.world.tasks import prompts

    monkeypatch.setenv("TUTELAGE_QUIET", "1")
    asked = prompts("train", 3)
    drawn = [Drawn(id=f"{p.id}-{k}", prompt_id=p.id, text="Yes." * (k + 1), model="m") for p in asked for k in range(2)]
    with store.write() as db:
        import_records(db, create_project(db, "World"), asked, drawn)
        people.add_person(db, "ana", "lead", None, person_id="ana")
        jobs.put(db, "label", "world", {"by": "world:fair"}, folder=tmp_path / "job")
    assert jobs_run.Worker(store).once(["label"])
    with store.read() as db:
        job = db.query(Job).one()
        assert job.state == "done", (job.said, (tmp_path / "job/log.txt").read_text())
        assert db.query(Answer).count() == 3
