"""The compare page: what a person may see when, what a form makes, and what goes out; models are scripted."""

import json
import re

import pytest

from tutelage.data.sources import load_data
from tutelage.judges.cache import Reply
from tutelage.judges.chats import OPENAI
from tutelage.records import Prompt
from tutelage.web import create_app
from tutelage.web.compared import without_addresses
from tutelage.workbench.bench import Workbench
from tutelage.workbench.comparisons import Cell, Column, Comparison, Settings

from .site import Browser

SECRET = ("sft", "ppo")


@pytest.fixture
def bench(tmp_path):
    return Workbench(tmp_path / "runs")


@pytest.fixture
def local(store, bench):
    browser = Browser(create_app(store, local=True, workbench=bench), "http://localhost:8000")
    browser.get("/")
    return browser


@pytest.fixture
def blind(bench):
    columns = [Column(name, f"/x/{name}", "local", name, run=f"r/{name}") for name in SECRET]
    prompts = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"Question {i}?"}]) for i in range(3)]
    one = Comparison.create(bench.comparisons, columns, prompts, Settings(blind=True))
    for p in (0, 1):
        one.put(p, 0, state="done", text=f"Short {p}. <b>bold</b>")
        one.put(p, 1, state="done", text=f"Another answer to {p}, which is longer.")
    one.put(2, 0, state="done", text="alone so far")
    return bench.comparison(one.id)


def test_nothing_of_a_blind_row_tells_before_the_vote(local, blind):
    paths = [f"/rows/{p}" for p in range(3)] + ["/rows?n=0,1,2"]
    seen = {path: local.get(f"/compare/{blind.id}{path}").text for path in paths}
    for path, text in seen.items():
        assert not re.search(r"words|reward|r/sft|r/ppo", text), path
        assert all(f">{name}" not in text for name in SECRET), path
    assert "Short 0" in seen["/rows/0"] and "alone so far" not in seen["/rows/2"]
    assert "&lt;b&gt;bold" in seen["/rows/0"] and "<b>bold" not in seen["/rows/0"]
    table = local.get(f"/compare/{blind.id}/export?kind=answers").text
    assert table.count("hidden until you vote") == 3 and not any(name in table for name in (*SECRET, "Short"))


def test_judges_say_nothing_of_a_blind_row_before_the_vote(local, blind):
    for p in (0, 1):
        blind.judge(p, 0, 1, "gold", points=1.0, flipped=False, problem=None)
    first = local.get(f"/compare/{blind.id}/ratings").text
    assert "Gold" not in first and "Of the 0 prompts, of 3" in first
    local.send(f"/compare/{blind.id}/rows/0/vote", {"ranking": "A = B"})
    then = local.get(f"/compare/{blind.id}/ratings").text
    assert "Gold <span" in then and "1 verdicts" in then and "2 verdicts" not in then
    told = local.get(f"/compare/{blind.id}/export?kind=ratings").text.splitlines()
    assert told[0].startswith("judge,model,rating,low95,high95") and len(told) == 1 + 2 * 2
    low, high = (float(x) for x in told[1].split(",")[3:5])
    assert f"{round(low)}–{round(high)}" in then  # the interval stands in words too


def test_a_vote_on_answers_that_changed_meanwhile_is_refused(local, blind):
    """An answer that had failed comes while a person reads: the letters are others now."""
    blind.put(2, 1, state="failed", reason="status 500")
    blind.put(2, 0, state="done", text="first")
    other = Column("third", "/x/third", "local", "third")
    blind.columns.append(other)
    for p in range(3):
        blind.cells[p, 2] = Cell(state="done", text=f"third to {p}")
    reading = local.get(f"/compare/{blind.id}/rows/2").text
    shown = re.search(r'name="shown" value="(\w+)"', reading)[1]
    blind.put(2, 1, state="done", text="late")
    refused = local.send(f"/compare/{blind.id}/rows/2/vote", {"ranking": "A > B", "shown": shown})
    assert refused.status_code == 422 and "changed since" in refused.json()["error"] and not blind.votes
    again = re.search(r'name="shown" value="(\w+)"', local.get(f"/compare/{blind.id}/rows/2").text)[1]
    assert local.send(f"/compare/{blind.id}/rows/2/vote", {"ranking": "A > B > C", "shown": again}).status_code == 200


