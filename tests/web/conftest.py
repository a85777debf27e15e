"""A server's application over a store with three kinds of task, and people of each role."""

import shutil

import pytest

from tutelage.feedback import Store, people
from tutelage.feedback.projects import find_project, import_records
from tutelage.feedback.queue import set_priorities
from tutelage.records import Completion, Prompt
from tutelage.web import create_app

from .site import PASSWORD, Browser, fill


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "empty.db"
    Store.open(path).close()
    return path


@pytest.fixture
def store(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "feedback.db")
    store = Store.open(tmp_path / "feedback.db")
    yield store
    store.close()


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
