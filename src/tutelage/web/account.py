"""Signing in and out, invitations, and the people of a store."""

import time

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy import func, select

from tutelage.errors import UserError
from tutelage.feedback import passwords, people, tokens
from tutelage.feedback.schema import ROLES, ApiToken, Audit, Person
from tutelage.feedback.store import audit
from tutelage.web.access import ADMINS, EVERYBODY, LEADS, PUBLIC, Denied, allow, number_field, text_field
from tutelage.web.pages import page, wants_json
from tutelage.web.security import COOKIE

router = APIRouter()
LOG = 100  # entries that the page shows


def _root(request: Request) -> str:
    return request.scope.get("root_path", "")


def _safe_next(value: str) -> str:
    """A path of ours, or the start page: never another site."""
    good = value.startswith("/") and not value.startswith("//") and "\\" not in value and value.isprintable()
    return value if good else "/"


def _set_cookie(request: Request, token: str) -> None:
    request.scope.setdefault("state", {})["set_cookie"] = token


@router.get("/login")
@allow(PUBLIC)
def login_page(request: Request, next: str = "/") -> Response:
    return page(request, "login.html", next=_safe_next(next), message="", name="")


@router.post("/login")
@allow(PUBLIC)
def login(request: Request) -> Response:
    """Sign in, with a form or (over unsent work) with JSON."""
    name, password = text_field(request, "name", 80), request.state.sent.get("password", "")
    keys = (people.name_key(name), f"address {request.client.host if request.client else ''}")
    with request.app.state.store.read() as db:
        wait = people.seconds_to_wait(db, *keys)
        if wait > 0:
            return _login_failed(request, name, f"Too many tries. Wait {round(wait) + 1} seconds.", 429)
        right = isinstance(password, str) and len(password) <= 1000
        person = people.check_password(db, name, password) if right else None
    if person is None:
        with request.app.state.store.write() as db:
            people.note_failure(db, *keys)
            # A name that nobody has is not kept: it may be a password in the wrong field.
            known = db.scalar(select(Person.name).where(func.lower(Person.name) == " ".join(name.split()).lower()))
            audit(db, None, "sign-in refused", known or "unknown name")
        return _login_failed(request, name, "The name or the password is wrong.", 403)
    with request.app.state.store.write() as db:
        people.forget_failures(db, *keys)
        token, session = people.sign_in(db, person)
    _set_cookie(request, token)
    if wants_json(request):
        return JSONResponse({"csrf": session.csrf, "person": person.id})
    return RedirectResponse(_root(request) + _safe_next(text_field(request, "next", 400)), 303)


def _login_failed(request: Request, name: str, message: str, status: int) -> Response:
    if wants_json(request):
        return JSONResponse({"error": message}, status)
    return page(
        request,
        "login.html",
        status=status,
        next=_safe_next(text_field(request, "next", 400)),
        message=message,
        name=name,
    )


@router.post("/logout")
@allow(*EVERYBODY)
def logout(request: Request) -> Response:
    with request.app.state.store.write() as db:
        people.sign_out(db, request.cookies.get(COOKIE, ""))
    _set_cookie(request, "")
    return RedirectResponse(_root(request) + "/login", 303)


@router.get("/join/{token}")
@allow(PUBLIC)
def join_page(request: Request, token: str) -> Response:
    with request.app.state.store.read() as db:
        invitation = people.open_invitation(db, token)
    if invitation is None:
        raise Denied(403, "This invitation was used or has ended. Ask for a new one.")
    return page(request, "join.html", token=token, role=invitation.role, message="", name="")


@router.post("/join/{token}")
@allow(PUBLIC)
def join(request: Request, token: str) -> Response:
    name, password = text_field(request, "name", 80), _password_field(request)
    try:
        with request.app.state.store.write() as db:
            person = people.accept(db, token, name, password)
            cookie, _ = people.sign_in(db, person)
    except UserError as error:
        if error.where == "invitation":
            raise Denied(403, "This invitation was used or has ended. Ask for a new one.") from error
        return page(
            request, "join.html", status=422, token=token, role="", message=f"{error.what}; {error.mend}.", name=name
        )
    _set_cookie(request, cookie)
    return RedirectResponse(_root(request) + "/", 303)


