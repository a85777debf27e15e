"""The pages on SQLite and on PostgreSQL: people who answer at once, a server that is killed, and what comes out of it."""

import io
import json
import threading
import zipfile

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from tutelage.feedback import Store, people
from tutelage.feedback.schema import Answer, Assignment, Audit, Task
from tutelage.web import create_app

from .site import PASSWORD, Browser, fill, on_both
from .test_lead import lines, upload

LABELERS, ITEMS, OVERLAP = 6, 10, 2  # overlap: of `fill`


def browsers_of(store, app, names):
    """A signed-in browser of each of these labelers."""
    made = []
    for name in names:
        with store.write() as db:
            token, session = people.sign_in(db, people.add_person(db, name, "labeler", None))
        made.append(Browser(app))
        made[-1].http.cookies.set("tutelage_session", token)
        made[-1].csrf = session.csrf
    return made


def answer_all(browser, name, told):
    """Take and answer until nothing is left; each answer goes out twice. `told` is what the server said it stored."""
    while (item := browser.next()) is not None:
        body = {"id": f"{name}-{item['task']:06}", "kind": "rank", "ranking": "B > A = C"}
        replies = [browser.send(f"/t/{item['task']}/answer", body) for _ in range(2)]
        told.append((name, item["task"], [reply.status_code for reply in replies]))


