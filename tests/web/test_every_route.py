"""Every route there is, with broken, oversized and foreign requests; what is good once, a second time; script in every text."""

import json
import re

import pytest
from fastapi.routing import APIRoute, Mount
from sqlalchemy import func, select

from tutelage.feedback import people
from tutelage.feedback.projects import find_project
from tutelage.feedback.schema import Answer, Person
from tutelage.feedback.screening import import_screening
from tutelage.web import create_app
from tutelage.web.access import PUBLIC
from tutelage.web.app import MODEL_PARTS, PARTS
from tutelage.workbench.bench import Workbench

from .site import PASSWORD, Browser

ROUTES = [r for part in (*PARTS, *MODEL_PARTS) for r in part.router.routes if isinstance(r, APIRoute)]
POSTS = [route for route in ROUTES if "POST" in route.methods]
WORDS = {"project_id": "round-1", "task_id": "1", "a": "A", "b": "B", "number": "1", "job_id": "1", "name": "a" * 24}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> {{7*7}} '\""


def address(route):
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: WORDS.get(found[1], "1"), route.path)


@pytest.fixture
def admin(filled, tmp_path):
    """An administrator of a server with all pages there are."""
    browser = Browser(create_app(filled, workbench=Workbench(tmp_path / "runs")))
    with filled.write() as db:
        token, session = people.sign_in(db, people.add_person(db, "Admin", "admin", PASSWORD))
    browser.http.cookies.set("tutelage_session", token)
    browser.csrf = session.csrf
    return browser


def test_no_route_is_left_out(admin):
    served = set(admin.http.app.openapi()["paths"])
    assert served == {route.path.replace(":path", "") for route in ROUTES} and len(POSTS) > 30
    assert [route.path for route in admin.http.app.routes if isinstance(route, Mount)] == ["/static"]
    for route in ROUTES:
        assert route.endpoint.allowed and "{" not in address(route), route.path


