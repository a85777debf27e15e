import threading

import pytest
from sqlalchemy import select

from tutelage.errors import UserError
from tutelage.feedback import people
from tutelage.feedback.schema import Invitation, LoginFailure, Person, Session
from tutelage.feedback.store import COMMAND_LINE


def test_an_invitation_makes_one_account_and_no_secret_is_stored(store):
    with store.write() as db:
        token = people.invite(db, "labeler", None)
    with store.write() as db:
        person = people.accept(db, token, "Ana", "a long password")
        cookie, _ = people.sign_in(db, person)
    with pytest.raises(UserError, match="used or has ended"), store.write() as db:
        people.accept(db, token, "Ben", "a long password")
    with store.read() as db:
        assert people.check_password(db, "ana ", "a long password").role == "labeler"
        assert people.check_password(db, "ana", "a long passwore") is None
        assert people.check_password(db, "nobody", "a long password") is None
        assert people.find_session(db, cookie)[1].name == "Ana"
        assert people.find_session(db, cookie + "x") is None
        stored = f"{db.scalars(select(Invitation.token)).all()} {db.scalars(select(Session.token)).all()}"
        assert db.scalar(select(Person.password)).startswith("$argon2id$")
    assert token not in stored and cookie not in stored


def test_who_is_no_longer_active_is_signed_out(store):
    with store.write() as db:
        person = people.add_person(db, "Ana", "admin", "a long password")
        cookie, _ = people.sign_in(db, person)
        assert people.has_admin(db)
        people.set_active(db, person, False)
    with store.read() as db:
        assert people.find_session(db, cookie) is None
        assert people.check_password(db, "Ana", "a long password") is None
        assert not people.has_admin(db)


def test_an_invitation_ends_with_the_account_that_made_it(store):
    with store.write() as db:
        lead = people.add_person(db, "Lea", "lead", "a long password")
        token, other = people.invite(db, "labeler", lead.id), people.invite(db, "labeler", COMMAND_LINE)
        people.set_active(db, lead, False)
    with store.read() as db:
        assert people.open_invitation(db, token) is None and people.open_invitation(db, other) is not None


@pytest.mark.parametrize(
    ("name", "role", "password"),
    [
        ("", "labeler", "a long password"),
        ("Ana", "owner", "a long password"),
        ("Ana", "lead", "short"),
        ("<b>", "lead", None),
    ],
)
def test_bad_accounts_are_refused(store, name, role, password):
    with pytest.raises(UserError), store.write() as db:
        people.add_person(db, name, role, password)


def test_names_are_unique_whatever_their_case(store):
    with pytest.raises(UserError, match="already"), store.write() as db:
        people.add_person(db, "Ana", "labeler", None)
        people.add_person(db, "ANA", "labeler", None)


def test_each_failure_past_the_fifth_waits_longer(store, monkeypatch):
    now = [2e6]
    monkeypatch.setattr(people.time, "time", lambda: now[0])

    def left(*keys):
        with store.read() as db:
            return people.seconds_to_wait(db, *keys)

    def fail(*keys):
        with store.write() as db:
            people.note_failure(db, *keys)

    for _ in range(4):
        fail("ana")
    assert left("ana", "10.0.0.1") == 0
    fail("ana", "10.0.0.1")
    assert left("ana") == 15 and left("10.0.0.1") == 0
    now[0] += 15
    fail("ana")
    assert left("ana") == 30 and left("ben") == 0
    for _ in range(20):
        fail("ana")
    assert left("ana") == people.MOST_SECONDS
    now[0] -= 1e6  # the clock is set back: nobody waits longer for it
    assert left("ana") == people.MOST_SECONDS
    with store.write() as db:
        people.forget_failures(db, "ana")
    assert left("ana") == 0


def test_failures_at_several_servers_are_all_counted(store):
    """Each thread is a connection of its own, as each worker has."""

    def fail():
        for _ in range(5):
            with store.write() as db:
                people.note_failure(db, "ana", "10.0.0.1")

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as db:
        assert [row.count for row in db.query(LoginFailure)] == [20, 20]