def _password_field(request: Request) -> str:
    """As it was typed: signing in compares it as it is typed too."""
    text_field(request, "password", 1000)
    return str(request.state.sent.get("password", ""))


LINK_ENDED = "This link was used or has ended. Ask for a new one."


@router.get("/password/{token}")
@allow(PUBLIC)
def password_page(request: Request, token: str) -> Response:
    with request.app.state.store.read() as db:
        person = passwords.whose(db, token)
    if person is None:
        raise Denied(403, LINK_ENDED)
    return page(request, "password.html", token=token, name=person.name, message="")


@router.post("/password/{token}")
@allow(PUBLIC)
def set_password(request: Request, token: str) -> Response:
    """By a link; signs in here, and out everywhere else."""
    password = _password_field(request)
    try:
        with request.app.state.store.write() as db:
            person = passwords.set_by_link(db, token, password)
            cookie, _ = people.sign_in(db, person)
    except UserError as error:
        if error.where == passwords.ENDED:
            raise Denied(403, LINK_ENDED) from error
        return page(request, "password.html", status=422, token=token, name="", message=f"{error.what}; {error.mend}.")
    _set_cookie(request, cookie)
    return RedirectResponse(_root(request) + "/", 303)


@router.get("/account")
@allow(*EVERYBODY)
def account_page(request: Request) -> Response:
    return _account(request)


def _account(request: Request, message: str = "", said: str = "", status: int = 200) -> Response:
    has_password = request.state.person.password is not None
    return page(request, "account.html", status=status, message=message, said=said, has_password=has_password)


@router.post("/account/password")
@allow(*EVERYBODY)
def change_password(request: Request) -> Response:
    """One's own, with the present one; wrong tries wait as those to sign in do."""
    person, new = request.state.person, _password_field(request)
    old = str(request.state.sent.get("old", ""))
    keys = (people.name_key(person.name), f"address {request.client.host if request.client else ''}")
    with request.app.state.store.read() as db:
        wait = people.seconds_to_wait(db, *keys)
        right = wait <= 0 and len(old) <= 1000 and people.check_password(db, person.name, old) is not None
    if wait > 0:
        return _account(request, f"Too many tries. Wait {round(wait) + 1} seconds.", status=429)
    if not right:
        with request.app.state.store.write() as db:
            people.note_failure(db, *keys)
        return _account(request, "The present password is wrong.", status=403)
    try:
        with request.app.state.store.write() as db:
            passwords.change(db, db.get_one(Person, person.id), new, request.cookies.get(COOKIE, ""))
    except UserError as error:
        return _account(request, f"{error.what}; {error.mend}.", status=422)
    return _account(request, said="Changed.")


@router.get("/people")
@allow(*LEADS)
def people_page(request: Request) -> Response:
    return _people(request)


def _people(request: Request, link: str = "", role: str = "", token: str = "", *, renewed: str = "") -> Response:
    """link: of an invitation for a role, or for a new password of the person who is called `renewed`."""
    with request.app.state.store.read() as db:
        everybody = list(db.scalars(select(Person).order_by(Person.created)))
        log = list(db.scalars(select(Audit).order_by(Audit.id.desc()).limit(LOG)))
        rows = select(ApiToken).filter_by(revoked=None).order_by(ApiToken.created)
        if request.state.person.role != "admin":
            rows = rows.filter_by(person_id=request.state.person.id)
        good = list(db.scalars(rows))
        mine = request.state.person.role == "admin"
        invitations = [one for one in people.open_invitations(db) if mine or one.role == "labeler"]
    names = {person.id: person.name for person in everybody}
    return page(
        request,
        "people.html",
        people=everybody,
        log=log,
        names=names,
        link=link,
        invited=role,
        renewed=renewed,
        may_renew=passwords.may_make,
        roles=ROLES,
        tokens=good,
        invitations=invitations,
        scopes=tokens.SCOPES,
        token=token,
        when=lambda seconds: time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)),
    )


