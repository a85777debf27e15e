"""A forgotten password: who may make the link, who may use it, how often, and what ends with it."""

import re
import shutil
import threading
import time

import pytest
from sqlalchemy import select, update

from tutelage.cli.main import main
from tutelage.feedback import Store, passwords, people
from tutelage.feedback.schema import Audit, PasswordLink, Person
from tutelage.web import create_app

from .site import PASSWORD, Browser, on_both

NEW = " another long password "  # with the blanks that were typed


def number(store, name):
    with store.read() as db:
        return people.by_name(db, name).id


def link(browser, store, name):
    page = browser.form(f"/people/{number(store, name)}/password")
    found = re.search(r"http://testserver(/password/[\w-]+)", page.text)
    return found.group(1) if found else page.status_code


def use(app, path, password=NEW):
    browser = Browser(app)
    return browser, browser.http.post(path, data={"password": password})


def sign_in(app, name, password):
    return Browser(app).http.post("/login", data={"name": name, "password": password}).status_code


@on_both
def test_a_link_sets_the_password_once_and_ends_every_session(signed_in, filled):
    lead, labeler = signed_in["lead"], signed_in["labeler"]
    app = labeler.http.app
    path = link(lead, filled, "Labeler")
    assert "New password for Labeler" in Browser(app).get(path).text
    assert labeler.get("/").status_code == 200  # nothing ends before it is used
    assert use(app, path, "short")[1].status_code == 422
    there, reply = use(app, path)
    assert reply.status_code == 303 and "HttpOnly; SameSite=Lax" in reply.headers["set-cookie"]
    assert "Round 1" in there.get("/").text
    assert labeler.get("/").status_code == 303  # signed out
    for again in (Browser(app).get(path), use(app, path, "a third long password")[1]):
        assert again.status_code == 403 and "was used or has ended" in again.text
    assert sign_in(app, "Labeler", PASSWORD) == 403 and sign_in(app, "Labeler", NEW.strip()) == 403
    assert sign_in(app, "Labeler", NEW) == 303  # as it was typed
    with filled.read() as db:
        log = db.execute(select(Audit.person_id, Audit.action, Audit.detail).where(Audit.action.contains("password")))
        stored = str([list(row) for row in db.execute(select(PasswordLink.token))])
        who = {name: key for key, name in db.execute(select(Person.id, Person.name))}
        assert [tuple(row) for row in log] == [
            (who["Lead"], "make password link", "Labeler"),
            (who["Labeler"], "set password", ""),
        ]
    assert path.rpartition("/")[2] not in stored
    assert "make password link" in signed_in["admin"].get("/people").text


def test_a_link_ends_after_a_day_and_with_the_next_one(signed_in, filled):
    lead, app = signed_in["lead"], signed_in["lead"].http.app
    first, second = link(lead, filled, "Labeler"), link(lead, filled, "Labeler")
    assert use(app, first)[1].status_code == 403
    with filled.write() as db:
        db.execute(update(PasswordLink).values(expires=time.time() - 1))
    assert Browser(app).get(second).status_code == use(app, second)[1].status_code == 403
    assert sign_in(app, "Labeler", PASSWORD) == 303  # the old one holds


def test_nobody_makes_a_link_to_rights_they_do_not_have(signed_in, filled):
    with filled.write() as db:
        people.add_person(db, "Second lead", "lead", PASSWORD)
        people.program(db, "world:fair")
    lead, admin = signed_in["lead"], signed_in["admin"]
    for name in ("Admin", "Second lead", "Lead", "world:fair"):
        assert link(lead, filled, name) == 403
    for name in ("Admin", "world:fair"):  # not one's own over an open session, and not a program's
        assert link(admin, filled, name) == 403
    assert link(signed_in["labeler"], filled, "Labeler") == 403
    assert link(signed_in["nobody"], filled, "Labeler") == 401
    page = lead.get("/people").text
    assert page.count(">New password <") == 1 and admin.get("/people").text.count(">New password <") == 3
    lead.csrf = "x"
    assert link(lead, filled, "Labeler") == 403
    with filled.read() as db:
        assert db.scalar(select(PasswordLink.token)) is None


