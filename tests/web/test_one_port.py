"""The pages and the models' API on one port, and tokens in place of cookies."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tutelage.feedback import people, tokens
from tutelage.feedback.schema import ApiToken, Audit
from tutelage.web.one_port import OnePort

from .site import PASSWORD


def api():
    app = FastAPI()

    @app.get("/v1/models")
    def models():
        return {"data": ["m"]}

    @app.post("/v1/chat/completions")
    def chat():
        return {"choices": []}

    return app


def client(store, *, local=False):
    return TestClient(OnePort(api(), store, local=local), base_url="http://localhost:8000", follow_redirects=False)


def made(store, *scopes, role="labeler", days=None):
    with store.write() as db:
        person = people.add_person(db, f"P {role} {scopes} {days}", role, PASSWORD)
        return tokens.make_token(db, person, "a program", scopes, days)


def test_alone_on_this_machine_nobody_signs_in(filled):
    http = client(filled, local=True)
    assert http.get("/v1/models").json() == {"data": ["m"]}
    assert "Round 1" in http.get("/").text
    assert http.get("/v1/chat/completions").status_code == 405  # the API's own refusal, not a page
    assert http.get("/v1/nothing").json() == {"detail": "Not Found"}
    assert http.get("/v1x").status_code == 404 and "no such page" in http.get("/v1x").text


def test_elsewhere_the_models_ask_for_a_token(filled):
    http = client(filled)
    label, models = made(filled, "label"), made(filled, "models")
    assert http.get("/").headers["location"].startswith("/login")
    for token, status in ((None, 401), ("wrong", 401), (label, 403), (models, 200)):
        headers = {"authorization": f"Bearer {token}"} if token else {}
        reply = http.post("/v1/chat/completions", headers=headers)
        assert reply.status_code == status, token
        assert status == 200 or reply.json()["error"]["message"]
    with filled.write() as db:
        tokens.revoke(db, db.query(ApiToken).filter_by(digest=people.digest(models)).one(), None)
    assert http.get("/v1/models", headers={"authorization": f"Bearer {models}"}).status_code == 401


def test_a_token_opens_what_its_scopes_say_and_needs_no_form_token(filled):
    http = client(filled)
    headers = {"authorization": f"Bearer {made(filled, 'label')}", "accept": "application/json"}
    task = http.get("/p/round-1/next", headers=headers).json()["task"]
    body = {"id": "program-0001", "kind": "rank", "ranking": "A > B"}
    assert http.post(f"/t/{task}/answer", json=body, headers=headers).json()["stored"] == "program-0001"
    for path in ("/", "/people", "/projects/round-1", "/projects/round-1/export"):
        assert http.get(path, headers=headers).status_code == 403, path
    assert http.post("/projects/round-1/pause", json={"paused": "1"}, headers=headers).status_code == 403
    # a scope gives no more than the person's own role
    headers["authorization"] = f"Bearer {made(filled, 'export')}"
    assert http.get("/projects/round-1/export", headers=headers).status_code == 403
    headers["authorization"] = f"Bearer {made(filled, 'export', role='lead')}"
    assert http.get("/projects/round-1/export", headers=headers).status_code == 200
    assert http.get("/p/round-1/next", headers=headers).status_code == 403


def test_a_program_sends_feedback_with_the_scope_for_it(filled):
    http = client(filled)
    thumb = {"messages": [{"role": "user", "content": "Hello."}], "completion": "Good day.", "thumb": "up", "id": "t1"}
    for scope, status in (("label", 403), ("models", 403), ("feedback", 200)):
        headers = {"authorization": f"Bearer {made(filled, scope)}"}
        assert http.post("/v1/feedback", json=thumb, headers=headers).status_code == status, scope
    assert http.post("/v1/feedback/t1/undo", json={}, headers=headers).status_code == 200


def test_tokens_are_hashed_end_and_are_told_in_the_log(filled):
    token = made(filled, "models", "label", days=1)
    with filled.read() as db:
        row = db.query(ApiToken).one()
        stored = " ".join(str(value) for value in vars(row).values())
        assert token not in stored and token.removeprefix("tut_") not in stored
        assert tokens.find_token(db, token)[0].scopes == ["label", "models"]
        assert tokens.find_token(db, token, now=row.expires) is None
        assert tokens.find_token(db, token + "x") is None
        told = db.query(Audit).filter_by(action="make token").one().detail
    assert told == "a program: label, models"
    with filled.write() as db:
        people.set_active(db, db.get(people.Person, row.person_id), False)
    with filled.read() as db:
        assert tokens.find_token(db, token) is None


@pytest.mark.parametrize("change", [{"name": ""}, {"scopes": []}, {"scopes": ["modles"]}, {"days": 0}])
def test_tokens_that_cannot_be_made(filled, change):
    from tutelage.errors import UserError

    with filled.write() as db, pytest.raises(UserError):
        person = people.add_person(db, "Ana", "lead", PASSWORD)
        tokens.make_token(db, person, **{"name": "x", "scopes": ["models"], "days": None, **change})


def test_tokens_are_made_and_revoked_on_the_page(signed_in):
    lead, admin = signed_in["lead"], signed_in["admin"]
    fields = {"csrf": lead.csrf, "name": "night", "scopes[]": ["label", "export"], "days": "7"}
    page = lead.http.post("/people/tokens", data=fields).text
    token = page.split('id="token" readonly value="')[1].split('"')[0]
    headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
    nobody = signed_in["nobody"].http
    assert nobody.get("/p/round-1/next", headers=headers).json()["task"]
    assert token not in lead.get("/people").text  # shown once
    assert "export, label" in lead.get("/people").text
    number = lead.get("/people").text.split("/people/tokens/")[1].split("/")[0]
    assert signed_in["labeler"].form(f"/people/tokens/{number}/revoke").status_code == 403
    assert admin.form(f"/people/tokens/{number}/revoke").status_code == 303
    assert nobody.get("/p/round-1/next", headers=headers).status_code == 401
    log = admin.get("/people").text
    assert "make token" in log and "revoke token" in log and token not in log
    assert lead.http.post("/people/tokens", data=fields | {"scopes[]": "admin"}).status_code == 422
