import json

import pytest
from sqlalchemy import func, select

from tutelage.data.formats import write_jsonl
from tutelage.errors import UserError
from tutelage.feedback import schema
from tutelage.feedback.projects import change_project, create_project, find_project, import_file, import_records
from tutelage.records import Completion, Prompt


def count(db, table):
    return db.scalar(select(func.count()).select_from(table))


def test_the_same_file_again_adds_nothing(store, sampled, tmp_path):
    asked, drawn = sampled()
    write_jsonl(tmp_path / "samples.jsonl", [*asked, *drawn])
    with store.write() as db:
        project = create_project(db, "Round 1")
        first = import_file(db, project, tmp_path / "samples.jsonl")
        again = import_file(db, project, tmp_path / "samples.jsonl")
        writing = import_file(db, project, tmp_path / "samples.jsonl", "demonstrate")
        steps = import_records(
            db, project, asked[:1], [Completion(id="s", prompt_id="p0", text="x = 3\n\nso 2x = 6\n")], "steps"
        )
        assert db.scalar(select(schema.Task.steps).where(schema.Task.kind == "steps")) == ["x = 3", "so 2x = 6"]
    assert (first.prompts, first.completions, first.tasks) == (3, 12, 3)
    assert (again.prompts, again.completions, again.tasks) == (0, 0, 0)
    assert (writing.tasks, steps.tasks) == (3, 1)


def test_a_fault_in_any_row_leaves_nothing(store, sampled, tmp_path):
    asked, drawn = sampled()
    rows = [json.dumps(r.to_json()) for r in [*asked, *drawn]] + ['{"schema": "tutelage.completion/1", "id": "x"}']
    (tmp_path / "bad.jsonl").write_text("\n".join(rows))
    with store.write() as db:
        create_project(db, "Round 1")
    with pytest.raises(UserError, match="row 16"), store.write() as db:
        import_file(db, find_project(db, "round-1"), tmp_path / "bad.jsonl")
    with store.read() as db:
        assert count(db, schema.Prompt) == count(db, schema.Completion) == count(db, schema.Task) == 0


def test_other_text_under_a_stored_id_is_refused(store, project, sampled):
    asked, drawn = sampled()
    other = [Completion(id=drawn[0].id, prompt_id="p0", text="changed")]
    with pytest.raises(UserError, match="p0-0 differs"), store.write() as db:
        import_records(db, find_project(db, project), asked, other)
    with pytest.raises(UserError, match="has no prompt"), store.write() as db:
        import_records(db, find_project(db, project), asked, [Completion(id="n", prompt_id="absent", text="x")])
    with pytest.raises(UserError, match="not turns"), store.write() as db:
        import_records(db, find_project(db, project), [Prompt(id="odd", messages=["hello"])], [])


def test_equal_answers_make_no_task_and_more_than_nine_make_two(store, sampled):
    asked, drawn = sampled(2, 12)
    same = [Completion(id=f"same{i}", prompt_id="p1", text="same") for i in range(3)]
    with store.write() as db:
        project = create_project(db, "Round 1")
        done = import_records(db, project, asked, [c for c in drawn if c.prompt_id == "p0"] + same)
        sizes = sorted(len(t.completions) for t in db.scalars(select(schema.Task)))
    assert sizes == [3, 9] and "equal" in done.left_out[0]


def test_settings_have_limits(store, project):
    with pytest.raises(UserError, match="from 1 to 50"), store.write() as db:
        change_project(find_project(db, project), overlap=0)
    with pytest.raises(UserError, match="did you mean round-1"), store.read() as db:
        find_project(db, "round1")
    with pytest.raises(UserError, match="already"), store.write() as db:
        create_project(db, "round 1")
