"""The chat and runs pages over HTTP, with a scripted model and a folder of runs."""

import json

import pytest
import yaml

from tutelage.errors import UserError
from tutelage.web import chat, create_app
from tutelage.workbench.bench import Workbench
from tutelage.workbench.models import Found

from .site import Browser

ASKED = [{"role": "user", "content": "Hello?"}]


@pytest.fixture
def bench(tmp_path):
    folder = tmp_path / "runs" / "one" / "ppo"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"stage": "ppo", "max_steps": 9, "kl_coef": 0.5, "seed": 0}))
    rows = [{"step": i, "seconds": i, "objective/kl": i / 2, "objective/scores": 1.0} for i in range(1, 5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    said = [{"step": s, "prompt_id": "p1", "text": f"<i>said at {s}</i>", "proxy": 0.5, "kl": 1.0} for s in (1, 4)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in said))
    return Workbench(tmp_path / "runs")


@pytest.fixture
def local(store, bench):
    browser = Browser(create_app(store, local=True, workbench=bench), "http://localhost:8000")
    browser.get("/")
    return browser


def test_runs_are_listed_and_open(local):
    listing = local.get("/runs").text
    assert "one/ppo" in listing and "stopped" in listing
    page = local.get("/runs/one/ppo").text
    assert "Step 4 of 9" in page and "Resume" in page and "kl_coef" in page and "<svg" in page
    assert "&lt;i&gt;said at 4" in page and "<i>said" not in page and "objective/kl rose" in page
    assert "said at 1" in local.get("/runs/one/ppo?step=1").text
    assert page.count('class="csv"') == 2 and "metrics.csv?metric=objective%2Fkl" in page and "<td>4</td>" in page
    assert "hx-get" not in local.get("/runs/one/ppo/live").text  # nothing to wait for
    table = local.get("/runs/one/ppo/metrics.csv").text.splitlines()
    assert table[0] == "step,seconds,objective/kl,objective/scores" and table[4] == "4,4,2.0,1.0"
    one = local.get("/runs/one/ppo/metrics.csv?metric=objective/kl")
    assert one.text.splitlines()[0] == "step,objective/kl" and len(one.text.splitlines()) == len(table)
    assert one.headers["content-disposition"] == 'attachment; filename="objective-kl.csv"'
    assert local.get("/runs/one/ppo/metrics.csv?metric=seconds%0A").status_code == 422
    for path in ("/runs/nothing", "/runs/../secrets", "/runs/one", "/runs/one/metrics.csv"):
        assert local.get(path).status_code in (404, 422), path


def test_samples_are_headed_by_their_prompts(local, bench):
    row = {"step": 1, "prompt_id": "p1", "prompt": "<b>Why?</b>", "text": "So."}
    (bench.runs / "one/ppo/samples.jsonl").write_text(json.dumps(row) + "\n")
    assert "<h3>&lt;b&gt;Why?" in local.get("/runs/one/ppo").text


def test_the_stages_behind_both_models_of_a_chat_are_asked(local, monkeypatch):
    asked = []
    behind = {"a": ["base", "sft", "a"], "b": [*"12345678", "b"]}
    monkeypatch.setattr(chat, "stages_of", lambda spec, _: [Found(name, name, "policy") for name in behind[spec]])
    monkeypatch.setattr(
        chat, "speak", lambda _, spec, *__: iter([{"text": asked.append(spec) or spec}, {"done": "stop"}])
    )
    turns = [{"role": "user", "content": "Hello"}]
    local.send("/chat/stages", {"model": "a", "messages": turns})
    assert asked == ["base", "sft", "a"]
    said = local.send("/chat/stages", {"model": "a", "other": "b", "messages": turns}).json()["stages"]
    # As many as are asked at most, and both that the page shows, whatever stands between them.
    assert [one["name"] for one in said] == ["base", "sft", "a", *"12345", "b"]
    assert local.send("/chat/stages", {"model": "a", "other": 3, "messages": turns}).status_code == 400


def test_two_runs_stand_beside_each_other_with_what_differs(local, bench):
    other = bench.runs / "two"
    other.mkdir()
    (other / "config.yaml").write_text(yaml.safe_dump({"stage": "rloo", "max_steps": 9, "kl_coef": 0.1, "seed": 0}))
    (other / "metrics.jsonl").write_text(json.dumps({"step": 1, "objective/kl": 0.7, "val/ratio": 2.0}) + "\n")
    page = local.get("/runs/one/ppo?beside=two").text
    table = page[page.index("What differs from two") : page.index("run-live")]
    assert "kl_coef" in table and "<td>0.5</td><td>0.1</td>" in table and "seed" not in table and "rloo" in table
    alone = local.get("/runs/one/ppo").text
    assert "What differs" not in alone and "it should be 0" in alone
    broken = local.get("/runs/two").text
    assert "2 of 5 checks do not hold" in broken and "policy and reference are not the same checkpoint" in broken
    assert "No alarm." in broken  # on-policy stages other than PPO are watched too


def test_the_lineage_is_a_graph_of_links(local, bench):
    for name, inputs in (
        ("sft", {"model": {"path": "../base", "sha256": "b" * 64}, "data": {"name": "world"}}),
        ("one/ppo", {"model": {"path": "c", "sha256": "s" * 64, "lineage": "../../sft/lineage.json"}}),
    ):
        folder = bench.runs / name
        folder.mkdir(exist_ok=True)
        row = {"inputs": inputs, "checkpoint": {"path": "c", "sha256": "c" * 64}}
        (folder / "lineage.json").write_text(json.dumps(row))
    (bench.runs / "sft" / "config.yaml").write_text("stage: sft")
    page = local.get("/runs/one/ppo").text
    graph = page[page.index('class="graph"') : page.index("</svg>", page.index('class="graph"'))]
    assert graph.count("<a href=") == 4 and 'href="/runs/sft"' in graph
    for place in range(4):
        assert f'id="from-{place}"' in page and (place == 1 or f'href="#from-{place}"' in graph)


def test_only_a_run_with_a_writer_can_be_stopped(local):
    reply = local.form("/runs/one/ppo/stop")
    assert reply.status_code == 422 and "nobody is writing" in reply.text


def test_an_answer_streams_and_breaks_off_in_words(local, monkeypatch):
    def speak(models, spec, messages, sampling):
        assert (spec, messages, sampling.max_tokens) == ("world", ASKED, 7)
        yield {"text": "Good"}
        yield {"text": "Good day"}
        if sampling.seed:
            raise UserError("is full", mend="begin anew")
        yield {"done": "stop"}

    monkeypatch.setattr(chat, "speak", speak)
    body = {"model": "world", "messages": ASKED, "max_tokens": 7}
    events = [json.loads(part[6:]) for part in local.send("/chat/say", body).text.strip().split("\n\n")]
    assert events == [{"text": "Good"}, {"text": "Good day"}, {"done": "stop"}]
    assert '{"error": "is full; begin anew"}' in local.send("/chat/say", {**body, "seed": 1}).text
    for bad in (
        {"model": 3},
        {"model": "world", "messages": []},
        {**body, "temperature": "hot"},
        {**body, "max_tokens": 0},
    ):
        assert local.send("/chat/say", bad).status_code in (400, 422)
    monkeypatch.setattr(
        chat, "weigh", lambda *_: {"kl": 1.23456, "reward": None, "tokens": 3, "reference": "its reference"}
    )
    weighed = local.send("/chat/weigh", {"model": "world", "messages": ASKED, "text": "x"}).json()
    assert weighed == {"kl": 1.235, "reward": None, "tokens": 3, "reference": "its reference"}


def test_an_endpoint_stands_in_the_address_for_those_who_may_type_it(local, store, bench):
    from tutelage.feedback import people

    path = "/chat?a=openai:http://host/v1%23m&b=world"
    page = local.get(path).text
    assert '<option value="openai:http://host/v1#m" selected>' in page and 'id="add-model"' in page
    assert "file:" not in local.get("/chat?a=file:/etc&b=openai:").text
    lead = Browser(create_app(store, workbench=bench))
    with store.write() as db:
        token, _ = people.sign_in(db, people.add_person(db, "Lee", "lead", "a long password"))
    lead.http.cookies.set("tutelage_session", token)
    page = lead.get(path).text
    assert "http://host" not in page and 'id="add-model"' not in page


def test_thumbs_go_into_the_store_and_out(local, store):
    sent = {"messages": ASKED, "completion": "Good day.", "model": "world"}
    up = local.send("/v1/feedback", {**sent, "thumb": "up", "id": "a1"})
    assert up.status_code == 200 and up.json() == {"id": "a1"}
    assert local.send("/v1/feedback", {**sent, "thumb": "up", "id": "a1"}).json() == {"id": "a1"}  # sent twice
    for other in ({"thumb": "down"}, {"edit": "Good."}, {"thumb": "up", "completion": "Bad day."}):
        reply = local.send("/v1/feedback", {**sent, **other, "id": "a1"})
        assert reply.status_code == 422 and "names another answer" in reply.json()["error"]
    assert local.send("/v1/feedback", {**sent, "edit": "Good day to you."}).status_code == 200
    for bad in (
        {**sent},
        {**sent, "thumb": "sideways"},
        {**sent, "thumb": "up", "stars": 5},
        {"completion": "x", "thumb": "up"},
        {"messages": ASKED, "thumb": "up"},
        {"messages": [{"role": "user", "content": "a\x00b"}], "completion": "x", "thumb": "up"},
    ):
        assert local.send("/v1/feedback", bad).status_code == 422, bad
    thumb = {**sent, "thumb": "up"}
    for browser in ({"origin": "http://localhost:8000"}, {"sec-fetch-site": "same-origin"}):  # shows no token
        assert local.http.post("/v1/feedback", json=thumb, headers=browser).status_code == 403
    assert local.http.post("/v1/feedback", json=thumb, headers={"origin": "http://evil.example"}).status_code == 403
    assert local.http.post("/v1/feedback", json=thumb).status_code == 200  # a program on this machine
    none = {"authorization": "Bearer none"}  # as OpenAI's client sends it
    assert local.http.post("/v1/feedback", json=thumb, headers=none).status_code == 200
    half = '{"messages": [{"role": "user", "content": "x"}], "completion": "\\ud800", "thumb": "up"}'
    for body in (half, "[]"):  # a program gets its errors as JSON
        kind = {"content-type": "application/json", "accept": "*/*"}
        refused = local.http.post("/v1/feedback", content=body, headers=kind)
        assert refused.status_code in (400, 422) and refused.json()["error"]
    assert local.send("/v1/feedback/a1/undo", {}).status_code == 200
    assert local.send("/v1/feedback/zz/undo", {}).status_code == 422
    exported = local.get("/projects/chat/export")
    assert exported.status_code == 200


def test_where_there_are_accounts_feedback_needs_one(store, bench):
    stranger = Browser(create_app(store, workbench=bench))
    sent = {"messages": ASKED, "completion": "x", "thumb": "up"}
    assert stranger.http.post("/v1/feedback", json=sent).status_code == 401
    from tutelage.feedback import people

    with store.write() as db:
        token, session = people.sign_in(db, people.add_person(db, "Ana", "labeler", "a long password"))
    stranger.http.cookies.set("tutelage_session", token)
    assert stranger.http.post("/v1/feedback", json=sent).status_code == 403
    stranger.csrf = session.csrf
    assert stranger.send("/v1/feedback", sent).status_code == 200


@pytest.mark.parametrize(
    ("lesson", "knob", "given", "refused"),
    [
        ("careless", "label.by", "openai:http://evil.example/v1#m", True),  # it would be sent this machine's key
        ("careless", "label.by", "os:system", True),
        ("stale-reward", "sample.model", "/etc/model", True),
        ("stale-reward", "sample.model", "sft", False),
        ("careless", "label.by", "world:fair:random=0.2", False),
        ("many-epochs", "ppo.inner_epochs", "2.5", True),
        ("many-epochs", "ppo.inner_epochs", "nan", True),
        ("many-epochs", "ppo.inner_epochs", "2", False),
    ],
)
def test_a_lead_turns_a_lesson_s_knobs_within_the_world(store, bench, monkeypatch, lesson, knob, given, refused):
    from tutelage.feedback import people
    from tutelage.workbench.lessons import Lessons

    started = []
    monkeypatch.setattr(Lessons, "start", lambda _, one, guesses, sure, knobs, seeds: started.append(knobs) or "x")
    lead = Browser(create_app(store, workbench=bench))
    with store.write() as db:
        token, session = people.sign_in(db, people.add_person(db, "Lee", "lead", "a long password"))
    lead.http.cookies.set("tutelage_session", token)
    lead.csrf = session.csrf
    reply = lead.send(f"/lab/{lesson}", {f"knob-{knob}": given, "seeds": "1"})
    assert (reply.status_code == 422) == refused and bool(started) != refused, reply.text
    assert refused or str(started[0][knob]) == given


def test_every_page_for_those_who_train_keeps_others_out(store, bench):
    from fastapi.routing import APIRoute

    from tutelage.feedback import people
    from tutelage.web import compare, lab, runs

    app = create_app(store, workbench=bench)
    with store.write() as db:
        token, session = people.sign_in(db, people.add_person(db, "Bo", "labeler", "a long password"))
    labeler, nobody = Browser(app), Browser(app)
    labeler.http.cookies.set("tutelage_session", token)
    tried = 0
    for part in (compare, chat, runs, lab):
        for route in part.router.routes:
            assert isinstance(route, APIRoute) and route.endpoint.allowed, route
            path = (
                route.path.replace("{name:path}", "one/ppo")
                .replace("{name}", "a" * 24)
                .replace("{p}", "0")
                .replace("{attempt}", "x")
            )
            for method in route.methods:
                headers = {"x-csrf-token": session.csrf, "accept": "application/json"}
                assert labeler.http.request(method, path, headers=headers).status_code == 403, path
                assert nobody.http.request(method, path, headers=headers).status_code == 401, path
                tried += 1
    assert tried >= 25
