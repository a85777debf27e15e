"""What annotation tools and arenas export becomes what the person said."""

import pytest

from tutelage.data.rows import format_of, items_of
from tutelage.data.validation import DegenerateRow
from tutelage.errors import UserError
from tutelage.records import StepLabel

ASK = [{"role": "user", "content": "Why?"}]
A, B = [*ASK, {"role": "assistant", "content": "yes"}], [*ASK, {"role": "assistant", "content": "no"}]


def only(row, name):
    assert format_of(row) == name
    items = items_of(row, "row 1")
    assert items[0].messages == ASK
    return items[1]


@pytest.mark.parametrize(
    ("winner", "ranks", "all_bad"),
    [("model_a", [1, 2], None), ("tie", [1, 1], None), ("tie (bothbad)", [1, 1], True), ("both_bad", [1, 1], True)],
)
def test_arena_votes(winner, ranks, all_bad):
    row = {"conversation_a": A, "conversation_b": B, "winner": winner, "judge": "arena_user_1", "model_a": "x"}
    one = only(row, "arena")
    assert one.completions == ["yes", "no"] and one.ranks == ranks and one.all_bad is all_bad
    assert one.labeler == "arena_user_1"


def test_arena_puts_the_winner_first_and_refuses_diverging_talks():
    one = only({"conversation_a": A, "conversation_b": B, "winner": "model_b"}, "arena")
    assert one.completions == ["no", "yes"] and one.ranks == [1, 2]
    longer = [[*side, {"role": "user", "content": "So?"}, {"role": "assistant", "content": "x"}] for side in (A, B)]
    for winner in ("model_a", "tie"):
        with pytest.raises(DegenerateRow, match="differ before"):
            items_of({"conversation_a": longer[0], "conversation_b": longer[1], "winner": winner}, "row 1")


@pytest.mark.parametrize(("preference", "ranks"), [(1, [1, 2]), (2.0, [2, 1]), (1.5, [1, 1]), (0, [1, 1])])
def test_alpacafarm(preference, ranks):
    row = {"instruction": "Why?", "input": "", "output_1": "yes", "output_2": "no", "preference": preference}
    assert only(row, "alpacafarm").ranks == ranks
    with pytest.raises(UserError, match="not 1 or 2"):
        items_of({**row, "preference": 3}, "row 1")


def test_argilla_rankings_of_several_people():
    fields = {"prompt": "Why?", "response-1": "yes", "response-2": "no", "response-3": "so"}
    ranked = [
        {"rank": 2, "value": "response-1"},
        {"rank": 1, "value": "response-3"},
        {"rank": 2, "value": "response-2"},
    ]
    row = {
        "id": "7",
        "fields": fields,
        "metadata": {},
        "responses": {
            "order": [{"value": ranked, "user_id": "u1"}, {"value": ["response-2", "response-1"], "user_id": "u2"}]
        },
    }
    items = items_of(row, "row 1")
    assert format_of(row) == "argilla"
    assert [(c.labeler, c.ranks) for c in items[1::2]] == [("u1", [2, 2, 1]), ("u2", [2, 1, None])]
    flat = {
        **fields,
        "id": "7",
        "status": "completed",
        "order.responses": [ranked, ["response-1"]],
        "order.responses.users": ["u1", "u2"],
        "order.responses.status": ["submitted", "draft"],
    }
    items = items_of(flat, "row 1")
    assert format_of(flat) == "argilla" and [(c.labeler, c.ranks) for c in items[1::2]] == [("u1", [2, 2, 1])]


def test_argilla_text_is_a_demonstration():
    row = {"fields": {"prompt": "Why?"}, "responses": {"answer": [{"value": "Because.", "user_id": "u1"}]}}
    one = only(row, "argilla")
    assert one.messages[-1]["content"] == "Because." and one.labeler == "u1"


def label_studio(result, **data):
    note = {"completed_by": 10, "lead_time": 4.5, "was_cancelled": False, "result": [result]}
    return {"id": 1, "data": {"prompt": "Why?", **data}, "annotations": [note, {**note, "was_cancelled": True}]}


