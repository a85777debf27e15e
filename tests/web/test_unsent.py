"""Work that could be lost: a store that is locked or full, answers that come back, signing out, leases, unread ends."""

import sqlite3
import time
from contextlib import contextmanager

from sqlalchemy import select

from tutelage.feedback import people, queue
from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import find_project
from tutelage.feedback.queue import set_priorities
from tutelage.feedback.schema import Answer, Draft
from tutelage.records import Completion, Prompt

from .chromium import ActionChains, By, Keys, sign_in
from .site import PASSWORD


@contextmanager
def locked(store):
    """Another program holds the database."""
    other = sqlite3.connect(store.engine.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextmanager
def full(store):
    """The file may not grow, as on a full disk (SQLite's own error).

    No event of SQLAlchemy's: a list of listeners may not change while the server's threads go through it.
    """
    dialect = store.engine.dialect
    dialect.do_begin = lambda connection: connection.execute("PRAGMA max_page_count = 1")  # not below what it has
    try:
        yield
    finally:
        del dialect.do_begin
        store.engine.dispose()


def kept(page, key):
    return page.run("return JSON.parse(localStorage.getItem('tutelage:ana:' + arguments[0]))", key)


def stored(page, task):
    with page.store.read() as db:
        return db.scalars(select(Answer).filter_by(task_id=task)).all()


def test_a_locked_store_keeps_answers_waiting_and_they_go_by_themselves(page, monkeypatch):
    monkeypatch.setattr(queue, "FOR_EACH", 1000)  # so few items that one alone is fetched ahead
    page.open("/p/round-1/next")
    first = page.task()
    page.ahead()
    with locked(page.store):
        page.press("1", "1", "3", "4", Keys.ENTER)
        page.until(lambda: page.task() != first)  # goes on with the one at hand
        assert "the database is locked" in page.strip() and "1 answer waiting" in page.strip()
        second = page.task()
        page.press("1", "2", "3", "4", Keys.ENTER)  # none is at hand now
        page.until(lambda: "cannot give the next item" in page.find("main").text)
        assert "2 answers waiting" in page.strip() and kept(page, f"draft:{second}")["payload"]["ranking"]
        assert not stored(page, first)
    page.until(lambda: "Sent 2 answers." in page.strip(), 20)
    assert (page.answer(first)[1], page.answer(second)[1]) == ("B > A > C > D", "A > B > C > D")
    page.until(lambda: page.task() not in (first, second))
    assert not kept(page, "outbox") and kept(page, f"draft:{second}") is None


def test_a_full_disk_keeps_the_draft_and_the_answer(page):
    page.open("/p/texts/next")
    task, text = page.task(), "The disk is full. " * 900
    write = "const a = document.querySelector('#answer'); a.value = arguments[0]; a.dispatchEvent(new Event('input', {bubbles: true}))"
    with full(page.store):
        page.run(write, text)
        page.until(lambda: "the server's disk is full. Your draft is safe here" in page.strip())
        assert page.find("#saved").text == "Kept in this browser" and kept(page, f"draft:{task}")["unsaved"]
    page.until(lambda: page.find("#saved").text.startswith("Saved"))  # tried again
    assert page.strip() == "" and "unsaved" not in kept(page, f"draft:{task}")
    with full(page.store):
        page.run(write, text * 2)
        ActionChains(page.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
        page.until(lambda: "disk is full" in page.strip() and "1 answer waiting" in page.strip())
        assert kept(page, f"draft:{task}")["payload"]["turns"] == [text * 2] and not stored(page, task)
    (answer,) = page.until(lambda: stored(page, task))
    assert answer.payload["messages"][-1]["content"].strip() == (text * 2).strip()


def refuse(page):
    """An answer waits, and its number is taken when it is sent. Returns its item."""
    page.open("/p/round-1/next")
    task = page.task()
    page.ahead()
    page.network(True)
    page.press("2", "1", Keys.ENTER)
    page.until(lambda: page.task() != task)
    (waiting,) = kept(page, "outbox")
    with page.store.write() as db:
        person = people.add_person(db, f"Taker {task}", "labeler", None)
        other = queue.lease_next(db, find_project(db, "round-1"), person.id)
        queue.submit(db, waiting["answer"]["id"], other.id, person.id, "rank", {"ranks": [1, 2, 3, 4]})
    page.network(False)
    page.until(lambda: "Not sent: 1 answer" in page.strip())
    return task


def test_an_answer_that_comes_back_is_told_and_its_draft_is_there(page):
    task = refuse(page)
    assert "An answer with this number exists already." in page.strip() and "Sent" not in page.strip()
    assert kept(page, "outbox") == [] and kept(page, f"draft:{task}")
    page.find("#strip a").click()
    page.until(lambda: page.task() == task and page.ranking() == "B > A")
    assert "An answer with this number" in page.find("#summary").text
    page.find("#submit").click()
    page.until(lambda: page.task() != task)
    assert page.answer(task)[1] == "B > A" and page.strip() == "" and kept(page, "refused") == []


def test_signing_out_sends_what_waits_and_only_then_clears(page):
    page.open("/p/round-1/next")
    task = page.task()
    page.ahead()
    page.network(True)
    page.press("1", "2", Keys.ENTER)
    page.until(lambda: page.task() != task)
    page.press("3")  # a draft that only the browser has
    drafted = page.task()
    out = "[data-act=sign-out] button"
    page.find(out).click()
    page.until(lambda: "Not sent: 1 answer and 1 draft." in page.strip())
    assert len(kept(page, "outbox")) == 1 and "still signed in" in page.strip()
    page.network(False)
    page.find(out).click()
    page.until(lambda: page.driver.current_url.endswith("/login"))
    assert page.answer(task)[1] == "A > B"
    with page.store.read() as db:
        assert db.get(Draft, (drafted, "ana")).payload["ranking"] == "A"
    assert page.run("return Object.keys(localStorage).filter(k => k.startsWith('tutelage:ana'))") == []
    sign_in(page.driver, page.url, "Ana", PASSWORD)


def test_signing_out_all_the_same_keeps_what_was_not_taken(page):
    task = refuse(page)
    page.find("[data-act=sign-out] button").click()
    page.until(lambda: "Not sent: 1 answer. You are still" in page.strip())
    page.find("#strip button").click()
    page.until(lambda: page.driver.current_url.endswith("/login"))
    assert kept(page, f"draft:{task}")["payload"]["ranking"] == "B > A" and kept(page, "last") is None
    sign_in(page.driver, page.url, "Ana", PASSWORD)
    page.until(lambda: "Not sent: 1 answer." in page.strip())
    next(one for one in page.driver.find_elements(By.CSS_SELECTOR, "#strip button") if one.text == "Put away").click()
    assert page.strip() == "" and kept(page, f"draft:{task}") is None


def lend(page, seconds):
    with page.store.write() as db:
        find_project(db, "round-1").lease_seconds = seconds


def test_a_lease_lasts_as_long_as_the_project_says_and_both_ends_are_told(page):
    try:
        lend(page, 120)
        page.open("/p/round-1/next")
        assert page.find("#lease").text == "yours for 2 min"
        page.open("/")
        with page.store.write() as db:
            queue.renew(db, db.scalar(select(queue.Assignment.task_id).filter_by(state="leased")), "ana")
            db.query(queue.Assignment).filter_by(state="leased").delete()
        lend(page, 1)
        page.open("/p/round-1/next")
        for _ in range(2):  # each time it is the project's second again, not half an hour
            time.sleep(1.2)
            page.run("document.querySelector('#strip').hidden = true")
            page.press("p")
            page.until(lambda: "Your 1 minute ended; it was still free, go on." in page.strip())
        with page.store.write() as db:  # in one go: the page would take its second again meanwhile
            task = page.task()
            db.query(queue.Assignment).filter_by(task_id=task, person_id="ana").update({"expires": 0.0})
            project = find_project(db, "round-1")
            set_priorities(db, project, {db.get_one(queue.Task, task).prompt_id: 99.0})
            for name in ("Early", "Bird"):
                person = people.add_person(db, name, "labeler", None)
                assert queue.lease_next(db, project, person.id).id == task
                queue.submit(db, f"early-{person.id}", task, person.id, "rank", {"ranks": [1, 2, 3, 4]})
        page.press("p")
        page.until(lambda: "Others finished it. Submit anyway" in page.strip())
        page.press("1", "2", Keys.ENTER)
        page.until(lambda: "Kept. Others had finished it" in page.find("#toast").text)
        page.until(lambda: len(stored(page, task)) == 3)
        assert [one.extra for one in stored(page, task) if one.person_id == "ana"] == [True]
    finally:
        lend(page, 1800)


def add(page, name, texts):
    """A prompt that comes first."""
    asked = [Prompt(id=name, messages=[{"role": "user", "content": f"{name}?"}])]
    drawn = [Completion(id=f"{name}-{k}", prompt_id=name, text=text) for k, text in enumerate(texts)]
    with page.store.write() as db:
        project = find_project(db, "round-1")
        import_records(db, project, asked, drawn)
        set_priorities(db, project, {name: 9.0})


def test_seen_means_that_the_end_was_on_screen(page):
    long = [f"Text {k}. " + "word " * 600 for k in range(2)]
    add(page, "unread", [*long, "Short one.", "Short two."])
    page.open("/p/round-1/next")
    task = page.task()
    letters = {page.find(f"#card-{x} .text").text[:6]: x for x in "ABCD"}
    page.press("1", "2", "3", "4", Keys.ENTER)
    fault = page.until(lambda: page.find("#fault-ranking").text)
    assert "was not on screen" in fault and page.task() == task
    # one is opened (all open), and only its end is looked at
    page.find(f"#card-{letters['Text 0']} [data-act=open]").click()
    assert page.run("return document.querySelectorAll('.open[aria-expanded=true]').length") == 4
    page.run("document.querySelector('#card-A').scrollIntoView()")
    page.run(f"document.querySelector('[data-end={letters['Text 0']}]').scrollIntoView({{block: 'center'}})")
    time.sleep(0.2)
    page.find("#submit").click()
    page.until(lambda: page.task() != task)
    seen = dict(zip("ABCD", page.answer(task)[0].effort["seen"], strict=True))
    assert seen[letters["Text 0"]] and page.answer(task)[0].effort["revisits"] >= 0
    add(page, "read", ["One.", "Two.", "Three.", "Four."])
    page.open("/p/round-1/next")
    task = page.task()
    page.press("1", "2", "3", "4", Keys.ENTER)  # all of it is on screen: no warning
    page.until(lambda: page.task() != task)
    assert page.answer(task)[0].effort["seen"] == [True] * 4