@on_both
def test_people_who_answer_at_once_share_no_place_and_meet_no_item_twice(store):
    fill(store, prompts=ITEMS)
    names = [f"Labeler {i}" for i in range(LABELERS)]
    told = []
    threads = [
        threading.Thread(target=answer_all, args=(browser, name.replace(" ", ""), told))
        for browser, name in zip(browsers_of(store, create_app(store), names), names, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {tuple(codes) for _, _, codes in told} == {(200, 200)}
    assert len({(name, task) for name, task, _ in told}) == len(told) == ITEMS * OVERLAP
    with store.read() as db:
        ranked = select(Task.filled).where(Task.project_id == "round-1")
        assert list(db.scalars(ranked)) == [OVERLAP] * ITEMS
        assert db.scalar(select(func.count()).select_from(Answer)) == ITEMS * OVERLAP
        assert not db.scalar(select(func.count()).select_from(Answer).where(Answer.extra))
        assert db.scalar(select(func.count()).select_from(Assignment)) == ITEMS * OVERLAP


@on_both
def test_a_skip_frees_the_place_and_a_reopened_answer_supersedes(signed_in, filled):
    labeler, lead = signed_in["labeler"], signed_in["lead"]
    first = labeler.next()["task"]
    skip = {"id": "skip-00001", "kind": "skip", "reason": "knowledge"}
    assert labeler.send(f"/t/{first}/answer", skip).status_code == 200
    second = labeler.next()["task"]
    assert second != first  # nor does what was skipped come back
    assert "needs knowledge that I lack" in labeler.get("/p/round-1/mine").text
    for number, line in enumerate(("A > B", "B > A")):
        body = {"id": f"ranked-{number:04}", "kind": "rank", "ranking": line}
        assert labeler.send(f"/t/{second}/answer", body).status_code == 200
    assert 'value="B &gt; A"' in labeler.get(f"/t/{second}").text
    ranked = {"id": "ranked-0003", "kind": "rank", "ranking": "A > B"}
    assert labeler.send(f"/t/{first}/answer", ranked).status_code == 200  # a skip may be taken back
    assert lead.next()["task"] == first
    with filled.read() as db:
        found = db.scalars(select(Answer).order_by(Answer.number)).all()
        assert [a.supersedes for a in found] == [None, None, "ranked-0000", "skip-00001"]
        assert dict(db.execute(select(Task.id, Task.filled).where(Task.id.in_([first, second]))).all()) == {
            first: 1,
            second: 1,
        }


@on_both
def test_what_a_server_acknowledged_is_there_for_the_next_one(signed_in, filled):
    labeler = signed_in["labeler"]
    done = labeler.next()
    body = {"id": "answer-0001", "kind": "rank", "ranking": "C > A"}
    assert labeler.send(f"/t/{done['task']}/answer", body).status_code == 200
    open_ = labeler.next()
    draft = {"revision": 0, "payload": {"ranking": "D > B", "note": "half"}}
    assert labeler.send(f"/t/{open_['task']}/draft", draft).json() == {"revision": 1}
    filled.engine.dispose()
    other = Store.open(filled.engine.url.render_as_string(hide_password=False), create=False)
    try:
        again = Browser(create_app(other))
        again.http.cookies = labeler.http.cookies  # the session outlives the server
        assert again.next()["task"] == open_["task"]  # so do the lease and the draft
        page = again.get(f"/t/{open_['task']}").text
        assert 'value="D &gt; B"' in page and ">half</textarea>" in page
        assert "C &gt; A" in again.get("/p/round-1/mine").text
        assert again.send(f"/t/{done['task']}/answer", body).json() == {"stored": "answer-0001", "extra": False}
        with other.read() as db:
            assert list(db.scalars(select(Answer.id))) == ["answer-0001"]
    finally:
        other.close()


@on_both
def test_what_was_answered_and_what_was_done_cannot_be_rewritten(signed_in, filled):
    lead = signed_in["lead"]
    lead.form("/projects/round-1/pause", paused="0")
    item = lead.next()
    lead.send(f"/t/{item['task']}/answer", {"id": "answer-0001", "kind": "rank", "ranking": "A > B"})
    for table, column in (("answer", "kind"), ("audit", "action")):
        for change in (f"UPDATE {table} SET {column} = 'other'", f"DELETE FROM {table}"):
            with pytest.raises(DBAPIError, match="append-only"), filled.write() as db:
                db.execute(text(change))
    with filled.read() as db:
        assert "resume" in list(db.scalars(select(Audit.action)))


@on_both
def test_what_one_project_exports_another_takes_in_whole(signed_in, filled):
    lead, labeler = signed_in["lead"], signed_in["labeler"]
    for number, browser in enumerate((lead, labeler)):
        told = []
        answer_all(browser, f"person{number}", told)
        assert len(told) == 4
    packed = zipfile.ZipFile(io.BytesIO(lead.get("/projects/round-1/export").content))
    records = packed.read("round-1/comparisons.jsonl")
    lead.form("/projects", name="Copy", overlap="2")
    copied = {"csrf": lead.csrf, "tasks": "answers"}
    files = {"file": ("comparisons.jsonl", records)}
    for said in ("imported", "same"):
        reply = lead.http.post("/projects/copy/import", data=copied, files=files)
        assert reply.headers["location"] == f"/projects/copy?said={said}"
    again = zipfile.ZipFile(io.BytesIO(lead.get("/projects/copy/export").content))
    assert told_by(again.read("copy/comparisons.jsonl")) == told_by(records)


def told_by(content):
    """Of each comparison: the question, and the rank of each answer's text."""
    rows = [json.loads(row) for row in content.splitlines()]
    return sorted(
        (row["messages"][-1]["content"], sorted(zip(row["completions"], map(str, row["ranks"]), strict=True)))
        for row in rows
    )


@on_both
def test_accounts_begin_end_and_are_told(signed_in, filled):
    admin, nobody = signed_in["admin"], signed_in["nobody"]
    wrong = nobody.http.post("/login", data={"name": "Lead", "password": "a wrong password"})
    right = nobody.http.post("/login", data={"name": " lead ", "password": PASSWORD})
    assert (wrong.status_code, right.status_code) == (403, 303)
    assert "Round 1" in nobody.get("/").text
    assert upload(nobody, lines({"prompt": "N?", "completions": ["x", "y"]})).status_code == 303
    page = admin.get("/people").text
    assert "sign-in refused" in page and "import" in page
