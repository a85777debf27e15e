"""A round is begun, watched, stopped and continued on its page; what it runs is chosen from what there is."""

import time

import pytest

from tutelage.feedback import rounds
from tutelage.feedback.projects import find_project
from tutelage.feedback.schema import Audit, Round, Task
from tutelage.web import models

FORM = {
    "model": "world",
    "second": "",
    "endpoint": "",
    "by": "",
    "prompts": "5",
    "samples": "4",
    "recipe": "reward-round",
}
PATH = "/projects/round-1/rounds"


@pytest.fixture
def spawned(monkeypatch, tmp_path):
    """The processes that would have been started; runs lie below tmp_path."""
    found = []
    monkeypatch.setattr(rounds, "spawn", lambda store, project, out, log: found.append(project))
    monkeypatch.chdir(tmp_path)
    return found


def test_a_lead_begins_watches_stops_and_goes_on(signed_in, filled, spawned):
    lead = signed_in["lead"]
    assert "First round" in lead.get(PATH).text
    assert lead.form(PATH, **FORM).status_code == 303 and spawned == ["round-1"]
    page = lead.get(PATH).text
    assert "models answer" in page and "5 prompts × 4" in page and ">Stop<" in page and "Start round" not in page
    assert lead.form(PATH, **FORM).status_code == 409  # one at a time
    assert lead.form(PATH + "/state", to="enough").status_code == 409
    assert lead.form(PATH + "/state", to="stopped").status_code == 303 and ">Go on<" in lead.get(PATH).text
    with filled.write() as db:
        db.query(Round).one().beat = time.time() - 100  # its process is gone
    assert lead.form(PATH + "/state", to="continue").status_code == 303 and spawned == ["round-1"] * 2
    with filled.write() as db:
        row = db.query(Round).one()
        assert row.state == "sampling"
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


def test_labels_of_the_round_are_counted(signed_in, filled, spawned):
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
        ({"samples": "1"}, 422),
        ({"prompts": "-1"}, 400),
    ],
)
def test_a_lead_names_neither_paths_nor_addresses(signed_in, filled, spawned, change, status):
    assert signed_in["lead"].form(PATH, **FORM | change).status_code == status and not spawned
    with filled.read() as db:
        assert db.query(Round).count() == 0


def test_an_administrator_may_name_an_endpoint(signed_in, filled, spawned):
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
