"""A project's jobs are seen, begun, stopped and tried again on their page, by leads, among what there is."""

import json
from pathlib import Path

import pytest

from tutelage.feedback import jobs
from tutelage.feedback.projects import find_project
from tutelage.feedback.rounds import RoundSettings, enqueue, start_round
from tutelage.feedback.schema import Audit, Job

PATH = "/projects/round-1/jobs"
SAMPLE = {
    "kind": "sample",
    "model": "world",
    "prompts": "3",
    "samples": "4",
    "temperature": "0.7",
    "max_new_tokens": "9",
}


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "rm" / "checkpoints" / "latest"
    folder.mkdir(parents=True)
    (folder / "tutelage.json").write_text(json.dumps({"role": "reward"}))


def rows(store):
    with store.read() as db:
        return list(db.query(Job).order_by(Job.id))


def test_labelers_and_answers_are_begun_watched_stopped_and_tried_again(signed_in, filled):
    lead = signed_in["lead"]
    page = lead.get(PATH).text
    assert "No job yet" in page and "model:runs/rm" in page and "own 4 prompts" in page
    assert lead.form(PATH, kind="label", by="model:runs/rm").status_code == 303
    assert lead.form(PATH, **SAMPLE).status_code == 303
    label, sample = rows(filled)
    assert label.settings == {"by": "model:runs/rm"} and sample.settings["model"] == "world"
    assert Path(label.folder).is_dir() and Path(label.folder).name == str(label.id) != Path(sample.folder).name
    page = lead.get(PATH + "/status").text
    assert "AI or simulated labelers (model:runs/rm)" in page and page.count(">waits<") == 2 and "<html" not in page
    claim = jobs.claim(filled, "host:7:ab", ["label"])
    (Path(label.folder) / "log.txt").write_text("the endpoint is down")
    assert "<code>host:7</code>" in lead.get(PATH).text and ">running<" in lead.get(PATH).text
    with filled.write() as db:
        jobs.end(db, claim, "failed", "failed: no model")
    page = lead.get(PATH).text
    assert "failed: no model" in page and "the endpoint is down" in page and "Try again" in page
    assert lead.form(f"{PATH}/{label.id}", to="again").status_code == 303
    assert lead.form(f"{PATH}/{sample.id}", to="stop").status_code == 303
    assert lead.form(f"{PATH}/{sample.id}", to="stop").status_code == 409
    assert [job.state for job in rows(filled)] == ["failed", "stopped", "waiting"]
    with filled.read() as db:
        actions = [one.action for one in db.query(Audit)]
    assert actions[-4:] == ["start job", "start job", "job: again", "job: stop"]


def test_a_rounds_job_is_stopped_with_its_round(signed_in, filled):
    lead = signed_in["lead"]
    lead.get(PATH)
    with filled.write() as db:
        row = start_round(db, find_project(db, "round-1"), RoundSettings(), Path("runs/rounds"), waits=True)
        enqueue(db, row)
    (job,) = rows(filled)
    assert lead.form(f"{PATH}/{job.id}", to="stop").status_code == 303
    assert ">Go on<" in lead.get("/projects/round-1/rounds").text
    assert lead.form(f"{PATH}/{job.id}", to="again").status_code == 303
    assert [one.state for one in rows(filled)] == ["stopped", "waiting"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"kind": "round"}, 400),
        ({"kind": "label", "by": "world:truth"}, 400),
        ({"kind": "label", "by": "model:/etc"}, 400),
        ({"kind": "label", "by": "openai:http://169.254.169.254/#x"}, 403),
        ({"model": "../../secret"}, 400),
        ({"endpoint": "openai:http://169.254.169.254/#x"}, 403),
        ({"samples": "1"}, 422),
        ({"prompts": "0"}, 422),
        ({"temperature": "nan"}, 400),
    ],
)
def test_a_lead_names_neither_paths_nor_addresses(signed_in, filled, change, status):
    lead = signed_in["lead"]
    lead.get(PATH)
    assert lead.form(PATH, **SAMPLE | change).status_code == status and rows(filled) == []


def test_labelers_see_no_jobs_and_jobs_of_other_projects_are_not_found(signed_in, filled):
    lead, labeler = signed_in["lead"], signed_in["labeler"]
    assert labeler.get(PATH).status_code == 403
    lead.get(PATH)
    lead.form(PATH, kind="label", by="world:fair")
    (job,) = rows(filled)
    assert lead.form(f"/projects/texts/jobs/{job.id}", to="stop").status_code == 409
    assert lead.form(f"{PATH}/{10**30}", to="stop").status_code == 409
    assert labeler.form(f"{PATH}/{job.id}", to="stop").status_code == 403
    assert lead.form(f"{PATH}/{job.id}", to="burn").status_code == 400
    assert [one.state for one in rows(filled)] == ["waiting"]


def test_an_administrator_may_name_an_endpoint(signed_in, filled):
    admin = signed_in["admin"]
    assert "datalist" in admin.get(PATH).text
    assert admin.form(PATH, kind="label", by="openai:http://x/v1#m").status_code == 303
    assert rows(filled)[0].settings == {"by": "openai:http://x/v1#m"}
    assert admin.form(PATH, **SAMPLE, endpoint="file:///etc/passwd").status_code == 400
    assert admin.form(PATH, **SAMPLE, endpoint="openai:http://x/v1#m").status_code == 303
    assert rows(filled)[1].settings["model"] == "openai:http://x/v1#m"
