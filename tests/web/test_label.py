import json
import re

import pytest
from sqlalchemy import func, select

from tutelage.feedback.export import export_records
from tutelage.feedback.projects import find_project
from tutelage.feedback.schema import Answer
from tutelage.web.differences import differences

from .site import on_both


def answers(store):
    with store.read() as db:
        return list(db.scalars(select(Answer).order_by(Answer.number)))


def test_a_form_without_script_ranks_and_goes_on(local, filled):
    item = local.next()
    page = local.get(f"/t/{item['task']}").text
    assert "Answer 1 to" in page and "Be fair." in page
    number = re.search(r'name="id" value="([^"]+)"><input type="hidden" name="kind" value="rank"', page).group(1)
    fields = {"id": number, "kind": "rank", "ranking": "", "rank_A": "2", "rank_B": "1", "rank_C": "2"}
    reply = local.form(f"/t/{item['task']}/answer", **fields, **{"rating_A": "6", "flags_B[]": ["harmful", "violent"]})
    assert (reply.status_code, reply.headers["location"]) == (303, "/p/round-1/next")
    stored = answers(filled)[0]
    first = stored.shown["order"]
    assert [stored.payload["ranks"][place] for place in first] == [2, 1, 2, None]
    assert stored.payload["ratings"][first[0]] == 6 and stored.payload["flags"][first[1]] == ["harmful", "violent"]


def test_nothing_untouched_counts_as_an_answer(local, filled):
    item = local.next()
    reply = local.form(f"/t/{item['task']}/answer", id="untouched-form", kind="rank", ranking="")
    assert reply.status_code == 422 and "Rank two answers or more" in reply.text
    sent = local.send(f"/t/{item['task']}/answer", {"id": "untouched-json", "kind": "rank"})
    assert sent.status_code == 422 and "ranking" in sent.json()["faults"]
    assert answers(filled) == []


def test_a_form_that_is_refused_keeps_what_was_typed(local):
    item = local.next("texts")
    reply = local.form(f"/t/{item['task']}/answer", id="empty-answer", kind="demonstrate", answer="   ")
    assert reply.status_code == 422 and "The answer is empty." in reply.text
    item = local.next()
    reply = local.form(f"/t/{item['task']}/answer", id="one-ranked", kind="rank", ranking="B", note="kept note")
    assert 'value="B"' in reply.text and "kept note" in reply.text


@on_both
def test_writing_steps_and_skipping(local, filled):
    item = local.next("texts")
    local.send(
        f"/t/{item['task']}/answer", {"id": "demo-0001", "kind": "demonstrate", "turns": ["Hello."], "seconds": 2}
    )
    item = local.next("proofs")
    assert item["steps"] == ["one", "two", "three", "four"]
    local.send(f"/t/{item['task']}/answer", {"id": "step-0001", "kind": "steps", "labels": [1, 0, -1]})
    item = local.next()
    skipped = local.form(f"/t/{item['task']}/answer", id="skip-0001", kind="skip", reason="unclear")
    assert skipped.status_code == 303
    with filled.read() as db:
        text = export_records(db, find_project(db, "texts")).demonstrations[0]
        steps = export_records(db, find_project(db, "proofs")).steps[0]
        skip = export_records(db, find_project(db, "round-1")).skips[0]
    assert text.messages[-1] == {"role": "assistant", "content": "Hello."}
    assert (steps.steps, steps.labels) == (["one", "two", "three"], [1, 0, -1])
    assert skip.reason == "unclear" and skip.labeler == "local"


@on_both
def test_sent_twice_is_stored_once_and_an_answer_can_be_corrected(local, filled):
    item = local.next()
    body = {"id": "answer-0001", "kind": "rank", "ranking": "B > A"}
    assert [local.send(f"/t/{item['task']}/answer", body).status_code for _ in range(3)] == [200] * 3
    page = local.get("/p/round-1/mine").text
    assert "B &gt; A" in page and f"/t/{item['task']}" in page
    again = local.get(f"/t/{item['task']}").text
    assert "correcting an answer" in again and 'value="B &gt; A"' in again
    local.send(f"/t/{item['task']}/answer", {"id": "answer-0002", "kind": "rank", "ranking": "A > B"})
    assert [a.supersedes for a in answers(filled)] == [None, "answer-0001"]