@router.post("/people/invite")
@allow(*LEADS)
def invite(request: Request) -> Response:
    role = text_field(request, "role", 16)
    if role != "labeler" and request.state.person.role != "admin":
        raise Denied(403, "Leads invite labelers; ask an administrator.")
    with request.app.state.store.write() as db:
        token = people.invite(db, role, request.state.person.id)
    return _people(request, str(request.url_for("join_page", token=token)), role)


@router.post("/people/invitations/{number}/withdraw")
@allow(*LEADS)
def withdraw(request: Request, number: str) -> Response:
    """number: the hash by which the store knows the link; nobody gets from it to the link."""
    person = request.state.person
    with request.app.state.store.write() as db:
        row = next((one for one in people.open_invitations(db) if one.token == number), None)
        if row is None or (row.role != "labeler" and person.role != "admin"):
            raise Denied(404, "There is no such invitation.")
        people.withdraw(db, row, person.id)
    return RedirectResponse(_root(request) + "/people", 303)


@router.post("/people/{person_id}/role")
@allow(*ADMINS)
def change_role(request: Request, person_id: str) -> Response:
    with request.app.state.store.write() as db:
        person = db.get(Person, person_id) if person_id.isalnum() else None
        if person is None:
            raise Denied(404, "There is no such person.")
        if person.id == request.state.person.id:
            raise Denied(409, "You cannot change your own role.")
        people.change_role(db, person, text_field(request, "role", 16), request.state.person.id)
    return RedirectResponse(_root(request) + "/people", 303)


@router.post("/people/tokens")
@allow(*LEADS)
def make_token(request: Request) -> Response:
    """A token of one's own; it is on this page and nowhere else."""
    scopes = request.state.sent.get("scopes", [])
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise Denied(400, "Choose what the token may do.")
    days = number_field(request, "days")
    with request.app.state.store.write() as db:
        person = db.get_one(Person, request.state.person.id)
        token = tokens.make_token(db, person, text_field(request, "name", 80), scopes, days)
    return _people(request, token=token)


@router.post("/people/tokens/{token_id}/revoke")
@allow(*LEADS)
def revoke_token(request: Request, token_id: str) -> Response:
    person = request.state.person
    with request.app.state.store.write() as db:
        row = db.get(ApiToken, token_id) if token_id.isalnum() else None
        if row is None or (row.person_id != person.id and person.role != "admin"):
            raise Denied(404, "There is no such token.")
        tokens.revoke(db, row, person.id)
    return RedirectResponse(_root(request) + "/people", 303)


@router.post("/people/{person_id}/password")
@allow(*LEADS)
def make_password_link(request: Request, person_id: str) -> Response:
    """The link is on this page and nowhere else; the lead hands it over."""
    with request.app.state.store.write() as db:
        person = db.get(Person, person_id) if person_id.isalnum() else None
        if person is None:
            raise Denied(404, "There is no such person.")
        maker = db.get_one(Person, request.state.person.id)
        if not passwords.may_make(maker, person):
            raise Denied(
                403, "Leads renew labelers' passwords, administrators everybody else's; not of a closed account."
            )
        token, name = passwords.make_link(db, person, maker.id), person.name
    return _people(request, str(request.url_for("password_page", token=token)), renewed=name)


@router.post("/people/{person_id}/active")
@allow(*ADMINS)
def set_active(request: Request, person_id: str) -> Response:
    active = text_field(request, "active", 1) == "1"
    with request.app.state.store.write() as db:
        person = db.get(Person, person_id) if person_id.isalnum() else None
        if person is None:
            raise Denied(404, "There is no such person.")
        if person.id == request.state.person.id:
            raise Denied(409, "You cannot close your own account.")
        people.set_active(db, person, active)
        audit(db, request.state.person.id, "open account" if active else "close account", person.name)
    return RedirectResponse(_root(request) + "/people", 303)
