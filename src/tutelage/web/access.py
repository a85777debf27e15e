"""Who may do what. A route says which roles may use it; one that says nothing is refused to all."""

import hmac
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from tutelage.feedback import Store, people, tokens
from tutelage.feedback.schema import Person
from tutelage.web.security import COOKIE

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
PUBLIC = "public"
EVERYBODY = ("admin", "lead", "labeler")
LEADS = ("admin", "lead")
ADMINS = ("admin",)


class Denied(Exception):
    """status: 401 (sign in), 403 (not for you), 400 (malformed)."""

    def __init__(self, status: int, message: str):
        self.status, self.message = status, message
        super().__init__(message)


def allow(*roles: str, scope: str | None = None) -> Callable[[Endpoint], Endpoint]:
    """Marks a route with the roles that may use it (PUBLIC: without an account), and the scope that a program's
    token needs; without one, no token opens it."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.allowed, endpoint.scope = roles, scope  # type: ignore[attr-defined]
        return endpoint

    return mark


async def guard(request: Request) -> None:
    """Before every route: the person, their role, and on changes their session's token. Sets `request.state`."""
    endpoint = request.scope["endpoint"]
    allowed = getattr(endpoint, "allowed", ())
    state = request.state
    state.person, state.csrf, state.sent = None, "", {}
    token = bearer(request)
    if token is None:
        await run_in_threadpool(_identify, request)
    else:
        await run_in_threadpool(_identify_program, request, token, getattr(endpoint, "scope", None))
    if request.method not in ("GET", "HEAD"):
        state.sent = await _sent(request)
    if PUBLIC in allowed:
        return
    if state.person is None:
        raise Denied(401, "Sign in first.")
    if state.person.role not in allowed:
        raise Denied(403, await run_in_threadpool(_for_whom, request, allowed))
    if request.method not in ("GET", "HEAD") and token is None:  # no browser adds a bearer token by itself
        csrf = request.headers.get("x-csrf-token") or state.sent.pop("csrf", "")
        if not isinstance(csrf, str) or not hmac.compare_digest(csrf.encode(), state.csrf.encode()):
            raise Denied(403, "This form is out of date. Load the page again; your work is kept.")


def _for_whom(request: Request, allowed: tuple[str, ...]) -> str:
    """Whose page this is, and whom to ask."""
    whose = "leads" if "lead" in allowed else "administrators"
    with request.app.state.store.read() as db:
        name = people.whom_to_ask(db, allowed)
    return f"This page is for {whose}.{f' Ask {name}.' if name else ''}"


def bearer(request: Request) -> str | None:
    """The token of a program's request; None where there is none."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _identify_program(request: Request, token: str, scope: str | None) -> None:
    store: Store = request.app.state.store
    with store.read() as db:
        found = tokens.find_token(db, token)
    if found is None and scope is not None and request.app.state.local:
        _identify(request)  # nobody needs a token here; a client that cannot send none sends "none"
        return
    if found is None:
        raise Denied(401, "This token is not known, or was revoked.")
    row, request.state.person = found
    if scope is None or scope not in row.scopes:
        raise Denied(403, f"This needs a token with the scope {scope}." if scope else "No token opens this.")
    if tokens.is_use_news(row):
        with store.write() as db:
            tokens.note_use(db, row.id)


def _identify(request: Request) -> None:
    store: Store = request.app.state.store
    token = request.cookies.get(COOKIE, "")
    with store.read() as db:
        found = people.find_session(db, token) if token else None
    if found is None and request.app.state.local:
        with store.write() as db:
            token, session = people.sign_in(db, people.local_person(db))
            request.scope.setdefault("state", {})["set_cookie"] = token
            found = session, db.get_one(Person, session.person_id)
    if found is not None:
        request.state.csrf, request.state.person = found[0].csrf, found[1]


async def _sent(request: Request) -> dict[str, Any]:
    """The body as one mapping: JSON, or a form's fields (a repeated field becomes a list)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            value = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise Denied(400, "This is not JSON.") from error
        if not isinstance(value, dict):
            raise Denied(400, "Send an object.")
        return value
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data", ""):
        raise Denied(400, "Send a form or JSON.")
    form = await request.form(max_files=1, max_fields=500)
    fields: dict[str, Any] = {}
    for name, field in form.multi_items():
        if name.endswith("[]"):
            fields.setdefault(name[:-2], []).append(field)
        else:
            fields[name] = field
    return fields


def text_field(request: Request, name: str, longest: int = 200) -> str:
    """A short text of a form; anything else is malformed."""
    value = request.state.sent.get(name, "")
    if not isinstance(value, str) or len(value) > longest or "\x00" in value:
        raise Denied(400, f"The field {name} cannot be used.")
    return value.strip()


def number_field(request: Request, name: str) -> int:
    value = str(request.state.sent.get(name, ""))
    if not value.isdecimal() or len(value) > 9:
        raise Denied(400, f"The field {name} needs a whole number.")
    return int(value)


def decimal_field(request: Request, name: str) -> float:
    value = str(request.state.sent.get(name, ""))
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value, re.ASCII):
        raise Denied(400, f"The field {name} needs a number.")
    return float(value)


def list_field(request: Request, name: str, most: int = 20) -> list[str]:
    """The ticked values of a form's `name[]`, or a list in JSON."""
    value = request.state.sent.get(name, [])
    if not isinstance(value, list) or len(value) > most or not all(isinstance(one, str) for one in value):
        raise Denied(400, f"The field {name} cannot be used.")
    return value


def uploaded(request: Request, name: str) -> UploadFile:
    value = request.state.sent.get(name)
    if not isinstance(value, UploadFile) or not value.filename:
        raise Denied(400, "Choose a file.")
    return value
