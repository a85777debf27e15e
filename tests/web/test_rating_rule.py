"""Of which answers a project asks the quality: what the server refuses, and how the page asks for it."""

import re

import pytest

from tutelage.feedback.projects import find_project
from tutelage.feedback.ranking import must_rate

SETTINGS = {"overlap": "1", "gold_every": "0", "lease_minutes": "5"}


def rule(store, name):
    with store.write() as db:
        find_project(db, "round-1").rating = name


def test_of_which_answers_quality_is_asked():
    assert must_rate("optional", [1, 2]) == must_rate("none", [1, 2]) == must_rate("ends", [None, None]) == []
    assert must_rate("all", [None, 1, None]) == [0, 1, 2]
    assert must_rate("ends", [2, 1, None, 3, 3]) == [1, 3, 4]
    assert must_rate("ends", [1, 1, None]) == [0, 1]


@pytest.mark.parametrize(
    ("name", "given", "fault"),
    [
        ("optional", {}, ""),
        ("none", {"A": 3}, ""),
        ("all", {"A": 3, "B": 2, "C": 2}, "Rate the quality, 1 to 7, of D."),
        ("all", {"A": 3, "B": 2, "C": 2, "D": 1}, ""),
        ("ends", {"A": 3}, "Rate the quality, 1 to 7, of C, D."),
        ("ends", {"A": 3, "C": 2, "D": 2}, ""),
    ],
)
def test_the_server_refuses_what_lacks_what_the_project_asks(local, filled, name, given, fault):
    assert local.form("/projects/round-1/settings", **SETTINGS, rating=name).status_code == 303
    item = local.next()
    assert item["rating"] == name
    body = {"id": "answer-0001", "kind": "rank", "ranking": "A > B > C = D", "ratings": given}
    reply = local.send(f"/t/{item['task']}/answer", body)
    if fault:
        assert reply.status_code == 422 and reply.json()["faults"] == {"ratings": fault}
        return
    assert reply.status_code == 200
    kept = local.get(f"/t/{item['task']}").text
    found = re.findall(r'name="rating_(\w)" value="(\d)" checked', kept)
    assert {letter: int(value) for letter, value in found} == ({} if name == "none" else given)


def test_a_form_without_script_is_told_beside_the_field(local, filled):
    rule(filled, "all")
    item = local.next()
    sent = {"id": "answer-0001", "kind": "rank", "ranking": "A > B", "rating_A": "7"}
    reply = local.form(f"/t/{item['task']}/answer", **sent)
    assert reply.status_code == 422
    assert '<p class="fault" id="fault-ratings" >Rate the quality, 1 to 7, of B, C, D.</p>' in reply.text
    assert 'href="#field-ratings"' in reply.text and 'id="field-ratings"' in reply.text


def test_a_rule_that_is_none_is_refused(local):
    assert local.form("/projects/round-1/settings", **SETTINGS, rating="some").status_code == 422
