"""Where data says which prompts ask for harm, in the words of several sources."""

import json

import pytest

from tutelage.data.kinds import kind_of, prompt_kind
from tutelage.data.sources import prompts
from tutelage.records import Prompt


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"kind": "harmful", "label": "safe"}, "harmful"),
        ({"type": "contrast_homonyms", "label": "unsafe"}, "harmful"),
        ({"type": "contrast_homonyms"}, "harmful"),
        ({"type": "safe_targets"}, "benign"),
        ({"category": "Benign-lookalike"}, "benign"),
        ({"category": "brainstorming", "type": "open", "label": 1}, None),
        ({}, None),
    ],
)
def test_the_first_field_that_says_so(row, expected):
    assert kind_of(row) == expected


def test_a_file_s_kinds_reach_its_prompts_and_go_out_again(tmp_path):
    path = tmp_path / "asked.jsonl"
    rows = [{"prompt": "How do I kill a process?", "type": "homonyms", "label": "safe"}, {"prompt": "Hello."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = prompts(str(path), "report", None, 0)
    assert (first.kind, second.kind) == ("benign", None)
    assert Prompt.from_json(first.to_json()) == first and "kind" not in second.to_json()
    battery = Prompt(id="x", messages=second.messages, category="harmful")
    assert prompt_kind(battery) == "harmful" and prompt_kind(second) is None
