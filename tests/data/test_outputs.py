"""Outputs of other systems: every shape finds its prompt."""

import json

import pytest

from tutelage.data.foreign import prompt_id
from tutelage.data.outputs import read_outputs
from tutelage.errors import UserError

ASKED = [{"role": "user", "content": "Name a river."}]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Name a river.", "completion": "The Thames."},
        {"prompt": ASKED, "output": "The Thames."},
        {"instruction": "Name a river.", "output": "The Thames.", "generator": "x"},
        {"messages": [*ASKED, {"role": "assistant", "content": "The Thames."}]},
    ],
)
def test_shapes(tmp_path, row):
    assert read_outputs(write(tmp_path / "o.jsonl", row)) == {prompt_id(ASKED): ("The Thames.", "stop")}


def test_records_are_found_by_id_and_by_words(tmp_path):
    prompt = {"schema": "tutelage.prompt/1", "id": "p7", "messages": ASKED}
    answers = [
        {"schema": "tutelage.completion/1", "id": f"p7-{i}", "prompt_id": "p7", "text": t, "finish": "length"}
        for i, t in enumerate(["The Thames.", "The Rhine."])
    ]
    found = read_outputs(write(tmp_path / "o.jsonl", prompt, *answers))
    assert found["p7"] == found[prompt_id(ASKED)] == ("The Thames.", "length")


@pytest.mark.parametrize("rows", [[], [{"prompt": "x"}], [[1]], [{"output": "x"}], [{"prompt": "x", "output": 3}]])
def test_bad_files(tmp_path, rows):
    with pytest.raises(UserError):
        read_outputs(write(tmp_path / "o.jsonl", *rows))
