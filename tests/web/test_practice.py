"""Worked examples to practise on: our order comes after one's own, and nothing is kept."""

import re

import pytest
from sqlalchemy import func, select

from tutelage.feedback.schema import Answer, Assignment

from .test_screening import EXAMPLE, TEST, upload

SECOND = {
    "prompt": "Kind?",
    "completions": ["yes", "so-so", "no", "no"],
    "ranks": [1, 2, 3, 3],
    "note": "<b>Be kind.</b>",
}


@pytest.fixture
def taught(signed_in):
    assert upload(signed_in["lead"], [EXAMPLE, SECOND], "example").status_code == 303
    return signed_in["labeler"]


def letters(page):
    return {
        text: letter for letter, text in re.findall(r'id="card-(\w)">.*?<p class="text" dir="auto">([^<]*)', page, re.S)
    }


def test_ones_own_order_first_then_ours_and_why(taught, filled):
    page = taught.get("/p/round-1/practise/2").text
    assert "2 of 2" in page and "Be kind" not in page and page.count("×2") == 1
    at = letters(page)
    assert set(at) == {"yes", "so-so", "no"}  # equal answers share a card
    line = f"{at['so-so']} > {at['yes']} > {at['no']}"
    done = taught.form("/p/round-1/practise/2", ranking=line).text
    # 5 pairs of four answers are told apart by both orders: no = no is none
    assert "You order 4 of 5 pairs as we do." in done and "&lt;b&gt;Be kind.&lt;/b&gt;" in done
    assert f"{at['yes']} &gt; {at['so-so']} &gt; {at['no']}" in done and "To the items" in done
    with filled.read() as db:
        assert db.scalar(select(func.count()).select_from(Answer)) == 0
        assert db.scalar(select(func.count()).select_from(Assignment)) == 0


def test_the_selects_do_as_well_and_faults_are_told(taught):
    at = letters(taught.get("/p/round-1/practise/1").text)
    fields = {f"rank_{at['4']}": "1", f"rank_{at['5']}": "2"}
    done = taught.form("/p/round-1/practise/1", **fields).text
    assert "You order 1 of 1 pair as we do." in done and "As ours" in done and "practise/2" in done
    for wrong in ({"ranking": ""}, {"ranking": "A"}, {"ranking": "A > Z"}, {"rank_A": "x"}, {"ranking": "A" * 300}):
        reply = taught.form("/p/round-1/practise/1", **wrong)
        assert reply.status_code == 422 and 'role="alert"' in reply.text and "Because five" not in reply.text
    assert taught.form("/p/round-1/practise/1", ranking="A = B").text.count("No two answers are told apart") == 1
    for path in ("/p/round-1/practise/3", "/p/texts/practise/1", "/p/round-1/practise/0", "/p/none/practise/1"):
        assert taught.get(path).status_code in (404, 422)


def test_it_is_offered_before_the_test_and_when_nothing_is_left(taught, signed_in):
    lead = signed_in["lead"]
    while item := taught.next():
        taught.send(f"/t/{item['task']}/answer", {"id": f"done-{item['task']:06}", "kind": "rank", "ranking": "A>B"})
    assert "/p/round-1/practise/1" in taught.get("/p/round-1/next").text
    assert "practise" not in taught.get("/p/texts/next", follow_redirects=True).text
    upload(lead, TEST)
    settings = {"overlap": "2", "gold_every": "0", "lease_minutes": "30", "instructions": "", "screening": "1"}
    lead.form("/projects/round-1/settings", **settings)
    assert "practise on them" in taught.get("/p/round-1/screening").text
    assert "To the screening" in taught.form("/p/round-1/practise/2", ranking="A > B").text