def test_a_vote_names_the_models_and_counts(local, blind):
    reading = local.get(f"/compare/{blind.id}/rows/0").text
    first = re.findall(r"<h3>(\w)</h3><p class=\"text\" dir=\"auto\">([^<]*)", reading)
    letter = next(letter for letter, text in first if text.startswith("Another"))
    other = "B" if letter == "A" else "A"
    reply = local.send(f"/compare/{blind.id}/rows/0/vote", {"ranking": f"{letter} > {other}"}).json()
    assert reply["rated"] and f"{letter} was ppo" in reply["names"] and f"{other} was sft" in reply["names"]
    assert blind.votes[-1]["ranks"] == [2, 1]
    assert "ppo" in local.get(f"/compare/{blind.id}/rows/0").text
    again = local.send(f"/compare/{blind.id}/rows/0/vote", {"ranking": "A > B"}).json()
    assert not again["rated"] and again["why"] == "after the reveal"
    local.send(f"/compare/{blind.id}/rows/1/reveal", {})
    assert not local.send(f"/compare/{blind.id}/rows/1/vote", {"ranking": "B > A"}).json()["rated"]
    assert local.send(f"/compare/{blind.id}/rows/2/vote", {"ranking": "A > B"}).status_code == 422
    assert local.send(f"/compare/{blind.id}/rows/7/vote", {"ranking": "A > B"}).status_code == 404


def test_votes_go_out_as_comparisons(local, blind, tmp_path):
    local.send(f"/compare/{blind.id}/rows/0/vote", {"ranking": "A = B"})
    path = tmp_path / "votes.jsonl"
    path.write_text(local.get(f"/compare/{blind.id}/export").text)
    (one,) = load_data(str(path)).comparisons
    assert one.ranks == [1, 1] and one.messages == blind.prompts[0].messages


def make(browser, **fields):
    sent = {"typed": "", "battery": "", "max_tokens": "16", "temperature": "0", "seed": "0", "blind": "0"}
    return browser.form("/compare", **{**sent, **fields})


def test_imported_outputs_are_compared_without_any_model(local, bench):
    for name, texts in (("one", ("Yes.", "No.")), ("two", ("Maybe.",))):
        rows = [{"prompt": q, "output": text} for q, text in zip(("Is it?", "Was it?"), texts, strict=False)]
        body = "".join(json.dumps(row) + "\n" for row in rows)
        form = {"csrf": local.csrf, "kind": "outputs"}
        assert local.http.post("/compare/import", data=form, files={"file": (f"{name}.jsonl", body)}).status_code == 303
    specs = [found.spec for found, _ in bench.brought_in("outputs")]
    assert [count for _, count in bench.brought_in("outputs")] == [2, 1]
    made = make(local, **{"models[]": specs, "typed": "Is it?\nWas it?\n"})
    assert made.status_code == 303
    one = bench.comparison(made.headers["location"].rpartition("/")[2])
    bench.fillings[one.id].thread.join(200)
    page = local.get(f"/compare/{one.id}").text
    assert "two has no answer to 1 prompts" in page and "reproducible" in page and "3 done" in page
    assert "Maybe." in local.get(f"/compare/{one.id}/rows/0").text
    bad = local.http.post(
        "/compare/import", data=form, files={"file": ("x.jsonl", "{}\n")}, headers={"accept": "application/json"}
    )
    assert bad.status_code == 422 and str(bench.runs) not in bad.text
    assert len(bench.brought_in("outputs")) == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"typed": "Hello"}, "0 models"),
        ({"models[]": ["world"]}, "0 prompts"),
        ({"models[]": ["world"], "typed": "Hi", "temperature": "warm"}, "temperature"),
        ({"models[]": ["/nowhere"], "typed": "Hi"}, "not a model folder"),
        ({"more": "openai:", "typed": "Hi"}, "names no model"),
    ],
)
def test_a_form_that_cannot_be_used_says_why_and_writes_nothing(local, bench, fields, said):
    reply = make(local, **fields)
    assert reply.status_code == 422 and said in reply.text
    assert not list(bench.comparisons.glob("*/comparison.json"))


