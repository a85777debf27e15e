import io
import json
import zipfile

import pytest

from tutelage.feedback.schema import Task
from tutelage.feedback.store import COMMAND_LINE, audit

from .site import on_both


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows).encode()


PROMPT = {"schema": "tutelage.prompt/1", "id": "new", "messages": [{"role": "user", "content": "New?"}]}
ANSWERS = [{"schema": "tutelage.completion/1", "id": f"new-{k}", "prompt_id": "new", "text": f"text {k}"} for k in "ab"]


def upload(browser, content, name="x.jsonl", tasks="rank"):
    fields = {"csrf": browser.csrf, "tasks": tasks}
    return browser.http.post("/projects/round-1/import", data=fields, files={"file": (name, content)})


@on_both
def test_a_lead_makes_a_project_and_sees_agreement(signed_in):
    lead = signed_in["lead"]
    made = lead.form("/projects", name="Second round", overlap="2")
    assert made.headers["location"] == "/projects/second-round"
    for role in ("lead", "labeler"):
        browser = signed_in[role]
        while item := browser.next():
            by_text = sorted(item["answers"], key=lambda x: item["answers"][x])
            body = {"id": f"{role}-{item['task']:06}", "kind": "rank", "ranking": " > ".join(by_text)}
            browser.send(f"/t/{item['task']}/answer", body)
    page = lead.get("/projects/round-1").text
    assert "<b>100.0 %</b> of pairs alike" in page and "n 24 pairs of 4 items" in page and "too few to tell" in page
    assert "Labeler" in page and "<b>8</b> of 8 answers" in page
    assert page.count('class="chart"') == 2 and "By use case" in page and "By day" in page
    assert 'aria-label="Agreement by use case, with 95 % intervals' in page and "not stated" in page
    assert '<th scope="row">not stated</th><td class="n">100.0 %</td>' in page
    assert "(51–100) n 24, too few to tell" in page  # four items that agree are four trials: Wilson's interval
    assert "ranks the first shown best in" in page and "by chance 25 %" in page
    assert "prefers the longer answer" not in page  # all answers are as long
    assert "style=" not in page
    packed = lead.get("/projects/round-1/export?weights=1")
    archive = zipfile.ZipFile(io.BytesIO(packed.content))
    rows = [json.loads(row) for row in archive.read("round-1/comparisons.jsonl").splitlines()]
    assert len(rows) == 8 and {row["weight"] for row in rows} == {1.0} and rows[0]["messages"]


@on_both
def test_an_import_is_all_or_nothing_and_names_the_row(signed_in, filled):
    lead = signed_in["lead"]
    bad = upload(lead, lines(PROMPT, *ANSWERS, {"schema": "tutelage.completion/1", "id": "z"}))
    assert bad.status_code == 422 and "row 4" in bad.text and "/tmp" not in bad.text
    good = upload(lead, lines(PROMPT, *ANSWERS))
    assert good.headers["location"].endswith("said=imported")
    again = upload(lead, lines(PROMPT, *ANSWERS))
    assert again.headers["location"].endswith("said=same")
    with filled.read() as db:
        assert db.query(Task).filter_by(prompt_id="new").count() == 1


def test_an_import_tells_every_bad_row(signed_in, filled):
    lead = signed_in["lead"]
    content = lines(PROMPT, *ANSWERS, {"prompt": 5}, {"<b>": 1}, ANSWERS[0] | {"id": "p0-0", "text": "other"}) + b"\n{"
    page = upload(lead, content)
    assert page.status_code == 422 and "the file: 4 faults, so that nothing was imported" in page.text
    for number in (4, 5, 6, 7):
        assert f"<li>row {number}" in page.text
    assert "/tmp" not in page.text and "<b>" not in page.text
    fields = {"csrf": lead.csrf, "tasks": "rank"}
    options = {"data": fields, "files": {"file": ("x.jsonl", content)}, "headers": {"accept": "application/json"}}
    assert len(lead.http.post("/projects/round-1/import", **options).json()["rows"]) == 4
    many = upload(lead, b"\n".join([b"{"] * 1500)).text
    assert many.count("<li>") == 1000 and "And 500 more." in many


def test_overlap_of_the_items_that_are_there(signed_in, filled):
    lead = signed_in["lead"]
    same = {"gold_every": "0", "lease_minutes": "30"}
    lead.form("/projects/proofs/settings", overlap="2", **same)
    page = lead.get("/projects/proofs").text
    assert "of 1 answers" in page and "those that are there too" in page and "also each of the 1 items" in page
    lead.form("/projects/proofs/settings", overlap="2", overlap_all="1", **same)
    page = lead.get("/projects/proofs").text
    assert "of 2 answers" in page and "Give them time" in page


