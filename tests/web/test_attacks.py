"""Every route by everybody who may not, forged forms, odd bodies, and script in every text."""

import re

import pytest
from fastapi.routing import APIRoute

from tutelage.web.access import PUBLIC
from tutelage.web.app import PARTS

from .site import on_both

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202etxt {{7*7}} &amp; '\" "
ROLES = ("nobody", "labeler", "lead", "admin")
ROUTES = [r for part in PARTS for r in part.router.routes if isinstance(r, APIRoute)]
CASES = [(method, route) for route in ROUTES for method in sorted(route.methods - {"HEAD"})]
WORDS = {"project_id": "round-1", "task_id": "1", "a": "A", "b": "B", "person_id": "x", "token": "x", "number": "1"}
WORDS |= {"job_id": "1", "token_id": "1", "id": "1"}


def address(route):
    path = route.path
    for name, value in WORDS.items():
        path = path.replace(f"{{{name}}}", value)
    return path


def test_every_route_says_who_may_use_it():
    assert len(CASES) >= 23
    for _, route in CASES:
        assert route.endpoint.allowed, route.path


@pytest.mark.parametrize("role", ROLES)
def test_everybody_is_kept_out_of_what_is_not_theirs(signed_in, role):
    browser = signed_in[role]
    tried = 0
    for method, route in CASES:
        allowed = route.endpoint.allowed
        if PUBLIC in allowed or role in allowed:
            continue
        tried += 1
        headers = {"x-csrf-token": browser.csrf, "accept": "application/json"}
        reply = browser.http.request(method, address(route), headers=headers)
        assert reply.status_code == (401 if role == "nobody" else 403), (role, method, route.path)
        assert set(reply.json()) == {"error"}
        if role == "labeler":
            whom = "leads. Ask Lead." if "lead" in allowed else "administrators. Ask Admin."
            assert reply.json()["error"] == f"This page is for {whom}"
    assert tried >= {"nobody": 41, "labeler": 28, "lead": 1, "admin": 0}[role]


@pytest.mark.parametrize("token", ["", "wrong", "ü"])
def test_no_change_without_the_sessions_token(signed_in, token):
    admin = signed_in["admin"]
    for method, route in CASES:
        if method == "POST" and PUBLIC not in route.endpoint.allowed:
            for reply in (
                admin.http.post(address(route), data={"csrf": token, "role": "admin", "paused": "1"}),
                admin.http.post(address(route), json={"csrf": [token]}),
            ):
                assert reply.status_code == 403, route.path


def test_another_persons_token_is_no_token(signed_in):
    signed_in["lead"].csrf = signed_in["admin"].csrf
    assert signed_in["lead"].form("/projects/round-1/pause", paused="1").status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "http://testserver.evil.example"},
    ],
)
def test_forms_from_another_site_are_refused(signed_in, headers):
    admin = signed_in["admin"]
    for path in ("/projects/round-1/pause", "/login", "/logout"):
        assert admin.http.post(path, data={"csrf": admin.csrf, "paused": "1"}, headers=headers).status_code == 403


def test_the_local_start_answers_to_local_names_only(local):
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", ""):
        assert local.http.get("/", headers={"host": host}).status_code == 421
    for host in ("localhost:8000", "127.0.0.1:9", "[::1]:8000"):
        assert local.http.get("/", headers={"host": host}).status_code == 200


@on_both
def test_others_items_cannot_be_read_or_answered(signed_in):
    item = signed_in["lead"].next()
    labeler = signed_in["labeler"]
    base = f"/t/{item['task']}"
    assert labeler.get(base).status_code == labeler.get(f"{base}/differences/A/B").status_code == 409
    for path, body in (
        ("answer", {"id": "stolen-0001", "kind": "rank", "ranking": "A>B"}),
        ("draft", {"revision": 0, "payload": {}}),
        ("lease", {}),
    ):
        assert labeler.send(f"{base}/{path}", body).status_code == 409


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/%2e%2e/records.py",
        "/static/....//app.py",
        "/static//etc/passwd",
        "/p/../projects",
        "/p/..%2f..%2fetc/next",
        "/t/1e3",
        "/t/-1",
        "/t/99999999999999999999",
        "/projects/%00",
        "/join/" + "x" * 5000,
        "/projects/' OR 1=1 --",
    ],
)
def test_strange_paths_find_nothing(signed_in, path):
    reply = signed_in["admin"].http.get(path, follow_redirects=True)
    assert reply.status_code in (400, 403, 404, 405, 409, 422), reply.status_code
    assert "def create_app" not in reply.text and "root:" not in reply.text