def test_label_studio():
    pair = {"text1": "yes", "text2": "no"}
    one = only(label_studio({"type": "pairwise", "value": {"selected": "right"}}, **pair), "label-studio")
    assert one.completions == ["yes", "no"] and one.ranks == [2, 1] and (one.labeler, one.seconds) == ("10", 4.5)
    items = [{"id": "x", "body": "yes"}, {"id": "y", "body": "no"}, {"id": "z", "body": "so"}]
    ranker = {"type": "ranker", "value": {"ranker": {"rank": ["z", "x", "y"]}}}
    assert only(label_studio(ranker, items=items), "label-studio").ranks == [2, 3, 1]
    choice = {"type": "choices", "value": {"choices": ["Text 2"]}}
    assert only(label_studio(choice, **pair), "label-studio").ranks == [2, 1]
    written = only(label_studio({"type": "textarea", "value": {"text": ["Because."]}}), "label-studio")
    assert written.messages[-1]["content"] == "Because."
    with pytest.raises(DegenerateRow, match="no finished annotation"):
        items_of({"data": {"prompt": "Why?", **pair}, "annotations": []}, "row 1")


@pytest.mark.parametrize(
    ("value", "ranks"),
    [
        ({"selection": "B"}, [2, 1, None]),
        ({"selection": "tie"}, [1, 1, 1]),
        ({"rank_order": "B,C=A"}, [2, 1, 2]),
    ],
)
def test_potato(value, ranks):
    answers = ["yes", "no", "so"] if "rank_order" in value or value["selection"] == "tie" else ["yes", "no"]
    row = {"id": "1", "prompt": "Why?", "responses": answers, "user_id": "ann", "label_annotations": {"best": value}}
    one = only(row, "potato")
    assert one.ranks == ranks[: len(answers)] and one.labeler == "ann"
    row["label_annotations"] = {"best": {"scale_value": "-2"}}
    if len(answers) == 2:
        assert only(row, "potato").ranks == [1, 2]


def test_prm800k_keeps_the_steps_before_one_that_nobody_rated():
    step = {"completions": [{"text": "2 + 2 = 4.", "rating": 1}], "chosen_completion": 0}
    unrated = {"completions": [{"text": "So it is 4.", "rating": None}], "chosen_completion": 0}
    row = {"question": {"problem": "2 + 2?"}, "label": {"steps": [step, unrated]}}
    assert [(one.steps, one.labels) for one in items_of(row, "row 1") if isinstance(one, StepLabel)] == [
        (["2 + 2 = 4."], [1])
    ]


def test_prm800k_keeps_the_path_and_the_other_steps():
    steps = [
        {"completions": [{"text": "s1", "rating": 1}, {"text": "x1", "rating": -1}], "chosen_completion": 0},
        {"completions": [{"text": "x2", "rating": -1}], "chosen_completion": None, "human_completion": {"text": "s2"}},
        {"completions": [{"text": "s3", "rating": 0}], "chosen_completion": 0},
    ]
    row = {"labeler": "l", "timestamp": "t", "question": {"problem": "Why?"}, "label": {"steps": steps}}
    assert format_of(row) == "prm800k"
    found = [(one.steps, one.labels) for one in items_of(row, "row 1")[1::2]]
    assert found == [(["x1"], [-1]), (["s1", "x2"], [1, -1]), (["s1", "s2", "s3"], [1, 1, 0])]


def test_math_shepherd():
    row = {
        "input": "Why? Step 1: a = 1 ки\nStep 2: b = 2 ки",
        "label": "Why? Step 1: a = 1 +\nStep 2: b = 2 -",
        "task": "GSM8K",
    }
    row["label"] = row["input"].replace("ки", "+", 1).replace("ки", "-")
    one = only(row, "math-shepherd")
    assert one.steps == ["Step 1: a = 1", "Step 2: b = 2"] and one.labels == [1, -1]
    with pytest.raises(UserError, match="does not follow"):
        items_of({**row, "label": "Why? + -"}, "row 1")


def test_an_unknown_name_is_named():
    row = label_studio({"type": "choices", "value": {"choices": ["Neither of them"]}}, text1="yes", text2="no")
    with pytest.raises(UserError, match="'Neither of them' names none of text1, text2"):
        items_of(row, "row 1")
