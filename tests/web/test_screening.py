"""A labeler takes the test, a lead lets them in; nothing of it is exported."""

import json

import pytest

from tutelage.feedback.export import export_records
from tutelage.feedback.projects import find_project

TEST = [
    {"prompt": "Best color?", "completions": ["red", "green", "blue"], "ranks": [1, 2, 3]},
    {"prompt": "Say it.", "completion": "a slur", "sensitive": True},
    {"prompt": "Say it.", "completion": "hello", "sensitive": False},
    {"prompt": "Why do people die?"},
]
EXAMPLE = {"prompt": "2 + 2?", "completions": ["4", "5"], "ranks": [1, 2], "note": "Because five is wrong."}


def upload(lead, rows, part="test"):
    content = "\n".join(json.dumps(row) for row in rows).encode()
    fields = {"csrf": lead.csrf, "part": part}
    return lead.http.post("/projects/round-1/screening-import", data=fields, files={"file": ("x.jsonl", content)})


@pytest.fixture
def screened(signed_in):
    lead = signed_in["lead"]
    assert upload(lead, TEST).status_code == upload(lead, [EXAMPLE], "example").status_code == 303
    settings = {"overlap": "2", "gold_every": "0", "lease_minutes": "30", "instructions": "", "screening": "1"}
    assert lead.form("/projects/round-1/settings", **settings).status_code == 303
    return signed_in


def take(labeler):
    """Ranks blue above green above red (2 of 3 pairs wrong way: all three), flags both, writes."""
    kinds = []
    while item := labeler.next():
        kinds.append(item["kind"])
        body = {"id": f"screening-{item['task']:04}", "kind": item["kind"]}
        if item["kind"] == "rank":
            letters = {text: letter for letter, text in item["answers"].items()}
            body["ranking"] = f"{letters['red']} > {letters['blue']} > {letters['green']}"
        elif item["kind"] == "flag":
            body["sensitive"] = "1"
        else:
            body["answer"] = "All that lives ends."
        assert labeler.send(f"/t/{item['task']}/answer", body).status_code == 200
    return kinds


def test_from_the_test_to_the_first_item(screened, filled):
    lead, labeler = screened["lead"], screened["labeler"]
    page = labeler.get("/p/round-1/screening").text
    assert "Rank the answers to 1" in page and "Begin" in page and "Because five is wrong." in page
    assert labeler.get("/").text.count("To the screening") == 1
    assert take(labeler) == ["rank", "flag", "flag", "demonstrate"]
    to = labeler.get("/p/round-1/next").headers["location"]
    assert to == "/p/round-1/screening"
    page = labeler.get(to).text
    assert "67 % of 3 pairs" in page and "1 of 2 texts" in page and "A lead will read your texts" in page
    # handed in: nothing changes any more, and no item is given
    task = labeler.get("/p/round-1/mine").text.split('href="/t/')[1].split('"')[0]
    again = labeler.send(f"/t/{task}/answer", {"id": "screening-again", "kind": "skip", "reason": "unclear"})
    assert again.status_code == 409 and labeler.next() is None

    seen = lead.get("/projects/round-1/screening").text
    assert "66.7 %" in seen and "50.0 %" in seen and "All that lives ends." in seen
    score = seen.split('name="score_')[1].split('"')[0]
    person = seen.split("/projects/round-1/screening/")[1].split('"')[0]
    path = f"/projects/round-1/screening/{person}"
    assert lead.form(path, **{f"score_{score}": "9", "admit": "1"}).status_code == 422
    assert lead.form(path, **{f"score_{score}": "6", "admit": "1"}).status_code == 303
    assert "6.0" in lead.get("/projects/round-1/screening").text
    item = labeler.next()
    assert item["kind"] == "rank" and item["messages"][0]["content"].startswith("Question")
    assert "Because five is wrong." in labeler.get(f"/t/{item['task']}").text  # examples stay beside the task
    with filled.read() as db:
        found = export_records(db, find_project(db, "round-1"))
    assert not (found.comparisons or found.demonstrations or found.skips)
    assert "0</b> of 8 answers" in lead.get("/projects/round-1").text


def test_who_is_declined_gets_nothing_and_leads_take_no_test(screened):
    lead, labeler = screened["lead"], screened["labeler"]
    assert lead.next()["messages"][0]["content"].startswith("Question")
    take(labeler)
    labeler.get("/p/round-1/next")
    person = lead.get("/projects/round-1/screening").text.split("/projects/round-1/screening/")[1].split('"')[0]
    lead.form(f"/projects/round-1/screening/{person}", admit="0")
    assert labeler.next() is None and "other work for you" in labeler.get("/p/round-1/screening").text


def test_nobody_is_let_in_before_the_test_is_over(screened):
    lead, labeler = screened["lead"], screened["labeler"]
    labeler.next()
    shown = lead.get("/projects/round-1/screening").text
    assert "open, 0 done" in shown and "Let Labeler label" not in shown
    from tutelage.feedback.people import Person

    with lead.http.app.state.store.read() as db:
        person = db.query(Person).filter_by(name="Labeler").one().id
    assert lead.form(f"/projects/round-1/screening/{person}", admit="1").status_code == 422


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"prompt": "x", "completion": "y", "sensitive": "yes"}, "test"),
        ({"prompt": "x", "completion": "y"}, "test"),
        ({"sensitive": True}, "test"),
        ({"prompt": "alone"}, "example"),
        ({"prompt": "x", "completions": ["a"], "ranks": [1, 2]}, "test"),
    ],
)
def test_rows_that_are_no_test(signed_in, row, part):
    reply = upload(signed_in["lead"], [TEST[0], row] if part == "test" else [row], part)
    assert reply.status_code == 422 and "row" in reply.text
