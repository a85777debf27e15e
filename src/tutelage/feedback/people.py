"""People: accounts (argon2id), roles, invitations, and signed-in browsers. Tokens are stored as hashes only."""

import contextlib
import hashlib
import re
import secrets
import time
import uuid
from collections.abc import Sequence

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as Db

from tutelage.errors import UserError
from tutelage.feedback.schema import ROLES, Invitation, LoginFailure, PasswordLink, Person, Session
from tutelage.feedback.store import audit

SESSION_SECONDS = 14 * 86_400
INVITATION_SECONDS = 7 * 86_400
SHORTEST_PASSWORD = 10
FREE_TRIES, FIRST_SECONDS, MOST_SECONDS = 5, 15.0, 960.0  # failures without a wait; the first wait, the longest
FORGET_SECONDS = 86_400
LOCAL = "local"  # the one person of a start without accounts

_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)  # OWASP's parameters for argon2id
_NOBODY = _hasher.hash(secrets.token_hex(8))  # so that an unknown name takes as long as a wrong password


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def hashed(password: str) -> str:
    """What the store keeps of a password."""
    if len(password) < SHORTEST_PASSWORD:
        raise UserError(
            f"the password has fewer than {SHORTEST_PASSWORD} characters", where="password", mend="use a longer one"
        )
    return _hasher.hash(password)


def add_person(db: Db, name: str, role: str, password: str | None, *, person_id: str | None = None) -> Person:
    name = " ".join(name.split())
    if not re.fullmatch(r"[^\x00-\x1f<>]{1,80}", name):
        raise UserError("a name has 1 to 80 characters", where="name", mend="use another name")
    if role not in ROLES:
        raise UserError(f"unknown role {role!r}", where="role", mend=f"use one of: {', '.join(ROLES)}")
    stored = hashed(password) if password is not None else None
    if db.scalar(select(Person).where(func.lower(Person.name) == name.lower())):
        raise UserError(f"there is a person {name!r} already", where="name", mend="use another name")
    person = Person(
        id=person_id or uuid.uuid4().hex[:12], name=name, role=role, password=stored, active=True, created=time.time()
    )
    db.add(person)
    db.flush()
    return person


def local_person(db: Db) -> Person:
    """The person of a start on this machine only, who needs no account."""
    return db.get(Person, LOCAL) or add_person(db, "You", "admin", None, person_id=LOCAL)


def program(db: Db, name: str) -> Person:
    """A labeler that is a program: it has no password, so that nobody signs in as it."""
    name = " ".join(name.split())[:80]
    found = db.scalar(select(Person).where(func.lower(Person.name) == name.lower()))
    if found is None:
        return add_person(db, name, "labeler", None)
    if found.password is not None or found.role != "labeler":
        raise UserError("is a person's account", where=name, mend="close it, or label by somebody else")
    return found


def has_admin(db: Db) -> bool:
    """Whether somebody could sign in and govern the store."""
    found = select(Person.id).where(Person.role == "admin", Person.active, Person.password.is_not(None))
    return db.scalar(found.limit(1)) is not None


def by_name(db: Db, name: str) -> Person | None:
    return db.scalar(select(Person).where(func.lower(Person.name) == " ".join(name.split()).lower()))


def whom_to_ask(db: Db, roles: Sequence[str]) -> str | None:
    """The name of somebody who signs in with one of these roles; a lead before an administrator."""
    found = select(Person.name).where(Person.role.in_(roles), Person.active, Person.password.is_not(None))
    return db.scalar(found.order_by(Person.role.desc(), Person.created).limit(1))


def check_password(db: Db, name: str, password: str) -> Person | None:
    person = by_name(db, name)
    stored = person.password if person and person.password else _NOBODY
    try:
        _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return None
    return person if person and person.password and person.active else None


def invite(db: Db, role: str, invited_by: str | None) -> str:
    """A token that makes one account of this role."""
    if role not in ROLES:
        raise UserError(f"unknown role {role!r}", where="role", mend=f"use one of: {', '.join(ROLES)}")
    token, now = secrets.token_urlsafe(24), time.time()
    db.add(
        Invitation(token=digest(token), role=role, invited_by=invited_by, created=now, expires=now + INVITATION_SECONDS)
    )
    audit(db, invited_by, "invite", role)
    return token


def open_invitations(db: Db) -> list[Invitation]:
    """Those that still make an account, the newest first."""
    query = select(Invitation).where(Invitation.used_by.is_(None), Invitation.expires > time.time())
    return list(db.scalars(query.order_by(Invitation.created.desc())))


