"""Foreign rows become records, and go back without loss where the format can hold them."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.data.convert import export_data, import_data
from tutelage.data.export import ordered_pairs, preference_rows, step_rows, thumb_rows
from tutelage.data.foreign import dialogue
from tutelage.data.formats import read_rows, write_rows
from tutelage.data.rows import format_of, items_of
from tutelage.data.saved import DATA
from tutelage.data.sources import comparisons, load_data, thumbs
from tutelage.data.validation import DegenerateRow
from tutelage.errors import UserError
from tutelage.records import Comparison, Demonstration, StepLabel

ASK = [{"role": "user", "content": "What is 2+2?"}]
TALK = [*ASK, {"role": "assistant", "content": "4"}, {"role": "user", "content": "And 3+3?"}]


def said(text):
    return [{"role": "assistant", "content": text}]


# (format, plain, row): rows that must come back as they were
ROUND_TRIPS = [
    ("trl-preference", True, {"prompt": "What is 2+2?", "chosen": " 4", "rejected": " 5"}),
    ("trl-preference", False, {"prompt": TALK, "chosen": said("6"), "rejected": said("7")}),
    ("ranking", True, {"prompt": "p", "completions": ["a", "b"], "ranks": [2, 1], "labeler": "ann", "weight": 0.5}),
    ("ranking", True, {"prompt": "p", "completions": ["a", "b"], "ranks": [2, 1], "probability": 0.2}),
    ("ranking", False, {"prompt": TALK, "completions": ["a", "b", "c"], "ranks": [None, 1, 2]}),
    ("ranking", True, {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [1, None, None], "rest_below": True}),
    ("trl-unpaired", True, {"prompt": "p", "completion": "good", "label": True}),
    ("trl-unpaired", False, {"prompt": TALK, "completion": said("bad"), "label": False}),
    ("trl-sft", True, {"prompt": "p", "completion": "c"}),
    ("trl-sft", False, {"prompt": TALK, "completion": said("6")}),
    ("trl-messages", False, {"messages": [{"role": "system", "content": "Be brief."}, *TALK, *said("6")]}),
    ("trl-prompt", True, {"prompt": "p", "category": "brainstorming", "user_id": "u", "split": "tune"}),
    ("trl-prompt", False, {"prompt": TALK}),
    ("trl-stepwise", True, {"prompt": "p", "completions": ["one", "two"], "labels": [True, False]}),
    ("trl-stepwise", False, {"prompt": TALK, "completions": ["one", "two"], "labels": [1, 0]}),
    (
        "hh-rlhf",
        False,
        {key: f"\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: go\n\nAssistant: {key}" for key in ("chosen", "rejected")},
    ),
]


@pytest.mark.parametrize(("name", "plain", "row"), ROUND_TRIPS)
def test_rows_come_back_as_they_were(name, plain, row, tmp_path):
    assert format_of(row) == name
    for extension in (".jsonl.gz", ".json", ".parquet"):
        start, ours, back = (tmp_path / f"{stem}{extension}" for stem in ("start", "ours", "back"))
        write_rows(start, [row, row])  # a row that stands there twice stays twice
        import_data(str(start), str(ours))
        assert all("schema" in stored for _, stored in read_rows(ours))
        export_data(str(ours), str(back), name, plain=plain)
        stored = [{k: v for k, v in one.items() if v is not None} for _, one in read_rows(back)]
        assert stored == [row] * (1 if name == "trl-prompt" else 2)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@st.composite
def rankings(draw):
    texts = draw(st.lists(TEXT, min_size=2, max_size=5, unique=True))
    ranks = draw(st.lists(st.integers(0, 3), min_size=len(texts), max_size=len(texts)))
    order = {rank: i for i, rank in enumerate(sorted(set(ranks)), 1)}
    row = {"prompt": draw(TEXT), "completions": texts, "ranks": [order[rank] for rank in ranks]}
    return row | draw(st.fixed_dictionaries({}, optional={"labeler": TEXT, "seconds": st.floats(0, 9)}))


@settings(max_examples=12, deadline=None)
@given(st.lists(rankings(), min_size=1, max_size=4))
def test_round_trips_lose_nothing(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("trip")
    start, ours, again, back, pairs = (folder / f"{name}.jsonl" for name in ("start", "ours", "again", "back", "pairs"))
    rows = [row | {"prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows]
    write_rows(start, rows)
    import_data(str(start), str(ours))
    import_data(str(ours), str(again))
    assert ours.read_bytes() == again.read_bytes()
    assert import_data(str(start), str(ours)).unchanged
    export_data(str(ours), str(back), "ranking")
    assert [row for _, row in read_rows(back)] == rows
    order = [pair for one in comparisons(str(start), "train") for pair in ordered_pairs(one)]
    if order:
        export_data(str(ours), str(pairs), "trl-preference")
        assert [pair for one in comparisons(str(pairs), "train") for pair in ordered_pairs(one)] == order


def test_implicit_prompts():
    (prompt, one) = items_of({"chosen": [*TALK, *said("6")], "rejected": [*TALK, *said("7")]}, "row 1")
    assert prompt.messages == TALK and one.completions == ["6", "7"] and one.ranks == [1, 2]
    (prompt, one) = items_of({"chosen": "The sky is blue.", "rejected": "The sky is green."}, "row 1")
    assert prompt.messages == [{"role": "user", "content": "The sky is"}]
    assert one.completions == [" blue.", " green."]
    (prompt, one) = items_of({"chosen": "The sky is blue", "rejected": "The sky is bluish"}, "row 1")
    assert one.completions == [" blue", " bluish"]
    row = {"prompt": "What is 2+2?", "chosen": [*ASK, *said("4")], "rejected": [*ASK, *said("5")]}  # UltraFeedback
    (prompt, one) = items_of(row, "row 1")
    assert prompt.messages == ASK and one.completions == ["4", "5"]


def test_hh_dialogues():
    text = "\n\nHuman: a\n\nb\n\nAssistant: c\n\nAssistant: d\n\nHuman: e\n\nAssistant:"
    assert [m["content"] for m in dialogue(text, "row 1")] == ["a\n\nb", "c\n\nd", "e", ""]
    (prompt, one) = items_of({"prompt": "\n\nHuman: a\n\nAssistant:", "chosen": "b", "rejected": "c"}, "row 1")
    assert prompt.messages == [{"role": "user", "content": "a"}] and one.completions == ["b", "c"]


def test_alpaca_sharegpt_and_questions():
    (_, one) = items_of({"instruction": "Add.", "input": "2 3", "output": "5"}, "row 1")
    assert isinstance(one, Demonstration) and one.messages[0]["content"] == "Add.\n\n2 3"
    (_, two) = items_of({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]}, "row 1")
    assert two.messages == [{"role": "user", "content": "hi"}, *said("yo")]
    (_, three) = items_of({"question": "2+2?", "answer": "4"}, "row 1")
    assert three.messages[-1]["content"] == "4"


def test_steps_and_neutral_labels():
    (_, label) = items_of({"prompt": "p", "completions": ["a", "b", "c"], "labels": [True, False, True]}, "row 1")
    assert isinstance(label, StepLabel) and label.labels == [1, -1, 1] and label.outcome is None
    row = {"prompt": "p", "completions": ["a"], "labels": [True], "outcome": False, "values": [0.5], "solution": "a"}
    prompt, label = items_of(row, "row 1")
    assert label.outcome is False and step_rows(label, prompt.messages, True) == [row]
    with pytest.raises(UserError, match="row 1, field outcome: is text, not true or false"):
        items_of({**row, "outcome": "no"}, "row 1")


def test_ids_come_from_the_content():
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    again = items_of(dict(reversed(row.items())), "elsewhere, row 9")
    assert items_of(row, "row 1") == again
    other = items_of({**row, "chosen": "c"}, "row 1")
    assert other[0].id == again[0].id and other[1].id != again[1].id


def test_a_pair_for_each_order_and_none_for_ties():
    (_, one) = items_of({"prompt": "p", "completions": ["a", "b", "c", "d"], "ranks": [1, 2, 2, None]}, "row 1")
    assert [(r["chosen"], r["rejected"]) for r in preference_rows(one, True)] == [("a", "b"), ("a", "c")]
    row = {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [1, 2, None], "rest_below": True}
    (_, below) = items_of(row, "row 1")
    assert ordered_pairs(below) == [("a", "b"), ("a", "c"), ("b", "c")]
    labels = [(r["completion"], r["label"]) for r in thumb_rows(one, True)]
    assert labels == [("a", True), ("b", False), ("c", False)]


def test_training_sees_the_rest_below_and_thumbs_as_pairs(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(
        path,
        [
            {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [1, None, None], "rest_below": True},
            {"prompt": "q", "completion": "good", "thumbs": "up"},
            {"prompt": "q", "response": "bad", "thumbs": "down"},
            {"prompt": "only liked", "completion": "good", "thumbs": 1},
        ],
    )
    data = load_data(str(path))
    assert [c.ranks for c in data.comparisons] == [[1, 2, 2], [1, 2]]
    assert data.comparisons[1].completions == ["good", "bad"]
    assert [(t.completion, t.label) for t in data.thumbs] == [("good", True), ("bad", False), ("good", True)]
    assert thumbs(str(path), "train") == data.thumbs
    assert sorted(d.messages[-1]["content"] for d in data.demonstrations) == ["a", "good", "good"]
    out = tmp_path / "kto.jsonl"
    export_data(str(path), str(out), "trl-unpaired", plain=True)
    kto = [(row["prompt"], row["completion"], row["label"]) for _, row in read_rows(out)]
    assert kto == [
        ("q", "good", True),
        ("q", "bad", False),
        ("only liked", "good", True),
        ("p", "a", True),
        ("p", "b", False),
        ("p", "c", False),
    ]


def test_export_refuses_what_it_cannot_hold_and_leaves_nothing(tmp_path):
    path = tmp_path / "ranks.jsonl"
    write_rows(
        path,
        [{"prompt": "p", "completions": ["a", "b"], "ranks": [1, 1]}, {"prompt": "q", "chosen": "a", "rejected": "b"}],
    )
    out = str(tmp_path / "out.jsonl")
    exported = export_data(str(path), out, "trl-preference")
    assert exported.written == {"rows": 1} and "1 records" in exported.left_out[0]
    card = Path(exported.card).read_text()
    assert "data_files: out.jsonl" in card and "| rows | 1 |" in card and "ties" in card
    with pytest.raises(UserError, match="did you mean trl-preference"):
        export_data(str(path), out, "preference")
    with pytest.raises(UserError, match="there already"):
        export_data(str(path), out, "ranking")
    write_rows(path, [{"prompt": [{"role": "system", "content": "s"}, *TALK], "chosen": "a", "rejected": "b"}])
    with pytest.raises(UserError, match="several turns"):
        export_data(str(path), str(tmp_path / "y.jsonl"), "trl-preference", plain=True)
    with pytest.raises(UserError, match="no system message"):
        export_data(str(path), str(tmp_path / "z.jsonl"), "hh-rlhf")
    with pytest.raises(UserError, match="no known kind"):
        export_data(str(path), str(tmp_path / "z.csv"), "trl-preference")
    assert {p.name for p in tmp_path.iterdir()} == {"ranks.jsonl", "out.jsonl", "out.md"}


def test_a_folder_as_datasets_saves_one(tmp_path):
    path, out = tmp_path / "ranks.jsonl", tmp_path / "saved"
    rows = [{"prompt": f"p{i}", "completions": ["a", "b"], "ranks": [1, 2], "labeler": "ann"} for i in range(3)]
    write_rows(path, rows)
    done = export_data(str(path), str(out), "ranking", plain=True)
    assert not done.unchanged and export_data(str(path), str(out), "ranking", plain=True).unchanged
    assert {p.name for p in out.iterdir()} == {DATA, "state.json", "dataset_info.json", "README.md"}
    assert f"data_files: {DATA}" in Path(done.card).read_text()
    assert [row for _, row in read_rows(out / DATA)] == rows
    assert load_data(str(out)).comparisons == load_data(str(path)).comparisons
    with pytest.raises(UserError, match="there already"):
        export_data(str(path), str(out), "trl-preference", plain=True)
    library = pytest.importorskip("datasets")
    assert library.load_from_disk(str(out)).to_list() == rows


def test_import_is_all_or_nothing_and_lists_every_bad_row(tmp_path):
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    rows = [
        json.dumps(good),
        '{"cut": "of',
        json.dumps({**good, "rejected": "a"}),
        json.dumps({"prompt": "p", "chosen": "a"}),
    ]
    path.write_text("\n".join(rows))
    with pytest.raises(UserError) as error:
        import_data(str(path), str(out))
    assert "3 of 4 rows are bad" in error.value.message and not out.exists()
    for row in (
        "row 2: is cut off",
        "row 3: chosen and rejected are equal",
        "row 4, field rejected: has chosen but no",
    ):
        assert row in error.value.message
    done = import_data(str(path), str(out), skip_bad=True)
    assert done.written == {"prompts": 1, "comparisons": 1} and len(done.left_out) == 3 and out.exists()


def test_our_records_survive(tmp_path):
    one = Comparison(
        id="x",
        prompt_id="p",
        completion_ids=["a", "b", "c"],
        ranks=[1, None, 1],
        messages=ASK,
        completions=["4", "", "four"],
        ratings=[7, None, 6],
        flags=[[], ["harmful"], []],
        seconds=3.5,
        shown={"order": [2, 0, 1]},
        effort={"moves": 2},
    )
    start, out = tmp_path / "ours.jsonl.gz", tmp_path / "again.jsonl.gz"
    write_rows(start, [one.to_json()])
    assert load_data(str(start)).comparisons == [one]
    import_data(str(start), str(out))
    assert out.read_bytes() == start.read_bytes()  # equal rows, equal bytes: hashes of data mean something


def test_records_are_joined_by_id_and_superseded_ones_left_out(tmp_path):
    def row(**fields):
        return {"schema": "tutelage.comparison/1", "prompt_id": "p", "completion_ids": ["c1", "c2"], **fields}

    write_rows(
        tmp_path / "a.jsonl",
        [
            {"schema": "tutelage.prompt/1", "id": "p", "messages": ASK},
            {"schema": "tutelage.completion/1", "id": "c1", "prompt_id": "p", "text": "4"},
            {"schema": "tutelage.completion/1", "id": "c2", "prompt_id": "p", "text": "5"},
        ],
    )
    write_rows(tmp_path / "b.jsonl", [row(id="r1", ranks=[2, 1]), row(id="r2", ranks=[1, 2], supersedes="r1")])
    (one,) = load_data(str(tmp_path)).comparisons
    assert one.id == "r2" and one.messages == ASK and one.completions == ["4", "5"]


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"question": "How many?", "answer": "9 * 2 = <<9*2=18>>18\n#### 1,018"}, "1018"),
        ({"prompt": "How many?", "answer": 7}, "7"),
        ({"prompt": "How much?", "answer": "$7.50"}, "7.5"),
        ({"prompt": "Where?", "answer": "Paris"}, None),
    ],
)
def test_a_problem_keeps_its_final_answer(row, answer):
    assert items_of(row, "row")[0].answer == answer


def test_what_a_row_of_steps_says_beside_its_labels_is_kept():
    row = {"prompt": "2 + 2?", "completions": ["2 + 2 = 4.", "Answer: 4."], "labels": [True, True]}
    more = {"values": [0.5, 1.0], "outcome": True, "solution": "2 + 2 = 4.\nAnswer: 4."}
    found = items_of({**row, **more}, "row 1")[1]
    assert (found.values, found.outcome, found.solution) == tuple(more.values())
    assert items_of(row, "row 1")[1].outcome is None
    for wrong, said in (
        ({"solution": "2 + 2 = 5."}, "do not join"),
        ({"values": [1.0]}, "1 values for 2"),
        ({"outcome": "y"}, "is text"),
    ):
        with pytest.raises(UserError, match=said):
            items_of({**row, **wrong}, "row 1")


@pytest.mark.parametrize("more", [{}, {"prompt": "Hi"}])
def test_a_dialogue_beside_a_text_is_a_row_that_teaches_nothing(more):
    row = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "What?", **more}
    with pytest.raises(DegenerateRow, match="field rejected: is no dialogue"):
        items_of(row, "row 1")
