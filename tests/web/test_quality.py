"""Figures that take long are made by a job, for all servers; a page shows the last ones until then."""

import random

import pytest

from tutelage.feedback import figures as module
from tutelage.feedback import jobs, jobs_run, people, queue
from tutelage.feedback.jobs_run import Worker
from tutelage.feedback.projects import find_project
from tutelage.feedback.schema import Figures as Stored
from tutelage.feedback.statistics import quality
from tutelage.web import quality as page
from tutelage.web.quality import Figures

from . import site


@pytest.fixture
def asked(store, monkeypatch):
    """The projects whose figures were worked out; an answer came before each look."""
    site.fill(store)
    found, numbers = [], iter(range(100))
    monkeypatch.setattr(module, "quality", lambda db, project: found.append(project.id) or {"count": len(found)})
    for one in (module, page):
        monkeypatch.setattr(one, "last_number", lambda db, project: next(numbers))
    return found


def test_a_page_waits_for_quick_figures_and_not_for_slow_ones(store, asked, monkeypatch):
    figures, other = Figures(store), Figures(store)
    assert [figures.of("round-1")["count"] for _ in range(2)] == [1, 2]  # quick: anew each time
    monkeypatch.setattr(page, "AT_ONCE", 0.0)
    monkeypatch.setattr(page, "SHARE", 0)

    def here(store, words, *_, name):
        number, found, took = module.work_out(store, words[-1])
        with store.write() as db:
            module.keep(db, words[-1], number, found, took)

    monkeypatch.setattr(jobs_run, "run_step", here)
    worker = Worker(store)
    assert [figures.of("round-1")["count"] for _ in range(3)] == [2, 2, 2]  # slow: the last ones, and one job
    with store.read() as db:
        assert [job.kind for job in jobs.listed(db)] == ["quality"]
    assert worker.once(["quality"]) and not worker.once(["quality"])
    assert len(asked) == 3 and figures.of("round-1")["count"] == other.of("round-1")["count"] == 3
    assert worker.once(["quality"])
    with store.read() as db:
        assert len(jobs.listed(db)) == 1  # of jobs that come by themselves the last one is kept


def test_a_job_works_figures_out_in_a_process_of_its_own(store, monkeypatch):
    site.fill(store)
    monkeypatch.setattr(module, "quality", None)  # not in this one
    with store.write() as db:
        jobs.put(db, "quality", "round-1", {})
    assert Worker(store).once(["quality"])
    with store.read() as db:
        [job] = jobs.listed(db)
        assert (job.state, job.said) == ("done", "")
        assert db.get_one(Stored, "round-1").found["agreement"]["items"] == 0


def test_slow_figures_are_made_so_often_that_they_take_a_small_share_of_the_time(store, asked, monkeypatch):
    monkeypatch.setattr(page, "AT_ONCE", 0.0)
    figures = Figures(store)
    monkeypatch.setattr(page, "SHARE", 1e9)
    assert [figures.of("round-1")["count"] for _ in range(3)] == [1, 1, 1]
    with store.read() as db:
        assert jobs.listed(db) == []


def test_the_same_answers_are_not_counted_again(store, monkeypatch):
    site.fill(store)
    asked = []
    monkeypatch.setattr(module, "quality", lambda db, project: asked.append(1) or {})
    figures = Figures(store)
    figures.of("round-1"), figures.of("round-1")
    assert len(asked) == 1


def test_figures_come_out_of_the_store_as_they_went_in(store):
    site.fill(store)
    rng = random.Random(2)
    with store.write() as db:
        project = find_project(db, "round-1")
        for person in ("ana", "ben"):
            people.add_person(db, person, "labeler", None, person_id=person)
            while (task := queue.lease_next(db, project, person)) is not None:
                ranks = rng.sample(range(1, 5), 4)
                queue.submit(db, f"{person}-{task.id:08}", task.id, person, "rank", {"ranks": ranks}, seconds=9.5)
        found = quality(db, project)
        module.keep(db, project.id, 7, found, 1.5)
    assert found["labelers"]
    with store.read() as db:
        row = db.get_one(module.Figures, "round-1")
        assert row.number == 7 and module.unpacked(row.found) == found
    with store.write() as db:
        module.keep(db, "round-1", 6, {"older": 1}, 1.5)
    with store.read() as db:
        assert db.get_one(module.Figures, "round-1").number == 7