def test_paid_models_wait_for_the_button(local, bench, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    asked = []

    class Paid:
        def answers(self, conversations, answered):
            asked.extend(conversations)
            replies = [Reply("fine") for _ in conversations]
            for i, reply in enumerate(replies):
                answered(i, reply)
            return replies

    monkeypatch.setattr(bench.models, "chat", lambda spec, **_: Paid())
    made = make(local, more="paid=openai:gpt\nown=openai:http://h/v1#m", typed="Hi")
    path = made.headers["location"]
    page = local.get(path).text
    assert not asked and "may cost money: openai:gpt: 1 prompts, at most 16 tokens" in page
    local.form(f"{path}/run")
    bench.fillings[path.rpartition("/")[2]].thread.join(200)
    assert len(asked) == 2 and OPENAI
    events = local.get(f"{path}/events").text
    assert json.loads(events.removeprefix("data: ").strip())["counts"]["done"] == 2


def test_only_leads_and_only_known_models_where_there_are_accounts(store, bench, blind):
    from tutelage.feedback import people

    app = create_app(store, workbench=bench)
    for role, allowed in (("labeler", False), ("lead", True)):
        with store.write() as db:
            person = people.add_person(db, role, role, "a long password")
            token, session = people.sign_in(db, person)
        browser = Browser(app)
        browser.http.cookies.set("tutelage_session", token)
        browser.csrf = session.csrf
        assert (browser.get("/compare").status_code == 200) is allowed
        assert (browser.get(f"/compare/{blind.id}").status_code == 200) is allowed
    # A lead cannot have this server's keys sent to an address of their choice.
    reply = make(browser, more="x=openai:http://evil.example/v1#m", typed="Hi")
    assert reply.status_code == 422 and "not among the models here" in reply.text


def test_the_whole_comparison_goes_out_as_one_page(local, blind):
    address = f"/compare/{blind.id}/export?kind=page"
    assert address in local.get(f"/compare/{blind.id}").text
    before = local.get(address).text  # blind: nothing tells who said what
    assert before.count("idden until you vote") == 6 and "Short 0" not in before and not re.search(r"\d words", before)
    local.send(f"/compare/{blind.id}/rows/0/vote", {"ranking": "A = B"})
    blind.judge(0, 0, 1, "openai:http://inside:8000/v1#judge", points=1.0, flipped=False, problem=None)
    blind.judge(0, 0, 1, "local:/home/lee/runs/judge", points=None, flipped=False, problem="failed")
    reply = local.get(address)
    assert reply.headers["content-disposition"] == f'attachment; filename="comparison-{blind.id[:8]}.html"'
    html = reply.text
    assert "Short 0. " in html and "&lt;b&gt;bold" in html and "<b>bold" not in html and "Short 1" not in html
    assert html.count("idden until you vote") == 4 and "Ratings are of the 1 prompts, of 3" in html
    assert "openai:judge" in html and "local:runs/judge: 0 verdicts could not be read, 1 failed" in html
    assert "inside:8000" not in html and "/home/lee" not in html and "/x/sft" not in html  # addresses stay here


@pytest.mark.parametrize(
    "said, kept",
    [
        ("http://inside:8000/v1 gave status 500", "… gave status 500"),
        ("no answer (http://inside:8000/v1), 3 tries", "no answer (…), 3 tries"),
        ("/home/lee/runs/sft: no such file", "…: no such file"),
        ("cut off at 1/2 of 3 and/or more", "cut off at 1/2 of 3 and/or more"),
    ],
)
def test_what_went_wrong_goes_out_without_addresses(said, kept):
    assert without_addresses(said) == kept
