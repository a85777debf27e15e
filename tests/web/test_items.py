"""The lead's list of items: found by words and state, with what was written, judged and skipped, and no order."""

from tutelage.feedback import people
from tutelage.feedback.items import skip_reasons
from tutelage.feedback.projects import find_project
from tutelage.feedback.thumbs import give_feedback, undo_feedback

from .site import on_both


def answer(browser, project, **fields):
    task = browser.next(project)["task"]
    reply = browser.send(f"/t/{task}/answer", {"id": f"answer-of-{project}-{task}", **fields})
    assert reply.status_code == 200, reply.text
    return task


@on_both
def test_a_lead_finds_items_and_reads_what_was_said(signed_in, filled):
    lead, labeler = signed_in["lead"], signed_in["labeler"]
    answer(labeler, "texts", kind="demonstrate", turns=["A <b>kind</b> answer.", "And?", "More."])
    answer(labeler, "proofs", kind="steps", labels=[1, -1])
    answer(labeler, "round-1", kind="rank", ranking="A > B")
    task = answer(labeler, "round-1", kind="skip", reason="language")
    written = lead.get("/projects/texts/items?show=written").text
    assert "assistant: A &lt;b&gt;kind&lt;/b&gt; answer." in written and "Question 1?" not in written
    assert "right wrong" in lead.get("/projects/proofs/items?show=judged").text
    skipped = lead.get("/projects/round-1/items?show=skipped").text
    assert "skipped: not in my language" in skipped and skipped.count("Question") == 1
    everything = lead.get("/projects/round-1/items").text
    assert everything.count("Question") == 4 and "1 of 2" in everything and "&gt; B" not in everything
    assert lead.get("/projects/round-1/items?q=question+3").text.count("Question") == 1
    assert "No item is so" in lead.get("/projects/round-1/items?q=%25").text
    for wrong in ("show=none", "q=%00", "at=0"):
        assert 400 <= lead.get(f"/projects/round-1/items?{wrong}").status_code < 500
    assert labeler.get("/projects/round-1/items").status_code == 403
    assert "Skipped: 1 × not in my language" in lead.get("/projects/round-1").text
    body = {"id": "after-all-1", "kind": "rank", "ranking": "A > B"}
    assert labeler.send(f"/t/{task}/answer", body).status_code == 200
    with filled.read() as db:
        assert skip_reasons(db, find_project(db, "round-1")) == {}


def test_prompts_in_any_script_are_found_and_pages_follow(signed_in, fill_more):
    lead = signed_in["lead"]
    for number in range(30):
        fill_more(f"more-{number}", f"Wo wohnt Müllerin {number}? مرحبا", ["x", "y"])
    assert lead.get("/projects/round-1/items?q=M%C3%BCllerin+29").text.count("Wo wohnt") == 1
    assert lead.get("/projects/round-1/items?q=مرحبا").text.count("Wo wohnt") == 25
    second = lead.get("/projects/round-1/items?q=مرحبا&at=2").text
    assert second.count("Wo wohnt") == 5 and "Earlier items" in second and "Later items" not in second


def test_what_was_said_in_a_chat_breaks_no_page(signed_in, filled):
    lead = signed_in["lead"]
    with filled.write() as db:
        person = people.by_name(db, "Lead").id
        asked = [{"role": "user", "content": "Who lives in the mill?"}]
        for number, thumb in enumerate((True, False)):
            give_feedback(db, person, asked, f"Text {number}.", thumb=thumb, id=f"thumb-{number}")
        undo_feedback(db, person, "thumb-0")
    page = lead.get("/projects/chat/items").text
    assert "thumb down" in page and "skipped: taken back" in page
    assert lead.get("/p/chat/mine").status_code == 200
    assert "Nothing to label yet" in lead.get("/").text