@on_both
def test_answers_that_were_given_elsewhere_are_taken_in(signed_in, filled):
    lead = signed_in["lead"]
    rows = [{"prompt": "E?", "completions": ["x", "y"], "ranks": [1, 2], "labeler": f"Vendor {i}"} for i in range(2)]
    assert upload(lead, lines(*rows), tasks="answers").headers["location"].endswith("said=imported")
    assert upload(lead, lines(*rows), tasks="answers").headers["location"].endswith("said=same")
    page = lead.get("/projects/round-1").text
    assert "Vendor 0" in page and "Vendor 1" in page
    assert upload(lead, lines({"prompt": "E?", "completions": ["x", "y"]})).headers["location"].endswith("=same")
    refused = upload(lead, lines({"prompt": "E?", "chosen": "x", "rejected": "y"}), tasks="answers")
    assert refused.status_code == 422 and "names no labeler" in refused.text


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "x.jsonl"),
        (b"\xff\xfe", "x.jsonl"),
        (b"{", "x.jsonl"),
        (b"[1]", "x.json"),
        (b"not parquet", "x.parquet"),
        (b"not gzip", "x.jsonl.gz"),
        (b"text", "x.exe"),
        (b"text", "../../etc/passwd"),
        (lines({"schema": "tutelage.prompt/1", "id": "q", "messages": "hi"}, *ANSWERS), "x.jsonl"),
        (lines(PROMPT | {"messages": [1]}, *ANSWERS), "x.jsonl"),
        (lines(PROMPT, ANSWERS[0] | {"text": 5}), "x.jsonl"),
        (lines(PROMPT, 5, *ANSWERS), "x.jsonl"),
        (lines({"prompt": "only a prompt"}), "x.jsonl"),
    ],
)
def test_bad_uploads_are_refused_in_words(signed_in, content, name):
    reply = upload(signed_in["lead"], content, name)
    assert reply.status_code == 422 and 'class="note"' in reply.text


@on_both
def test_settings_pause_and_gold(signed_in, filled):
    lead, labeler = signed_in["lead"], signed_in["labeler"]
    saved = lead.form(
        "/projects/round-1/settings", overlap="3", gold_every="1", lease_minutes="5", instructions="New words."
    )
    assert saved.status_code == 303
    gold = {"prompt": "Gold?", "completions": ["good", "bad"], "ranks": [1, 2]}
    assert upload(lead, lines(gold), tasks="gold").status_code == 303
    kinds = []
    for _ in range(2):
        item = labeler.next()
        kinds.append(item["messages"][0]["content"])
        best = [x for x, text in item["answers"].items() if text == "good"] or ["A"]
        rest = [x for x in item["answers"] if x not in best]
        body = {"id": f"labeler-{item['task']:05}", "kind": "rank", "ranking": " > ".join(best + rest)}
        labeler.send(f"/t/{item['task']}/answer", body)
    assert kinds[1] == "Gold?"
    assert "New words." in labeler.get(f"/t/{labeler.next()['task']}").text
    assert "100.0 %" in lead.get("/projects/round-1").text  # gold accuracy
    lead.form("/projects/round-1/pause", paused="1")
    assert labeler.next() is None and "paused" in labeler.get("/p/round-1/next").text
    assert lead.form("/projects/round-1/settings", overlap="0", gold_every="0", lease_minutes="5").status_code == 422


def test_the_log_names_the_command_line(signed_in, filled):
    with filled.write() as db:
        audit(db, COMMAND_LINE, "backup", "copy.db")
        audit(db, None, "sign-in refused", "Eve")
    page = signed_in["admin"].get("/people").text
    assert "command line: backup" in page and "nobody signed in: sign-in refused" in page


@on_both
def test_an_invitation_is_withdrawn_and_a_role_changed(signed_in):
    import re

    admin, lead, nobody = signed_in["admin"], signed_in["lead"], signed_in["nobody"]
    join = re.compile(r"http://testserver(/join/[\w-]+)")
    by_lead = join.search(lead.form("/people/invite", role="labeler").text)[1]
    page = admin.form("/people/invite", role="admin").text
    by_admin = join.search(page)[1]
    ends = re.findall(r"/people/invitations/\w{64}/withdraw", page)
    assert len(ends) == 2 and lead.get("/people").text.count("/withdraw") == 1  # an administrator's is not for leads
    assert lead.form(ends[0]).status_code == 404 and nobody.get(by_admin).status_code == 200  # the newest is first
    assert admin.form(ends[0]).status_code == 303 and admin.form(ends[0]).status_code == 404
    assert nobody.get(by_admin).status_code == 403 and nobody.get(by_lead).status_code == 200
    people = admin.get("/people").text
    number = re.search(r"/people/(\w+)/role", people[people.index(">Lead<") :])[1]
    assert lead.form(f"/people/{number}/role", role="admin").status_code == 403
    assert admin.form(f"/people/{number}/role", role="owner").status_code == 422
    assert admin.form(f"/people/{number}/role", role="labeler").status_code == 303
    assert lead.get("/people").status_code == 403 and lead.get("/").status_code == 200  # at once
    assert nobody.get(by_lead).status_code == 403  # made with rights that the lead has no more
    assert "change role" in admin.get("/people").text


@on_both
def test_inviting_and_joining(signed_in):
    import re

    admin = signed_in["admin"]
    page = admin.form("/people/invite", role="labeler").text
    link = re.search(r"http://testserver(/join/[\w-]+)", page).group(1)
    nobody = signed_in["nobody"]
    assert "Join as labeler" in nobody.get(link).text
    short = nobody.http.post(link, data={"name": "Eve", "password": "short"})
    assert short.status_code == 422 and "fewer than 10" in short.text
    joined = nobody.http.post(link, data={"name": "Eve", "password": "a long password"})
    assert joined.status_code == 303 and "HttpOnly; SameSite=Lax" in joined.headers["set-cookie"]
    assert "Round 1" in nobody.get("/").text
    nobody.form("/logout")
    assert nobody.get("/").status_code == 303
    back = nobody.http.post("/login", data={"name": "eve", "password": "a long password", "next": "//evil.example"})
    assert back.headers["location"] == "/"
    nobody.get("/")
    assert nobody.get(link).status_code == 403  # used
    people = admin.get("/people").text
    number = re.search(r"/people/(\w+)/active", people[people.index(">Eve<") :]).group(1)
    admin.form(f"/people/{number}/active", active="0")
    assert nobody.get("/").status_code == 303  # signed out at once