@on_both
def test_drafts_come_back_and_stale_ones_are_refused(local):
    item = local.next()
    path = f"/t/{item['task']}/draft"
    assert local.send(path, {"revision": 0, "payload": {"ranking": "C > A", "note": "half"}}).json() == {"revision": 1}
    assert local.send(path, {"revision": 0, "payload": {}}).status_code == 409
    page = local.get(f"/t/{item['task']}").text
    assert 'value="C &gt; A"' in page and ">half</textarea>" in page
    local.send(path, {"revision": 1, "payload": {"ratings": 5, "flags": [1], "ranking": {}}})
    assert local.get(f"/t/{item['task']}").status_code == 200  # a draft of wrong types is not shown


@on_both
def test_no_model_is_named_and_the_order_is_the_persons_own(signed_in, filled):
    orders = {}
    for role in ("lead", "labeler"):
        browser = signed_in[role]
        shown = []
        for _ in range(4):
            item = browser.next()
            page = browser.get(f"/t/{item['task']}").text
            assert "secret-model-name" not in page + json.dumps(item) and "p0-0" not in page + json.dumps(item)
            shown.append(list(item["answers"].values()))
            browser.send(
                f"/t/{item['task']}/answer", {"id": f"{role}-{item['task']:06}", "kind": "rank", "ranking": "A>B"}
            )
        orders[role] = shown
    assert orders["lead"] != orders["labeler"]
    with filled.read() as db:
        records = export_records(db, find_project(db, "round-1")).comparisons
    for one in records:  # A > B as the labeler saw them
        best, second = one.shown["order"][:2]
        assert (one.ranks[best], one.ranks[second]) == (1, 2)


@on_both
def test_an_item_at_hand_is_another_one(local):
    item = local.next()
    headers = {"accept": "application/json"}
    ahead = local.get(f"/p/round-1/next?besides={item['task']}", headers=headers).json()["task"]
    assert ahead not in (None, item["task"])
    assert "2 of 4" in local.get(f"/t/{ahead}?after={item['task']}").text
    assert local.next()["task"] == item["task"]


@on_both
def test_the_lease_is_told(local):
    item = local.next()
    assert local.send(f"/t/{item['task']}/lease", {}).json() == {"lease": "kept"}


@on_both
def test_when_all_is_done_the_page_says_so(local):
    while item := local.next("texts"):
        local.send(f"/t/{item['task']}/answer", {"id": f"done-{item['task']:06}", "kind": "demonstrate", "answer": "x"})
    assert "Nothing to label now" in local.get("/p/texts/next").text


@pytest.mark.parametrize(
    ("old", "new", "pieces"),
    [
        ("a b c d e f", "a b c d e f", [("same", "a b c d e f")]),
        ("a b c d", "a b c x", [("same", "a b c "), ("gone", "d"), ("new", "x")]),
        ("one two", "one two three", [("same", "one two "), ("new", "three")]),
        (
            "p q r s t",
            "v q w s x",
            [("gone", "p q r s t"), ("new", "v q w s x")],
        ),  # single shared words break nothing up
    ],
)
def test_differences(old, new, pieces):
    assert differences(old, new) == pieces


def test_differences_are_text(local, fill_more):
    fill_more("hostile", "Which?", ["<b>one</b>", "<script>two</script>"])
    item = local.next()
    page = local.get(f"/t/{item['task']}/differences/A/B").text
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert local.get(f"/t/{item['task']}/differences/A/Z").status_code == 404


def test_a_full_disk_is_told_and_nothing_is_acknowledged(local, filled, monkeypatch):
    from contextlib import contextmanager

    from tutelage.feedback.store import StoreUnavailable

    item = local.next()

    @contextmanager
    def full():
        raise StoreUnavailable("the server's disk is full")
        yield

    monkeypatch.setattr(filled, "write", full)
    reply = local.send(f"/t/{item['task']}/answer", {"id": "answer-0001", "kind": "rank", "ranking": "A > B"})
    assert reply.status_code == 503
    assert reply.json()["error"] == "Not saved: the server's disk is full. Your draft is safe here. Tell the lead."
    with filled.read() as db:
        assert db.scalar(select(func.count()).select_from(Answer)) == 0


def test_a_preview_counts_tokens_and_keeps_to_the_limits(local):
    item = local.next("texts")
    path = f"/t/{item['task']}/preview"
    said = local.send(path, {"turns": ["The baker lives by the river."]}).json()
    longer = local.send(path, {"turns": ["The baker lives by the river. The miller lives in the mill."]}).json()
    assert "The baker lives by the river." in said["text"] and said["limit"] == 1024
    assert 0 < said["answer"] < said["tokens"] < longer["tokens"]
    for wrong in ([], ["a", "b"], "text", [1], ["x" * 50_000]):
        assert local.send(path, {"turns": wrong}).status_code == 400
