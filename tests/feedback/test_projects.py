import json
import re

import pytest
from sqlalchemy import func, select

from tutelage.data.formats import write_jsonl
from tutelage.errors import UserError
from tutelage.feedback import schema
from tutelage.feedback.imports import import_file, import_records
from tutelage.feedback.projects import change_project, create_project, find_project
from tutelage.feedback.reading import BadRows
from tutelage.records import Completion, Prompt, StepLabel


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
    with pytest.raises(UserError, match="prompt odd: messages are not turns"), store.write() as db:
        import_records(db, find_project(db, project), [Prompt(id="odd", messages=["hello"])], [])


def test_every_bad_row_is_told_with_its_number_and_reason(store, project, sampled, tmp_path):
    _, drawn = sampled()
    prompt = {"schema": "tutelage.prompt/1", "id": "new", "messages": [{"role": "user", "content": "New?"}]}
    answer = {"schema": "tutelage.completion/1", "id": "a", "prompt_id": "new", "text": "x"}
    rows = [
        prompt,
        {"prompt": "Why?"},
        answer | {"text": 5},
        answer | {"id": "b", "prompt_id": "absent"},
        answer | {"id": drawn[0].id, "prompt_id": "p0"},  # whose prompt is not in the file, and whose text is another
        prompt | {"id": "p1"},
        {"prompt": "Which?", "completions": ["a", "b"], "rank": [1, 2]},
        {"prompt": "Which?", "completions": ["a", "b"], "ranks": [1, 2]},
        answer | {"id": "y" * 200},
        answer | {"id": "fine"},
    ]
    lines = [*map(json.dumps, rows), "{", "5", json.dumps({"text": "a document"})]
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    with pytest.raises(BadRows) as caught, store.write() as db:
        import_file(db, find_project(db, project), tmp_path / "bad.jsonl")
    told = {}
    for fault in caught.value.faults:
        number = int(re.search(r"row (\d+)", fault.where).group(1))
        told.setdefault(number, []).append(fault.what)
    assert sorted(told) == [3, 4, 5, 6, 7, 8, 9, 11, 12, 13]
    assert "is a whole number, not text" in told[3][0] and "has no prompt absent" in told[4][0]
    assert ["has no prompt" in told[5][0], "differs from the stored one" in told[5][1]] == [True, True]
    assert "p1 differs" in told[6][0] and "did you mean rank?" in told[7][0] and "is a ranking" in told[8][0]
    message = caught.value.message
    assert message.startswith(f"{tmp_path / 'bad.jsonl'}: 11 faults, so that nothing was imported")
    assert "\n  row 12: is a whole number, not an object" in message
    with store.read() as db:
        assert (count(db, schema.Prompt), count(db, schema.Completion), count(db, schema.Task)) == (3, 12, 3)


def test_answers_without_ranks_are_items_to_label(store, tmp_path):
    rows = [
        {"prompt": "Why?", "completions": ["Because.", "No idea.", "Because."], "model": "m", "category": "open QA"},
        {
            "prompt": [{"role": "user", "content": "How?"}],
            "completions": [{"role": "assistant", "content": "So."}, "?"],
        },
        {"prompt": "Alike?", "completions": ["same", "same"]},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with store.write() as db:
        project = create_project(db, "Round 1")
        done = import_file(db, project, tmp_path / "rows.jsonl")
        again = import_file(db, project, tmp_path / "rows.jsonl")
        texts = {row.id: (row.text, row.model) for row in db.scalars(select(schema.Completion))}
        tasks = list(db.scalars(select(schema.Task).order_by(schema.Task.id)))
        assert [[texts[name][0] for name in task.completions] for task in tasks] == [
            ["Because.", "No idea.", "Because."],
            ["So.", "?"],
        ]
        assert texts[tasks[0].completions[0]][1] == "m" and not any(task.is_gold for task in tasks)
    assert (done.prompts, done.tasks, again.tasks, len(done.left_out)) == (3, 2, 0, 1)
    for wrong in ({"prompt": "p", "completions": "a"}, {"prompt": "p", "completions": []}, {"completions": ["a", "b"]}):
        (tmp_path / "wrong.jsonl").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match="row 1"), store.write() as db:
            import_file(db, find_project(db, "round-1"), tmp_path / "wrong.jsonl")


def test_equal_answers_make_no_task_and_more_than_nine_make_two(store, sampled):
    asked, drawn = sampled(2, 12)
    same = [Completion(id=f"same{i}", prompt_id="p1", text="same") for i in range(3)]
    with store.write() as db:
        project = create_project(db, "Round 1")
        done = import_records(db, project, asked, [c for c in drawn if c.prompt_id == "p0"] + same)
        sizes = sorted(len(t.completions) for t in db.scalars(select(schema.Task)))
    assert sizes == [6, 6] and "equal" in done.left_out[0]  # none is left alone: ten are five and five


def test_judged_solutions_are_items_to_judge_anew(store, tmp_path):
    shepherd = {"input": "Sum? Step 1: 1 ки\nStep 2: 3 ки", "label": "Sum? Step 1: 1 +\nStep 2: 3 -"}
    trl = {"prompt": "Product?", "completions": ["a", "b", "c"], "labels": [True, True, False]}
    own = StepLabel(id="s", prompt_id="q", steps=["x", "y"], labels=[1, 0], messages=[{"role": "user", "content": "?"}])
    rows = [shepherd, trl, own.to_json()]
    (tmp_path / "steps.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with store.write() as db:
        project = create_project(db, "Proofs")
        done = import_file(db, project, tmp_path / "steps.jsonl", "steps")
        again = import_file(db, project, tmp_path / "steps.jsonl", "steps")
        found = list(db.scalars(select(schema.Task.steps).order_by(schema.Task.id)))
    assert found == [["Step 1: 1", "Step 2: 3"], ["a", "b", "c"], ["x", "y"]]
    assert (done.prompts, done.completions, done.tasks, again.tasks) == (3, 3, 3, 0)
    with pytest.raises(BadRows, match=r"3 faults") as told, store.write() as db:
        import_file(db, find_project(db, "proofs"), tmp_path / "steps.jsonl")
    assert "row 2: is a solution whose steps were judged" in told.value.message


def test_settings_have_limits(store, project):
    with pytest.raises(UserError, match="from 1 to 50"), store.write() as db:
        change_project(find_project(db, project), overlap=0)
    with pytest.raises(UserError, match="did you mean round-1"), store.read() as db:
        find_project(db, "round1")
    with pytest.raises(UserError, match="already"), store.write() as db:
        create_project(db, "round 1")
