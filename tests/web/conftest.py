"""A server's application over a store with three kinds of task, and people of each role."""

import shutil
import time

import pytest
from sqlalchemy import delete, event

from tutelage.feedback import Store, people
from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import find_project
from tutelage.feedback.queue import set_priorities
from tutelage.feedback.schema import Assignment, Draft
from tutelage.records import Completion, Prompt
from tutelage.web import create_app

from .site import PASSWORD, Browser, fill


@pytest.fixture
def store(request, new_store):
    """On SQLite; tests that are marked `on_both` have it on PostgreSQL too."""
    return new_store(getattr(request, "param", "sqlite"))


@pytest.fixture
def filled(store):
    fill(store)
    return store


@pytest.fixture
def fill_more(filled):
    """Adds a prompt with these answers to `round-1`."""

    def add(name, prompt, texts):
        asked = [Prompt(id=name, messages=[{"role": "user", "content": prompt}])]
        drawn = [Completion(id=f"{name}-{k}", prompt_id=name, text=text) for k, text in enumerate(texts)]
        with filled.write() as db:
            project = find_project(db, "round-1")
            import_records(db, project, asked, drawn)
            set_priorities(db, project, {name: 9.0})

    return add


@pytest.fixture
def local(filled):
    """The single user of a start on this machine."""
    browser = Browser(create_app(filled, local=True), "http://localhost:8000")
    browser.get("/")
    return browser


@pytest.fixture
def signed_in(filled):
    """A browser of each role, over one application that demands accounts."""
    app = create_app(filled)
    browsers = {"nobody": Browser(app)}
    for role in ("admin", "lead", "labeler"):
        with filled.write() as db:
            person = people.add_person(db, role.title(), role, PASSWORD)
            token, session = people.sign_in(db, person)
        browsers[role] = Browser(app)
        browsers[role].http.cookies.set("tutelage_session", token)
        browsers[role].csrf = session.csrf
    return browsers


@pytest.fixture(scope="module")
def site(tmp_path_factory, empty_store):
    """(address, store) of a server that demands accounts, for a browser; it waits for a lock half a second only."""
    from .chromium import serving  # skips where there is no browser

    path = tmp_path_factory.mktemp("site") / "feedback.db"
    shutil.copy(empty_store, path)
    store = Store.open(path)
    store.engine.dispose()
    event.listen(store.engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=500"))
    fill(store, prompts=14)
    with store.write() as db:
        people.add_person(db, "Ana", "lead", PASSWORD, person_id="ana")
    with serving(create_app(store)) as address:
        yield address, store


@pytest.fixture(scope="module")
def chromium(site):
    """A browser in which Ana, a lead, is signed in."""
    from .chromium import browser, sign_in

    driver = browser("1400,900")
    sign_in(driver, site[0], "Ana", PASSWORD)
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium, site):
    from .chromium import Page, console

    page = Page(chromium, site)
    chromium.get(f"{site[0]}/login")  # the page before may send a last draft, and keep its seconds
    time.sleep(0.15)
    chromium.execute_script("localStorage.clear()")
    with page.store.write() as db:
        db.execute(delete(Draft))
        db.execute(delete(Assignment).where(Assignment.state == "leased"))
    yield page
    page.network(False)
    chromium.execute_script("localStorage.clear()")
    assert console(chromium) == []  # no error, and no report of the content policy
