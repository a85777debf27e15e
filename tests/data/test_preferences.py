"""Comparisons taken apart into thumbs, answers of other prompts, rankings without ties."""

import json

import pytest

from tutelage.data.preferences import has_winner, mismatched, taken_apart, without_ties
from tutelage.data.sources import load_data, thumbs
from tutelage.records import Comparison, Thumb


def comparison(ranks):
    names = [f"a{i}" for i in range(len(ranks))]
    messages = [{"role": "user", "content": "Say it."}]
    return Comparison(id="c", prompt_id="p", completion_ids=names, ranks=ranks, messages=messages, completions=names)


@pytest.mark.parametrize(
    ("ranks", "up", "down"),
    [
        ([1, 2], ["a0"], ["a1"]),
        ([3, 1, 2], ["a1"], ["a0"]),  # the middle one wins as many pairs as it loses
        ([1, 1, 2, 2], ["a0", "a1"], ["a2", "a3"]),
        ([1, None, 2], ["a0"], ["a2"]),
        ([1, 1], [], []),
    ],
)
def test_taken_apart(ranks, up, down):
    found = taken_apart(comparison(ranks))
    assert [t.completion for t in found if t.label] == up and [t.completion for t in found if not t.label] == down
    assert has_winner(comparison(ranks)) == bool(up)


def test_mismatched_answers_belong_to_other_prompts_and_each_is_used_once():
    rows = [
        Thumb(id=str(i), prompt_id=f"p{i % 7}", messages=[], completion=f"{i % 7}-{i}", label=True) for i in range(40)
    ]
    texts = mismatched(rows, seed=0)
    assert sorted(texts) == sorted(t.completion for t in rows)
    assert all(text.split("-")[0] != row.prompt_id[1:] for text, row in zip(texts, rows, strict=True))
    assert texts != mismatched(rows, seed=1)


def test_of_tied_answers_one_takes_part():
    kept = {tuple(without_ties([1, 2, 2, None, 3], seed)) for seed in range(20)}
    assert kept == {(1, 2, 0, 0, 3), (1, 0, 2, 0, 3)}


def test_thumbs_are_read_written_and_never_taught_when_down(tmp_path):
    path = tmp_path / "thumbs.jsonl"
    rows = [{"prompt": "A?", "completion": "good", "label": True}, {"prompt": "B?", "completion": "bad", "label": 0}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_data(str(path))
    assert [(t.completion, t.label) for t in data.thumbs] == [("good", True), ("bad", False)]
    assert [d.messages[-1]["content"] for d in data.demonstrations] == ["good"] and len(data.prompts) == 2
    path.write_text("".join(json.dumps(t.to_json()) + "\n" for t in data.thumbs))
    assert thumbs(str(path), "train") == data.thumbs
