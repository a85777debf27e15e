import json

import pytest

from tutelage.data.sources import comparisons, load_data
from tutelage.errors import UserError
from tutelage.feedback.export import export_folder, export_records
from tutelage.feedback.people import add_person
from tutelage.feedback.projects import find_project
from tutelage.feedback.queue import lease_next, submit, work_on


def answer(store, project, person, payload, kind=None, answer_id=None):
    with store.write() as db:
        task = lease_next(db, find_project(db, project), person, 0)
        name = answer_id or f"{person}-{task.id:06}"
        submit(db, name, task.id, person, kind or task.kind, payload, effort={"moves": 3}, seconds=4.04)
        return name, task.id, work_on(db, task.id, person).cards


@pytest.fixture
def labeled(store, project):
    with store.write() as db:
        for name in ("ana", "ben"):
            add_person(db, name, "labeler", None, person_id=name)
    first = answer(store, project, "ana", {"ranks": [2, 1, 2, None]})
    answer(store, project, "ana", {"ranks": [1, None, None, None], "rest_below": True})
    answer(store, project, "ana", {"ranks": [None] * 4, "all_bad": True})
    answer(store, project, "ben", {"reason": "unclear", "note": ""}, "skip")
    with store.write() as db:
        submit(db, "correction-1", first[1], "ana", "rank", {"ranks": [1, 2, 3, 4], "ratings": [7, 6, 5, 1]})
    return first


def test_records_hold_who_when_how_long_and_what_was_shown(store, project, labeled):
    with store.read() as db:
        found = export_records(db, find_project(db, project), {"ana": 0.5})
    one = found.comparisons[0].to_json()
    assert one["ranks"] == [1, 2, 3, 4] and one["ratings"] == [7, 6, 5, 1] and one["supersedes"] == labeled[0]
    assert (
        one["completion_ids"] == ["p0-0", "p0-1", "p0-2", "p0-3"] and one["labeler"] == "ana" and one["weight"] == 0.5
    )
    assert one["shown"]["order"] == [card[0] for card in labeled[2]]
    assert one["created"].endswith("+00:00") and one["messages"] == [{"role": "user", "content": "Question 0?"}]
    assert len(found.comparisons) == 2 and len(found.unranked) == 1 and found.unranked[0].all_bad
    assert found.comparisons[1].effort == {"moves": 3} and found.comparisons[1].seconds == 4.0
    assert [(s.labeler, s.reason) for s in found.skips] == [("ben", "unclear")]


def test_the_folder_is_data_and_the_rest_below_is_worse(store, project, labeled, tmp_path):
    with store.read() as db:
        counts = export_folder(db, find_project(db, project), tmp_path / "out")
    assert counts == {"comparisons": 2, "demonstrations": 0, "thumbs": 0, "steps": 0, "skips": 1, "unranked": 1}
    assert json.loads((tmp_path / "out/comparisons.jsonl").read_text().splitlines()[1])["ranks"] == [
        1,
        None,
        None,
        None,
    ]
    found = comparisons(str(tmp_path / "out"), "train")
    assert [c.ranks for c in found] == [[1, 2, 3, 4], [1, 2, 2, 2]]
    assert found[1].rest_below
    assert len(load_data(str(tmp_path / "out")).demonstrations) == 2  # the best of each comparison


def test_nothing_to_export_is_said(store, project, tmp_path):
    with pytest.raises(UserError, match="no answers"), store.read() as db:
        export_folder(db, find_project(db, project), tmp_path / "out")
    assert not (tmp_path / "out").exists()