BROKEN = {
    "cut off": (b'{"a": ', "application/json"),
    "a list": (b"[1]", "application/json"),
    "nested": (b"[" * 100_000, "application/json"),
    "no text": (b"\xff\xfe\x00", "application/json"),
    "XML": (b"<a/>", "text/xml"),
    "no parts": (b"nothing", "multipart/form-data; boundary=x"),
    "many fields": ("&".join(f"a{i}=1" for i in range(600)).encode(), "application/x-www-form-urlencoded"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_every_route_refuses_a_broken_body(admin, how):
    body, kind = BROKEN[how]
    headers = {"x-csrf-token": admin.csrf, "content-type": kind, "accept": "application/json"}
    for route in POSTS:
        reply = admin.http.post(address(route), content=body, headers=headers)
        assert 400 <= reply.status_code < 500 and "Traceback" not in reply.text, (route.path, reply.status_code)


def test_every_route_refuses_a_body_that_is_too_large(admin):
    headers = {"x-csrf-token": admin.csrf, "content-type": "application/json"}
    for route in POSTS:
        uploads = route.path.endswith(("/import", "-import"))
        chunks = (b"x" * 400_000 for _ in range(1 if uploads else 4))  # no length is announced
        reply = admin.http.post(address(route), content=chunks, headers=headers)
        assert reply.status_code == (400 if uploads else 413), route.path
        announced = headers | {"content-length": "64000001" if uploads else "1000001"}
        assert admin.http.post(address(route), content=b"{}", headers=announced).status_code == 413, route.path


@pytest.mark.parametrize("token", ["", "wrong"])
def test_no_change_anywhere_without_the_sessions_token(admin, filled, token):
    with filled.write() as db:
        other = people.sign_in(db, people.add_person(db, "Other", "admin", PASSWORD))[1].csrf
    for route in POSTS:
        if PUBLIC not in route.endpoint.allowed:
            for csrf in (token, other):  # another administrator's is none either
                reply = admin.http.post(address(route), data={"csrf": csrf, "name": "x", "to": "stopped"})
                assert reply.status_code == 403, route.path


def test_no_form_of_another_site_gets_anywhere(admin):
    for route in POSTS:
        for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            reply = admin.http.post(address(route), data={"csrf": admin.csrf}, headers=headers)
            assert reply.status_code == 403, route.path


def test_what_is_good_once_is_refused_a_second_time(admin, filled):
    link = re.search(r"/join/[\w-]+", admin.form("/people/invite", role="labeler").text)[0]
    first, second = (Browser(admin.http.app) for _ in range(2))
    assert first.form(link, name="Ana", password=PASSWORD).status_code == 303
    for reply in (second.form(link, name="Bo", password=PASSWORD), second.get(link)):
        assert reply.status_code == 403
    with filled.read() as db:
        assert db.scalars(select(Person.name).order_by(Person.name)).all() == ["Admin", "Ana"]
    first.get("/")
    item = first.next()
    body = {"id": "answer-0001", "kind": "rank", "ranking": "A > B"}
    assert first.send(f"/t/{item['task']}/answer", body).status_code == 200
    theirs = admin.next()
    assert (
        admin.send(f"/t/{theirs['task']}/answer", body | {"ranking": "B > A"}).status_code == 409
    )  # its number is taken
    with filled.read() as db:
        assert db.scalar(select(func.count()).select_from(Answer)) == 1
    cookie, csrf = first.http.cookies["tutelage_session"], first.csrf
    first.form("/logout")
    first.http.cookies.set("tutelage_session", cookie)
    first.csrf = csrf
    again = first.send(f"/t/{item['task']}/answer", body | {"id": "answer-0002"})  # an ended session, all of it
    assert again.status_code == 401


def test_script_in_every_text_is_text_on_every_page(admin, filled, fill_more, tmp_path):
    fill_more("hostile", HOSTILE, [HOSTILE + "one", HOSTILE + "two"])
    example = {"prompt": HOSTILE, "completions": [HOSTILE + "a", HOSTILE + "b"], "ranks": [1, 2], "note": HOSTILE}
    (tmp_path / "example.jsonl").write_text(json.dumps(example) + "\n")
    with filled.write() as db:
        import_screening(db, find_project(db, "round-1"), tmp_path / "example.jsonl", "example")
        mallory = people.add_person(db, "Mallory", "labeler", PASSWORD)
        mallory.name = f"M {HOSTILE}"  # a form refuses it: were it in the store all the same
        token, session = people.sign_in(db, mallory)
        one = mallory.id
    labeler = Browser(admin.http.app)
    labeler.http.cookies.set("tutelage_session", token)
    labeler.csrf = session.csrf
    settings = {"overlap": "2", "gold_every": "0", "lease_minutes": "5"}
    for browser, path, fields in (
        (admin, "/projects", {"name": HOSTILE[:100], "overlap": "1"}),
        (admin, "/projects/round-1/settings", {**settings, "instructions": HOSTILE}),
        (admin, "/projects/round-1/settings", {**settings, "rating": HOSTILE[:16], "answers_as": HOSTILE[:16]}),
        (admin, "/people/tokens", {"name": HOSTILE[:80], "person": one, "scopes[]": "label", "days": "1"}),
        (admin, "/projects/round-1/jobs", {"kind": "label", "by": HOSTILE}),
        (admin, "/projects/round-1/rounds", {"model": HOSTILE, "recipe": HOSTILE[:40], "by": HOSTILE}),
        (admin, "/login", {"name": HOSTILE[:80], "password": "x", "next": HOSTILE}),
        (admin, "/p/round-1/practise/1", {"ranking": HOSTILE[:60]}),
    ):
        calm(browser.form(path, **fields), path)
    for browser, order in ((admin, "A > B"), (labeler, "B > A")):
        number = browser.next()["task"]
        body = {"id": f"answer-{order[0]}-0001", "kind": "rank", "ranking": order, "note": HOSTILE}
        assert browser.send(f"/t/{number}/draft", {"revision": 0, "payload": body}).status_code == 200
        calm(browser.get(f"/t/{number}"), "the item")
        assert browser.send(f"/t/{number}/answer", body).status_code == 200
    write = labeler.next("texts")["task"]
    said = {"id": "answer-w-0001", "kind": "demonstrate", "turns": [HOSTILE]}
    assert labeler.send(f"/t/{write}/answer", said).status_code == 200
    contested = f"/projects/round-1/adjudicate/{number}"
    admin.form(f"{contested}/order", ranking="A > B")
    calm(admin.get(contested), contested)
    settled = admin.form(f"{contested}/settle", ranking="A > B", cause="guideline", note=HOSTILE)
    assert settled.status_code == 303
    showed = 0
    for browser in (admin, labeler):
        for route in ROUTES:
            if "GET" in route.methods and "/export" not in route.path:
                showed += calm(browser.get(address(route).replace("/t/1", f"/t/{number}")), route.path)
        showed += calm(browser.get("/p/texts/mine"), "mine")
    assert showed >= 8  # pages that had something of it to show


def calm(reply, path):
    """Whether the page shows something hostile, which must be as text; JSON, which programs read, no browser draws."""
    assert reply.status_code < 500, path
    if reply.headers.get("content-type", "").startswith("text/html"):
        assert "<script>" not in reply.text and "<img" not in reply.text and "49 " not in reply.text, path
        assert "onerror=alert(2)>" not in reply.text, path
    return "&lt;script&gt;" in reply.text
