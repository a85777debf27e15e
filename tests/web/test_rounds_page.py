"""A round is begun, watched, stopped and continued on its page; what it runs is chosen from what there is."""

import json
import re
from pathlib import Path

import pytest

from tutelage.feedback import jobs, rounds
from tutelage.feedback.projects import find_project
from tutelage.feedback.schema import Audit, Job, Round, Task
from tutelage.web import models

FORM = {
    "model": "world",
    "second": "",
    "endpoint": "",
    "by": "",
    "data": "world",
    "prompts": "5",
    "samples": "4",
    "temperature": "0.7",
    "max_new_tokens": "33",
    "recipe": "reward-round",
}
PATH = "/projects/round-1/rounds"


@pytest.fixture
def enqueued(filled, monkeypatch, tmp_path):
    """The states of the rounds' jobs, the oldest first; runs lie below tmp_path."""
    monkeypatch.chdir(tmp_path)

    def states():
        with filled.read() as db:
            return [job.state for job in db.query(Job).filter_by(kind="round", project_id="round-1").order_by(Job.id)]

    return states


def test_a_lead_begins_watches_stops_and_goes_on(signed_in, filled, enqueued):
    lead = signed_in["lead"]
    assert "First round" in lead.get(PATH).text
    assert lead.form(PATH, **FORM).status_code == 303 and enqueued() == ["waiting"]
    page = lead.get(PATH).text
    assert "Waits for a worker" in page
    assert "models answer" in page and "5 prompts × 4" in page and ">Stop<" in page and "Start round" not in page
    assert lead.form(PATH, **FORM).status_code == 409  # one at a time
    assert lead.form(PATH + "/state", to="enough").status_code == 409
    assert lead.form(PATH + "/state", to="stopped").status_code == 303 and ">Go on<" in lead.get(PATH).text
    assert enqueued() == ["stopped"]
    assert lead.form(PATH + "/state", to="continue").status_code == 303 and enqueued() == ["stopped", "waiting"]
    assert lead.form(PATH + "/state", to="continue").status_code == 303 and len(enqueued()) == 2  # one at a time
    with filled.write() as db:
        row = db.query(Round).one()
        assert row.state == "sampling"
        job = db.query(Job).filter_by(state="waiting").one()
        job.state, job.alone = "failed", None  # its workers died
    assert "No job goes on with it" in lead.get(PATH).text and ">Go on<" in lead.get(PATH).text
    with filled.write() as db:
        row = db.query(Round).one()
        row.state, row.result = (
            "done",
            {"accuracy": 0.684, "accuracy_ci95": [0.65, 0.72], "comparisons": 12, "policy": "p"},
        )
        actions = [one.action for one in db.query(Audit)]
    assert {"start round", "round: stopped", "round: continue"} <= set(actions)
    page = lead.get(PATH).text
    assert "<b>68.4 %</b>" in page and "(65.0–72.0)" in page and "Next round" in page
    assert "<option selected>p</option>" in page  # it samples from the policy that came of this one
    assert lead.form(PATH, **FORM | {"model": "p"}).status_code == 303


def test_labels_of_the_round_are_counted(signed_in, filled, enqueued):
    lead = signed_in["lead"]
    lead.form(PATH, **FORM)
    with filled.write() as db:
        db.query(Round).one().state = "labeling"
        for task in db.query(Task).filter_by(project_id=find_project(db, "round-1").id):
            task.round = 1
    item = lead.next()
    lead.send(f"/t/{item['task']}/answer", {"id": "answer-0001", "kind": "rank", "ranking": "A > B"})
    page = lead.get(PATH + "/status").text
    assert "<b>1</b> of 8 answers" in page and "Train with 1 answers now" in page and "<html" not in page
    assert lead.form(PATH + "/state", to="enough").status_code == 303
    assert "Trains with what is there" in lead.get(PATH).text


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model": "/etc"}, 400),
        ({"second": "../../secret"}, 400),
        ({"recipe": "../evil"}, 400),
        ({"endpoint": "openai:http://169.254.169.254/#x"}, 403),
        ({"by": "openai:http://169.254.169.254/#x"}, 403),
        ({"data": "/etc/passwd"}, 400),
        ({"data": "feedback:round-1@/tmp/other.db"}, 400),
        ({"ensemble[]": ["runs/../../etc", "/etc"]}, 400),
        ({"ensemble[]": ["world", "world"]}, 400),
        ({"ensemble": "world"}, 400),
        ({"temperature": "nan"}, 400),
        ({"temperature": "11"}, 422),
        ({"max_new_tokens": "0"}, 422),
        ({"samples": "1"}, 422),
        ({"prompts": "-1"}, 400),
    ],
)
def test_a_lead_names_neither_paths_nor_addresses(signed_in, filled, enqueued, change, status):
    assert signed_in["lead"].form(PATH, **FORM | change).status_code == status and not enqueued()
    with filled.read() as db:
        assert db.query(Round).count() == 0


