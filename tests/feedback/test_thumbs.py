"""Thumbs and edits in the store, and out again as what KTO and SFT train on."""

import pytest

from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.feedback import people
from tutelage.feedback.export import export_folder, export_records
from tutelage.feedback.thumbs import feedback_project, give_feedback, undo_feedback

ASKED = [{"role": "user", "content": "Who lives in the mill?"}]


@pytest.fixture
def given(store):
    with store.write() as db:
        ana = people.add_person(db, "Ana", "lead", "a long password").id
        for name, thumb in (("t1", True), ("t2", False)):
            give_feedback(db, ana, ASKED, f"Answer {name}.", thumb=thumb, model="ppo", id=name)
        give_feedback(db, ana, ASKED, "Answer t1.", edit=" The miller. ", id="e1")
    return store, ana


def test_what_is_given_comes_out_as_records_that_stages_read(given, tmp_path):
    store, ana = given
    with store.read() as db:
        counts = export_folder(db, feedback_project(db), tmp_path)
    assert (counts["thumbs"], counts["demonstrations"], counts["comparisons"]) == (2, 1, 0)
    read = load_data(str(tmp_path))
    assert [(t.completion, t.label, t.labeler) for t in read.thumbs] == [
        ("Answer t1.", True, ana),
        ("Answer t2.", False, ana),
    ]
    assert read.demonstrations[0].messages == [*ASKED, {"role": "assistant", "content": "The miller."}]


def test_sending_twice_stores_once_and_undo_takes_back(given):
    store, ana = given
    with store.write() as db:
        assert give_feedback(db, ana, ASKED, "Answer t1.", thumb=True, model="ppo", id="t1") == "t1"
        bo = people.add_person(db, "Bo", "labeler", "a long password").id
        with pytest.raises(UserError, match="no such feedback of yours"):
            undo_feedback(db, bo, "t1")
        undo_feedback(db, ana, "t1")
        undo_feedback(db, ana, "t1")
    with store.read() as db:
        found = export_records(db, feedback_project(db))
    assert [t.id for t in found.thumbs] == ["t2"] and len(found.skips) == 1 and len(found.demonstrations) == 1


@pytest.mark.parametrize("fields", [{}, {"thumb": True, "edit": "x"}, {"edit": "  "}])
def test_one_thing_is_said_at_a_time(store, fields):
    with store.write() as db, pytest.raises(UserError):
        give_feedback(db, "nobody", ASKED, "text", **fields)


def test_nobody_is_asked_to_do_what_is_done(given):
    from sqlalchemy import select

    from tutelage.feedback.schema import Task

    store, _ = given
    with store.read() as db:
        assert {(t.kind, t.open, t.filled) for t in db.scalars(select(Task))} == {
            ("thumb", False, 1),
            ("demonstrate", False, 1),
        }
