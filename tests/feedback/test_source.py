"""`--data feedback:PROJECT` and a project's URL give the folder that an export gives."""

import io
import urllib.error
import zipfile

import pytest

from tutelage.data.sources import comparisons
from tutelage.errors import UserError
from tutelage.feedback import people, queue, source
from tutelage.feedback.projects import find_project
from tutelage.named_data import local_data


@pytest.fixture
def labeled(store, project, monkeypatch, tmp_path):
    if store.engine.dialect.name != "sqlite":
        pytest.skip("the store's file is named")
    monkeypatch.setattr(source, "FOLDER", tmp_path / "out")
    with store.write() as db:
        people.add_person(db, "ana", "labeler", None, person_id="ana")
        answer(db, "first")
    return store


def answer(db, name):
    task = queue.lease_next(db, find_project(db, "round-1"), "ana")
    queue.submit(db, f"{name}-0000", task.id, "ana", "rank", {"ranks": [2, 1, 3, None]})


def test_a_projects_name_is_data(labeled):
    spec = f"feedback:round-1@{labeled.engine.url.database}"
    folder = local_data(spec)
    (one,) = comparisons(folder, "train")
    assert one.ranks == [2, 1, 3, None] and one.weight == 1.0
    assert local_data(spec) == folder  # the same answers, the same folder: a resumed run finds its data
    with labeled.write() as db:
        answer(db, "second")
    assert local_data(spec) != folder and len(comparisons(local_data(spec), "train")) == 2
    assert len(comparisons(folder, "train")) == 1
    assert local_data("world") == "world" and local_data("pairs.jsonl") == "pairs.jsonl"
    with pytest.raises(UserError, match="did you mean round-1"):
        local_data(spec.replace("round-1", "round-2"))
    with pytest.raises(UserError, match="no such store"):
        local_data("feedback:round-1@/nowhere/x.db")


def test_a_projects_page_is_data(labeled, monkeypatch):
    asked = []

    def urlopen(request, timeout):
        asked.append((request.full_url, request.headers.get("Authorization")))
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(
                "round-1/comparisons.jsonl", '{"prompt": "q", "completions": ["a", "b"], "ranks": [1, 2]}\n'
            )
            archive.writestr("round-1/../../evil.jsonl", "{}")
        packed.seek(0)
        return packed

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setenv("TUTELAGE_TOKEN", "tut_x")
    folder = local_data("https://label.example/projects/round-1")
    assert [c.ranks for c in comparisons(folder, "train")] == [[1, 2]]
    assert asked == [("https://label.example/projects/round-1/export?weights=1", "Bearer tut_x")]
    assert not list(source.FOLDER.parent.rglob("evil.jsonl"))

    def refused(request, timeout):
        raise urllib.error.HTTPError(request.full_url, 401, "no", {}, None)

    monkeypatch.setattr("urllib.request.urlopen", refused)
    with pytest.raises(UserError, match="TUTELAGE_TOKEN"):
        local_data("https://label.example/projects/round-1")
