"""Tokens of programs: shown once when made, stored as a hash, good for what their scopes say, revocable at once."""

import secrets
import time
import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session as Db

from tutelage.errors import UserError, did_you_mean
from tutelage.feedback.people import digest
from tutelage.feedback.schema import ApiToken, Person
from tutelage.feedback.store import audit

SCOPES = {
    "models": "ask the models (/v1)",
    "feedback": "send thumbs and better answers (/v1/feedback)",
    "label": "take items and answer them",
    "export": "read a project's answers",
}
PREFIX = "tut_"  # lets scanners for leaked secrets find it
USED_STEP = 60.0  # seconds: `used` is written no more often


def make_token(
    db: Db, person: Person, name: str, scopes: Sequence[str], days: int | None = None, by: str | None = None
) -> str:
    """A new token of this person; the text is nowhere else. by: who makes it, where it is not that person."""
    name = " ".join(name.split())
    if not 1 <= len(name) <= 80 or not name.isprintable():
        raise UserError("a token's name has 1 to 80 characters", where="name", mend="say what it is for")
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        what = f"unknown scope {unknown[0]!r}{did_you_mean(unknown[0], list(SCOPES))}" if unknown else "needs a scope"
        raise UserError(what, where="scopes", mend=f"use some of: {', '.join(SCOPES)}")
    if days is not None and not 1 <= days <= 3650:
        raise UserError(f"{days} days cannot be used", where="days", mend="give a number from 1 to 3650")
    token, now = PREFIX + secrets.token_urlsafe(32), time.time()
    db.add(
        ApiToken(
            id=uuid.uuid4().hex[:12],
            digest=digest(token),
            name=name,
            scopes=sorted(set(scopes)),
            person_id=person.id,
            created=now,
            expires=None if days is None else now + 86_400 * days,
        )
    )
    whose = f" for {person.name}" if by else ""
    audit(db, by or person.id, "make token", f"{name}{whose}: {', '.join(sorted(set(scopes)))}")
    return token


def find_token(db: Db, token: str, now: float | None = None) -> tuple[ApiToken, Person] | None:
    """The token and its person, if it is good now."""
    now = time.time() if now is None else now
    row = db.scalar(select(ApiToken).filter_by(digest=digest(token)))
    if row is None or row.revoked is not None or (row.expires is not None and row.expires <= now):
        return None
    person = db.get(Person, row.person_id)
    return (row, person) if person is not None and person.active else None


def note_use(db: Db, token_id: str, now: float | None = None) -> None:
    row = db.get(ApiToken, token_id)
    if row is not None:
        row.used = time.time() if now is None else now


def is_use_news(row: ApiToken, now: float | None = None) -> bool:
    now = time.time() if now is None else now
    return row.used is None or now - row.used > USED_STEP


def revoke(db: Db, row: ApiToken, by: str | None) -> None:
    row.revoked = row.revoked or time.time()
    audit(db, by, "revoke token", row.name)