def withdraw(db: Db, invitation: Invitation, by: str) -> None:
    """Its link makes no account from now on."""
    invitation.expires = min(invitation.expires, time.time())
    audit(db, by, "withdraw invitation", invitation.role)


def change_role(db: Db, person: Person, role: str, by: str) -> None:
    """The invitations that this person made end: they were made with the rights of before."""
    if role not in ROLES:
        raise UserError(f"unknown role {role!r}", where="role", mend=f"use one of: {', '.join(ROLES)}")
    if person.password is None:
        raise UserError("is a program, which only labels", where=person.name, mend="change a person's role")
    if role != person.role:
        person.role = role
        for one in open_invitations(db):
            if one.invited_by == person.id:
                withdraw(db, one, by)
        audit(db, by, "change role", f"{person.name}: {role}")


def open_invitation(db: Db, token: str) -> Invitation | None:
    found = db.get(Invitation, digest(token), with_for_update=True)
    if found is None or found.used_by is not None or found.expires <= time.time():
        return None
    host = db.get(Person, found.invited_by) if found.invited_by else None  # none: the command line, the first start
    return None if host is not None and not host.active else found


def accept(db: Db, token: str, name: str, password: str) -> Person:
    invitation = open_invitation(db, token)
    if invitation is None:
        raise UserError("this invitation was used or has ended", where="invitation", mend="ask for a new one")
    person = add_person(db, name, invitation.role, password)
    invitation.used_by = person.id
    audit(db, person.id, "join", invitation.role)
    return person


def sign_in(db: Db, person: Person) -> tuple[str, Session]:
    """A cookie's token and its stored session."""
    token, now = secrets.token_urlsafe(32), time.time()
    db.execute(delete(Session).where(Session.expires < now))
    row = Session(
        token=digest(token),
        person_id=person.id,
        csrf=secrets.token_urlsafe(24),
        created=now,
        expires=now + SESSION_SECONDS,
    )
    db.add(row)
    audit(db, person.id, "sign in")
    return token, row


def find_session(db: Db, token: str) -> tuple[Session, Person] | None:
    query = select(Session, Person).join(Person, Person.id == Session.person_id).where(Person.active)
    found = db.execute(query.where(Session.token == digest(token), Session.expires >= time.time())).first()
    return found.tuple() if found is not None else None


def sign_out(db: Db, token: str) -> None:
    db.execute(delete(Session).where(Session.token == digest(token)))


def set_active(db: Db, person: Person, active: bool) -> None:
    """A person who is not active has no session and no password link, keeps their answers, and cannot sign in."""
    person.active = active
    if not active:
        db.execute(delete(PasswordLink).where(PasswordLink.person_id == person.id))
        db.execute(delete(Session).where(Session.person_id == person.id))


def seconds_to_wait(db: Db, *keys: str) -> float:
    """Until the next try to sign in with these (a name, an address) is looked at; 0 where nobody needs to wait."""
    until = db.scalar(select(func.max(LoginFailure.until)).where(LoginFailure.key.in_([digest(key) for key in keys])))
    return min(max((until or 0.0) - time.time(), 0.0), MOST_SECONDS)  # a clock set back locks nobody out for long


def name_key(name: str) -> str:
    """What failures for a name are counted by."""
    return f"name {' '.join(name.split()).lower()}"


def note_failure(db: Db, *keys: str) -> None:
    """After FREE_TRIES failures for a name or an address, each further try waits longer, on whichever server."""
    now = time.time()
    db.execute(delete(LoginFailure).where(LoginFailure.until < now - FORGET_SECONDS))
    for key in sorted(map(digest, keys)):  # in one order, so that two transactions never wait for each other
        if db.get(LoginFailure, key) is None:
            with contextlib.suppress(IntegrityError), db.begin_nested():  # another server may be quicker
                db.add(LoginFailure(key=key, count=0, until=now))
        row = db.get_one(LoginFailure, key, with_for_update=True, populate_existing=True)
        row.count += 1
        late = row.count - FREE_TRIES
        row.until = now + (min(FIRST_SECONDS * 2 ** min(late, 9), MOST_SECONDS) if late >= 0 else 0.0)


def forget_failures(db: Db, *keys: str) -> None:
    db.execute(delete(LoginFailure).where(LoginFailure.key.in_([digest(key) for key in keys])))
