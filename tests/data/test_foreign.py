"""Foreign rows become records, and go back without loss where the format can hold them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.data.export import export_data, import_data, preference_rows, unpaired_rows
from tutelage.data.foreign import dialogue, format_of, items_of
from tutelage.data.formats import read_rows, write_rows
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.records import Comparison, Demonstration, Prompt, StepLabel

ASK = [{"role": "user", "content": "What is 2+2?"}]
TALK = [*ASK, {"role": "assistant", "content": "4"}, {"role": "user", "content": "And 3+3?"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


BOTH = ("chosen", "rejected")

# format -> rows that must come back as they were: {conversational: row}
ROUND_TRIPS: list[tuple[str, bool, dict[str, Any]]] = [
    ("preference", False, {"prompt": "What is 2+2?", "chosen": " 4", "rejected": " 5"}),
    ("preference", True, {"prompt": TALK, "chosen": said("6"), "rejected": said("7")}),
    (
        "ranking",
        False,
        {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [2, 1, 2], "labeler": "ann", "weight": 0.5},
    ),
    ("ranking", True, {"prompt": TALK, "completions": ["a", "b", "c"], "ranks": [None, 1, 2]}),
    ("unpaired", False, {"prompt": "p", "completion": "good", "label": True}),
    ("unpaired", True, {"prompt": TALK, "completion": said("bad"), "label": False}),
    ("prompt-completion", False, {"prompt": "p", "completion": "c"}),
    ("prompt-completion", True, {"prompt": TALK, "completion": said("6")}),
    ("messages", True, {"messages": [{"role": "system", "content": "Be brief."}, *TALK, *said("6")]}),
    ("prompt", False, {"prompt": "p", "category": "brainstorming"}),
    ("prompt", True, {"prompt": TALK}),
    ("stepwise", False, {"prompt": "p", "completions": ["one", "two"], "labels": [True, False]}),
    ("stepwise", True, {"prompt": TALK, "completions": ["one", "two"], "labels": [1, 0]}),
    (
        "hh-rlhf",
        True,
        {key: f"\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: go\n\nAssistant: {key}" for key in ("chosen", "rejected")},
    ),
]


@pytest.mark.parametrize("extension", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
@pytest.mark.parametrize(("format", "conversational", "row"), ROUND_TRIPS)
def test_rows_come_back_as_they_were(
    format: str, conversational: bool, row: dict[str, Any], extension: str, tmp_path: Path
) -> None:
    start, ours, back = tmp_path / f"start{extension}", tmp_path / "ours.jsonl", tmp_path / f"back{extension}"
    write_rows(start, [row])
    import_data(str(start), str(ours))
    assert all("schema" in stored for _, stored in read_rows(ours))
    exported = export_data(str(ours), str(back), format, conversational=conversational)
    assert (exported.rows, exported.left_out) == (1, 0)
    assert [stored for _, stored in read_rows(back)] == [row]


@pytest.mark.parametrize(("format", "conversational", "row"), ROUND_TRIPS)
def test_formats_are_named(format: str, conversational: bool, row: dict[str, Any]) -> None:
    assert format_of(row) == format


def test_implicit_prompts() -> None:
    (prompt, one) = items_of({"chosen": [*TALK, *said("6")], "rejected": [*TALK, *said("7")]}, "row 1")
    assert isinstance(prompt, Prompt) and isinstance(one, Comparison)
    assert prompt.messages == TALK and one.completions == ["6", "7"] and one.ranks == [1, 2]
    (prompt, one) = items_of({"chosen": "The sky is blue.", "rejected": "The sky is green."}, "row 1")
    assert isinstance(prompt, Prompt) and isinstance(one, Comparison)
    assert prompt.messages == [{"role": "user", "content": "The sky is"}]
    assert one.completions == [" blue.", " green."]
    (prompt, one) = items_of({"chosen": "The sky is blue", "rejected": "The sky is bluish"}, "row 1")
    assert isinstance(one, Comparison) and one.completions == [" blue", " bluish"]


def test_a_prompt_text_beside_whole_dialogues() -> None:
    """UltraFeedback: the prompt as text, chosen and rejected as conversations that begin with it."""
    row = {"prompt": "What is 2+2?", "chosen": [*ASK, *said("4")], "rejected": [*ASK, *said("5")]}
    (prompt, one) = items_of(row, "row 1")
    assert isinstance(prompt, Prompt) and isinstance(one, Comparison)
    assert prompt.messages == ASK and one.completions == ["4", "5"]


def test_hh_dialogues() -> None:
    text = "\n\nHuman: a\n\nb\n\nAssistant: c\n\nAssistant: d\n\nHuman: e\n\nAssistant:"
    assert dialogue(text, "row 1") == [
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "c\n\nd"},
        {"role": "user", "content": "e"},
        {"role": "assistant", "content": ""},
    ]
    (prompt, one) = items_of({"prompt": "\n\nHuman: a\n\nAssistant:", "chosen": "b", "rejected": "c"}, "row 1")
    assert isinstance(prompt, Prompt) and prompt.messages == [{"role": "user", "content": "a"}]
    assert isinstance(one, Comparison) and one.completions == ["b", "c"]


def test_alpaca_sharegpt_and_questions() -> None:
    (_, one) = items_of({"instruction": "Add.", "input": "2 3", "output": "5"}, "row 1")
    assert isinstance(one, Demonstration) and one.messages == [{"role": "user", "content": "Add.\n\n2 3"}, *said("5")]
    (_, two) = items_of({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]}, "row 1")
    assert isinstance(two, Demonstration) and two.messages == [{"role": "user", "content": "hi"}, *said("yo")]
    (_, three) = items_of({"question": "2+2?", "answer": "4"}, "row 1")
    assert isinstance(three, Demonstration) and three.messages[-1]["content"] == "4"
    (only,) = items_of({"messages": ASK}, "row 1")
    assert isinstance(only, Prompt)


def test_stepwise_labels() -> None:
    (_, label) = items_of({"prompt": "p", "completions": ["a", "b", "c"], "labels": [True, False, True]}, "row 1")
    assert isinstance(label, StepLabel) and label.labels == [1, -1, 1]


def test_ids_come_from_the_content() -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    again = items_of(dict(reversed(row.items())), "elsewhere, row 9")
    assert items_of(row, "row 1") == again
    other = items_of({**row, "chosen": "c"}, "row 1")
    assert isinstance(other[0], Prompt) and isinstance(again[0], Prompt) and other[0].id == again[0].id
    assert isinstance(other[1], Comparison) and isinstance(again[1], Comparison) and other[1].id != again[1].id


def test_ranking_gives_a_pair_for_each_order_and_none_for_ties() -> None:
    (_, one) = items_of({"prompt": "p", "completions": ["a", "b", "c", "d"], "ranks": [1, 2, 2, None]}, "row 1")
    assert isinstance(one, Comparison)
    pairs = [(row["chosen"], row["rejected"]) for row in preference_rows(one, conversational=False)]
    assert pairs == [("a", "b"), ("a", "c")]
    (_, below) = items_of(
        {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [1, 2, None], "rest_below": True}, "r"
    )
    assert isinstance(below, Comparison)
    pairs = [(row["chosen"], row["rejected"]) for row in preference_rows(below, conversational=False)]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]
    labels = [(row["completion"], row["label"]) for row in unpaired_rows(one, conversational=False)]
    assert labels == [("a", True), ("b", False), ("c", False)]


def test_export_counts_what_it_leaves_out_and_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "ranks.jsonl"
    write_rows(
        path,
        [{"prompt": "p", "completions": ["a", "b"], "ranks": [1, 1]}, {"prompt": "q", "chosen": "a", "rejected": "b"}],
    )
    exported = export_data(str(path), str(tmp_path / "out.jsonl"), "preference")
    assert (exported.rows, exported.left_out) == (1, 1)
    with pytest.raises(UserError, match="did you mean preference"):
        export_data(str(path), str(tmp_path / "x.jsonl"), "preferences")
    write_rows(path, [{"prompt": TALK, "chosen": "a", "rejected": "b"}])
    with pytest.raises(UserError, match="several turns"):
        export_data(str(path), str(tmp_path / "y.jsonl"), "preference", conversational=False)
    system = [{"role": "system", "content": "s"}, *ASK]
    write_rows(path, [{"prompt": system, "chosen": "a", "rejected": "b"}])
    with pytest.raises(UserError, match="no system message"):
        export_data(str(path), str(tmp_path / "z.jsonl"), "hh-rlhf")
    assert {p.name for p in tmp_path.iterdir()} == {"ranks.jsonl", "out.jsonl"}  # a failed export leaves nothing


def test_our_records_survive_a_file(tmp_path: Path) -> None:
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
    )
    path = tmp_path / "ours.jsonl.gz"
    write_rows(path, [one.to_json()])
    assert load_data(path).comparisons == [one]
    first = path.read_bytes()
    write_rows(path, [one.to_json()])
    assert path.read_bytes() == first  # equal rows, equal bytes: hashes of data mean something


def test_json_lines_under_the_name_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [row for _, row in read_rows(path)] == rows
    path.write_text(json.dumps({"data": rows}, indent=2))
    assert [row for _, row in read_rows(path)] == rows