BODIES = [
    [],
    {"id": "x"},
    {"id": "../../../x", "kind": "rank"},
    {"id": ["answer-0001"], "kind": "rank"},
    {"id": "answer-0001", "kind": ["rank"]},
    {"id": "answer-0001", "kind": "delete"},
    {"id": "answer-0001", "kind": "demonstrate", "answer": "x"},
    {"id": "answer-0001", "kind": "rank", "ranking": "A > B", "note": "\x00"},
    {"id": "answer-0001", "kind": "rank", "ranking": {"A": 1}},
    {"id": "answer-0001", "kind": "rank", "ranking": "A" * 300},
    {"id": "answer-0001", "kind": "rank", "ranking": "A > B", "ratings": {"A": True}},
    {"id": "answer-0001", "kind": "rank", "ranking": "A > B", "ratings": {"A": 1e300}},
    {"id": "answer-0001", "kind": "rank", "ranking": "A > B", "flags": {"A": "harmful"}},
    {"id": "answer-0001", "kind": "skip", "reason": {"x": 1}},
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_malformed_answers_are_refused_and_stored_nowhere(local, filled, body):
    from sqlalchemy import func, select

    from tutelage.feedback.schema import Answer

    item = local.next()
    reply = local.send(f"/t/{item['task']}/answer", body)
    assert reply.status_code in (400, 409, 422)
    with filled.read() as db:
        assert db.scalar(select(func.count()).select_from(Answer)) == 0


def test_odd_effort_does_no_harm(local):
    item = local.next()
    body = {
        "id": "answer-0001",
        "kind": "rank",
        "ranking": "A > B",
        "effort": [1],
        "seconds": "much",
        "supersedes": "x",
    }
    assert local.send(f"/t/{item['task']}/answer", body).status_code == 200


def test_big_and_broken_bodies(local):
    headers = {"x-csrf-token": local.csrf, "content-type": "application/json", "accept": "application/json"}
    path = f"/t/{local.next()['task']}/draft"
    assert local.http.post(path, content=b"x" * 1_100_000, headers=headers).status_code == 413
    chunks = (b"x" * 300_000 for _ in range(5))  # no length is announced
    assert local.http.post(path, content=chunks, headers=headers).status_code == 413
    assert local.http.post(path, content=b"[" * 200_000, headers=headers).status_code == 400
    assert local.http.post(path, content=b"{", headers=headers).status_code == 400
    xml = headers | {"content-type": "text/xml"}
    assert local.http.post(path, content=b"<a/>", headers=xml).status_code == 400
    assert local.http.post(path, content=b"{}", headers=headers | {"content-length": "-5"}).status_code in (400, 413)
    many = "&".join(f"a{i}=1" for i in range(600))
    form = headers | {"content-type": "application/x-www-form-urlencoded"}
    assert local.http.post(path, content=many, headers=form).status_code in (400, 403)


def test_what_people_and_models_write_is_text(local, filled, fill_more):
    fill_more("hostile", HOSTILE, [HOSTILE + "one", HOSTILE + "two"])
    local.form("/projects", name="Round <script>x</script>", overlap="1")
    local.form("/projects/round-1/settings", overlap="1", gold_every="0", lease_minutes="5", instructions=HOSTILE)
    item = local.next()
    assert item["messages"][0]["content"] == HOSTILE
    draft = {"revision": 0, "payload": {"note": HOSTILE, "ranking": "A > B"}}
    assert local.send(f"/t/{item['task']}/draft", draft).status_code == 200
    pages = ["/", f"/t/{item['task']}", "/projects/round-1", f"/t/{item['task']}/differences/A/B"]
    local_pages = [local.get(page) for page in pages]
    local.send(f"/t/{item['task']}/answer", {"id": "answer-0001", "kind": "rank", "ranking": "A>B", "note": HOSTILE})
    for page in [*local_pages, local.get("/p/round-1/mine"), local.get(f"/t/{item['task']}")]:
        assert page.status_code == 200
        assert "<script>" not in page.text and "<img" not in page.text and "49 " not in page.text


def test_every_reply_carries_the_policy_and_no_page_breaks_it(local):
    item = local.next()
    for path in ("/", f"/t/{item['task']}", "/people", "/projects/round-1", "/nope", "/static/app.css"):
        reply = local.http.get(path)
        policy = reply.headers["content-security-policy"]
        assert (
            "default-src 'none'" in policy
            and "unsafe" not in policy
            and reply.headers["x-content-type-options"] == "nosniff"
        )
        if path != "/static/app.css":
            assert " style=" not in reply.text and "<script>" not in reply.text and " onclick" not in reply.text
            assert "http://" not in reply.text.replace("http://www.w3.org", "") and "https://" not in reply.text
            assert reply.headers["cache-control"] == "no-store"
    named = re.search(r"/static/app.css\?v=\w+", local.http.get("/").text).group()
    kept = {path: local.http.get(path).headers["cache-control"] for path in (named, named + "0", "/static/rank.js")}
    assert ["immutable" in value for value in kept.values()] == [True, False, False]


@on_both
def test_passwords_cannot_be_guessed_at_leisure(signed_in):
    nobody = signed_in["nobody"]
    tries = [nobody.http.post("/login", data={"name": "Admin", "password": f"guess {i}"}).status_code for i in range(7)]
    assert tries == [403] * 5 + [429] * 2
    right = nobody.http.post("/login", data={"name": "Admin", "password": "a long password"})
    assert right.status_code == 429  # the right one must wait too


@on_both
def test_a_session_ends_with_its_cookie(signed_in):
    lead = signed_in["lead"]
    cookie = lead.http.cookies["tutelage_session"]
    lead.form("/logout")
    lead.http.cookies.set("tutelage_session", cookie)
    assert lead.get("/").status_code == 303
    lead.http.cookies.set("tutelage_session", "x" * 5000)
    assert lead.get("/").headers["location"].startswith("/login")