def test_an_administrator_may_name_an_endpoint(signed_in, filled, enqueued):
    admin = signed_in["admin"]
    assert admin.form(PATH, **FORM | {"endpoint": "http://x"}).status_code == 400
    assert admin.form(PATH, **FORM | {"endpoint": "openai:http://x/v1#m"}).status_code == 303
    with filled.read() as db:
        assert rounds.settings_of(db.query(Round).one()).model == ("world", "openai:http://x/v1#m")


def test_runs_with_a_checkpoint_are_known(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("sft", "quick/ppo", "rounds/p/1/run/reward", "empty"):
        folder = tmp_path / "runs" / name / "checkpoints"
        folder.mkdir(parents=True)
        if name != "empty":
            (folder / "latest").mkdir()
    assert set(models.known_models()) == {"world", "runs/sft", "runs/quick/ppo", "runs/rounds/p/1/run/reward"}


@pytest.fixture
def scorers(tmp_path, enqueued):
    """Three runs: two reward models, and a policy."""
    for name, role in (("rm-1", "reward"), ("rm-2", "reward"), ("sft", "policy")):
        folder = tmp_path / "runs" / name / "checkpoints" / "latest"
        folder.mkdir(parents=True)
        (folder / "tutelage.json").write_text(json.dumps({"role": role}))
    (tmp_path / "runs" / "sft" / "checkpoints" / "latest" / "tutelage.json").write_text("[")  # says nothing
    return enqueued


def test_a_lead_chooses_prompts_answers_and_order(signed_in, filled, scorers):
    lead = signed_in["lead"]
    page = lead.get(PATH).text
    assert "this project: the 4 that were imported" in page and "the embedded world" in page
    assert page.count('name="ensemble[]"') == 2 and "<option >runs/rm-1" not in page and "runs/sft</option>" in page
    chosen = {"data": "project", "prompts": "3", "ensemble[]": ["runs/rm-1", "runs/rm-2"]}
    assert lead.form(PATH, **FORM | chosen).status_code == 303 and scorers() == ["waiting"]
    with filled.read() as db:
        settings = rounds.settings_of(db.query(Round).one())
    assert (settings.data, settings.prompts, settings.temperature, settings.max_new_tokens) == ("project", 3, 0.7, 33)
    assert settings.ensemble == ("runs/rm-1", "runs/rm-2")
    assert "3 prompts of the project × 4" in lead.get(PATH).text


def test_one_reward_model_is_no_ensemble_and_no_prompts_no_round(signed_in, filled, scorers):
    lead = signed_in["lead"]
    alone = lead.form(PATH, **FORM | {"ensemble[]": ["runs/rm-1"]})
    assert alone.status_code == 422 and "two or more" in alone.text
    lead.form("/projects", name="Empty", overlap="1")
    empty = lead.get("/projects/empty/rounds").text
    assert "no prompts of its own yet" in empty and 'value="project"' not in empty
    refused = lead.form("/projects/empty/rounds", **FORM | {"data": "project"})
    assert refused.status_code == 422 and "no prompts of its own" in refused.text and not scorers()


def test_sampling_is_told_as_answers_and_time_left(signed_in, filled, enqueued):
    lead = signed_in["lead"]
    lead.form(PATH, **FORM)
    assert "Waits for a worker" in lead.get(PATH + "/status").text
    with filled.read() as db:
        folder = Path(db.query(Round).one().folder)
    assert jobs.claim(filled, "worker", ["round"]) is not None
    assert "Getting ready" in lead.get(PATH + "/status").text
    (folder / "log.txt").write_text("a line of the log")
    told = {"label": "samples-0", "unit": "answer", "done": 5, "first": 0, "total": 20, "seconds": 50}
    (folder / rounds.PROGRESS).write_text(json.dumps(told))
    page = lead.get(PATH + "/status").text
    assert "<b>5</b> of 20 answers, about 3 minutes left" in page and "a line of the log" not in page
    with filled.write() as db:
        db.query(Round).one().state = "training"
    (folder / rounds.PROGRESS).write_text(json.dumps(told | {"label": "reward", "unit": "step"}))
    assert "reward: <b>5</b> of 20 steps, about 3 minutes left" in lead.get(PATH + "/status").text
    with filled.write() as db:
        row = db.query(Round).one()
        row.state, row.said = "failed", "failed: disk full"
    page = lead.get(PATH + "/status").text
    assert "a line of the log" in page and "left</p>" not in page


def test_the_accuracy_of_each_finished_round_is_told(signed_in, filled, enqueued):
    with filled.write() as db:
        for number, accuracy in ((1, 0.641), (2, 0.702), (3, None)):
            result = {"accuracy": accuracy, "accuracy_ci95": accuracy and [0.6, 0.75], "comparisons": 100 * number}
            row = rounds.start_round(db, find_project(db, "round-1"), rounds.RoundSettings(), Path("runs"))
            row.state, row.result = "done", result
    page = signed_in["lead"].get(PATH).text
    rows = re.findall(r'<tr><th scope="row">(\d)</th><td class="n">(\d+)</td><td class="n">([^<]*)</td>', page)
    assert rows == [("3", "300", "not measured"), ("2", "200", "70.2 %"), ("1", "100", "64.1 %")]