@pytest.mark.parametrize("closed", ["Labeler", "Lead"])
def test_a_link_ends_with_the_account_and_with_its_makers(signed_in, filled, closed):
    app = signed_in["lead"].http.app
    path = link(signed_in["lead"], filled, "Labeler")
    signed_in["admin"].form(f"/people/{number(filled, closed)}/active", active="0")
    assert use(app, path)[1].status_code == 403
    if closed == "Labeler":
        signed_in["admin"].form(f"/people/{number(filled, closed)}/active", active="1")
        assert use(app, path)[1].status_code == 403  # nor does it come back with the account


def test_a_link_opens_the_door_that_wrong_tries_had_shut(signed_in, filled):
    app = signed_in["lead"].http.app
    for _ in range(6):
        with filled.write() as db:
            people.note_failure(db, people.name_key("labeler"))
    assert sign_in(app, "Labeler", PASSWORD) == 429
    assert use(app, link(signed_in["lead"], filled, "Labeler"))[1].status_code == 303
    assert sign_in(app, "Labeler", NEW) == 303


def test_two_who_use_a_link_at_once_set_one_password(filled, signed_in):
    app = signed_in["lead"].http.app
    path, codes = link(signed_in["lead"], filled, "Labeler"), []
    each = [threading.Thread(target=lambda i=i: codes.append(use(app, path, f"{NEW}{i}")[1].status_code)) for i in "ab"]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    assert sorted(codes) == [303, 403]


def test_a_new_account_signs_in_with_the_password_as_it_was_typed(filled, signed_in):
    with filled.write() as db:
        token = people.invite(db, "labeler", None)
    app = signed_in["lead"].http.app
    assert Browser(app).http.post(f"/join/{token}", data={"name": "Eve", "password": NEW}).status_code == 303
    assert (sign_in(app, "Eve", NEW), sign_in(app, "Eve", NEW.strip())) == (303, 403)


def test_the_locked_out_administrator_asks_the_command_line(tmp_path, capsys, empty_store):
    shutil.copy(empty_store, tmp_path / "feedback.db")
    store = Store.open(tmp_path / "feedback.db")
    with store.write() as db:
        people.add_person(db, "Mira", "admin", PASSWORD)
    words = ["feedback", "password", "--url", "https://label.example/", "--store", str(tmp_path / "feedback.db")]

    def run(name):
        with pytest.raises(SystemExit) as caught:
            main([*words, name])
        return caught.value.code

    assert run("Nobody") == 2
    assert "no such account" in capsys.readouterr().err
    assert run("mira") == 0
    path = re.search(r"https://label.example(/password/[\w-]+)", capsys.readouterr().out).group(1)
    app = create_app(store)
    assert use(app, path)[1].status_code == 303 and sign_in(app, "Mira", NEW) == 303
    with store.read() as db:
        log = db.execute(select(Audit.person_id, Audit.action).where(Audit.action == "make password link")).all()
        assert [tuple(row) for row in log] == [("command line", "make password link")]
        assert not passwords.may_make(people.by_name(db, "Mira"), people.by_name(db, "Mira"))
    store.close()


@on_both
def test_a_person_changes_their_own_password(signed_in, filled):
    labeler, app = signed_in["labeler"], signed_in["labeler"].http.app
    path = link(signed_in["lead"], filled, "Labeler")
    other = Browser(app)
    other.http.post("/login", data={"name": "Labeler", "password": PASSWORD})
    assert 'href="/account"' in labeler.get("/").text and "New password" in labeler.get("/account").text
    wrong = labeler.form("/account/password", old="something else", password=NEW)
    assert wrong.status_code == 403 and "present password is wrong" in wrong.text
    assert labeler.form("/account/password", old=PASSWORD, password="short").status_code == 422
    changed = labeler.form("/account/password", old=PASSWORD, password=NEW)
    assert changed.status_code == 200 and "Changed." in changed.text
    assert labeler.get("/").status_code == 200 and other.get("/").status_code == 303  # signed out elsewhere only
    assert signed_in["nobody"].get(path).status_code == 403  # a link of before is good no more
    assert (sign_in(app, "Labeler", NEW), sign_in(app, "Labeler", PASSWORD)) == (303, 403)
    for _ in range(5):
        labeler.form("/account/password", old="guess", password=NEW)
    assert labeler.form("/account/password", old=NEW, password=NEW).status_code == 429
