"""A new password by a link: for one account, good once and for a day. Whoever was signed in there is so no longer.

Who can make a link for an account can become its person. So a lead may for labelers only, and a link ends with the
account or the rights of whoever made it.
"""

import secrets
import time

from sqlalchemy import delete, or_
from sqlalchemy.orm import Session as Db

from tutelage.errors import UserError
from tutelage.feedback import people
from tutelage.feedback.schema import PasswordLink, Person, Session
from tutelage.feedback.store import COMMAND_LINE, audit

LINK_SECONDS = 86_400
ENDED = "password link"  # where a link that cannot be used is the fault


def may_make(maker: Person, person: Person) -> bool:
    """Administrators for everybody else, leads for labelers; for nobody whose account is closed or has no password."""
    if not maker.active or not person.active or person.password is None or maker.id == person.id:
        return False
    return maker.role == "admin" or (maker.role == "lead" and person.role == "labeler")


def make_link(db: Db, person: Person, made_by: str, now: float | None = None) -> str:
    """The token of a new link; those that were made for this account before end."""
    if person.password is None or not person.active:
        what = "is a program, or nobody's account" if person.active else "is closed"
        raise UserError(f"the account {what}: it has no password to set", where=person.name, mend="name another")
    token, now = secrets.token_urlsafe(24), time.time() if now is None else now
    db.execute(delete(PasswordLink).where(or_(PasswordLink.person_id == person.id, PasswordLink.expires <= now)))
    db.add(
        PasswordLink(
            token=people.digest(token), person_id=person.id, made_by=made_by, created=now, expires=now + LINK_SECONDS
        )
    )
    audit(db, made_by, "make password link", person.name)
    return token


def whose(db: Db, token: str, *, lock: bool = False) -> Person | None:
    """The person of a link that is good now."""
    found = db.get(PasswordLink, people.digest(token), with_for_update=lock)
    if found is None or found.expires <= time.time():
        return None
    person, maker = db.get_one(Person, found.person_id), db.get(Person, found.made_by)
    if not person.active or (found.made_by != COMMAND_LINE and (maker is None or not may_make(maker, person))):
        return None
    return person


def change(db: Db, person: Person, password: str, session: str) -> None:
    """A person's own change; sessions elsewhere and links that others made end. session: the cookie that goes on."""
    person.password = people.hashed(password)
    db.execute(delete(PasswordLink).where(PasswordLink.person_id == person.id))
    elsewhere = Session.token != people.digest(session)
    db.execute(delete(Session).where(Session.person_id == person.id, elsewhere))
    audit(db, person.id, "set password")


def set_by_link(db: Db, token: str, password: str) -> Person:
    """Set the password; the link, every session of the account, and the wait after wrong tries end."""
    person = whose(db, token, lock=True)
    if person is None:
        raise UserError("this link was used or has ended", where=ENDED, mend="ask for a new one")
    person.password = people.hashed(password)
    db.execute(delete(PasswordLink).where(PasswordLink.person_id == person.id))
    db.execute(delete(Session).where(Session.person_id == person.id))
    people.forget_failures(db, people.name_key(person.name))
    audit(db, person.id, "set password")
    return person
