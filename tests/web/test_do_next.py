"""What the lead's page says is to be done: each step while it holds, and no longer."""

import re

from tutelage.feedback.projects import find_project
from tutelage.feedback.schema import Admission, Person, Round

from .test_adjudicate import disagree


def steps(browser, project="round-1"):
    """What is said, the act and where it leads, of each step on the project's page."""
    page = browser.get(f"/projects/{project}").text
    found = re.search(r'id="do-next">(.*?)</section>', page, re.S)
    return re.findall(r'<li>(.*?) <a href="(.*?)">(.*?)</a>', found.group(1)) if found else []


def test_from_nothing_to_the_first_answers(signed_in):
    lead = signed_in["lead"]
    lead.form("/projects", name="New one", overlap="1")
    assert steps(lead, "new-one") == [("No item yet", "#add", "Add items")]
    assert steps(lead) == [("Nobody has begun", "/people", "Invite people")]
    signed_in["labeler"].next()
    assert steps(lead) == []
    lead.form("/projects/round-1/pause", paused="1")
    assert steps(lead) == [("Paused with 8 answers to go", "#pause", "Resume")]


def test_items_on_which_labelers_differ_until_they_are_settled(signed_in):
    lead, admin = signed_in["lead"], signed_in["admin"]
    disagree(signed_in)
    said = ("2 items on which labelers agree under 0.4", "/projects/round-1/adjudicate", "Adjudicate")
    assert steps(lead) == [said]
    listed = admin.get("/projects/round-1/adjudicate").text
    path = listed.split('class="primary" href="')[1].split('"')[0]
    admin.form(path + "/order", ranking="A > B")
    admin.form(path + "/settle", ranking="A > B > C", cause="slip")
    assert steps(lead)[0][0] == "1 item on which labelers agree under 0.4"
    assert "Settle the 1 item with the lowest" in lead.get("/projects/round-1").text


def test_people_who_wait_and_rounds(signed_in, filled):
    lead = signed_in["lead"]
    for role in ("lead", "labeler"):
        browser = signed_in[role]
        while item := browser.next():
            best = sorted(item["answers"], key=item["answers"].get)
            body = {"id": f"{role}-{item['task']:06}", "kind": "rank", "ranking": " > ".join(best)}
            browser.send(f"/t/{item['task']}/answer", body)
    assert steps(lead) == [("Every item has its answers", "/projects/round-1/rounds", "Start round 1")]
    with filled.write() as db:
        project, person = find_project(db, "round-1"), db.query(Person).filter_by(name="Labeler").one()
        db.add(Admission(project_id=project.id, person_id=person.id, state="handed in", started=0.0, scores={}))
        db.add(Round(project_id=project.id, number=1, settings={}, state="failed", folder="x", result={}, created=0))
    assert steps(lead) == [
        ("1 person waits to be let in", "/projects/round-1/screening", "Read the screening"),
        ("Round 1 failed", "/projects/round-1/rounds", "Go on with it"),
    ]
    for state, expected in (("training", 1), ("done", 2)):
        with filled.write() as db:
            db.query(Round).one().state = state
        assert len(steps(lead)) == expected
    assert steps(lead)[1][2] == "Start round 2"
