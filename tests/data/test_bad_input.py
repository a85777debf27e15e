"""Bad files: one message that names the file, the row or field, and the mend."""

import gzip
import json

import pytest

from tutelage.data.sources import comparisons, load_data
from tutelage.errors import UserError

PAIR = {
    "prompt": [{"role": "user", "content": "hi"}],
    "chosen": [{"role": "assistant", "content": "a"}],
    "rejected": [{"role": "assistant", "content": "b"}],
}


def ranked(**changes):
    return {"prompt": "p", "completions": ["a", "b"], "ranks": [1, 2], **changes}


BAD = {
    "empty.jsonl": "",
    "blank.jsonl": "\n\n",
    "notjson.jsonl": "{oops\n",
    "truncated.jsonl": json.dumps(PAIR)[:40],
    "array.jsonl": "[1,2]\n",
    "null.jsonl": "null\n",
    "number.jsonl": "3\n",
    "second.jsonl": json.dumps(PAIR) + "\n{bad\n",
    "bytes.jsonl": b"\xff\xfe\x00bad\n",
    "cut.jsonl.gz": gzip.compress(json.dumps(PAIR).encode())[:20],
    "notgz.jsonl.gz": b"plain",
    "broken.parquet": b"PAR1",
    "kind.docx": "x",
    "nofields.jsonl": {"a": 1},
    "nochosen.jsonl": {"prompt": "p", "rejected": "b"},
    "types.jsonl": {"prompt": 3, "chosen": [], "rejected": {}},
    "same.jsonl": {**PAIR, "rejected": PAIR["chosen"]},
    "emptytext.jsonl": {**PAIR, "chosen": [{"role": "assistant", "content": ""}]},
    "role.jsonl": {**PAIR, "chosen": [{"role": "wizard", "content": "x"}]},
    "norole.jsonl": {**PAIR, "chosen": [{"content": "x"}]},
    "emptyprompt.jsonl": {"prompt": " ", "chosen": "a", "rejected": "b"},
    "noprompt.jsonl": {"chosen": "a", "rejected": "b"},
    "assistantlast.jsonl": {**PAIR, "prompt": [{"role": "assistant", "content": "x"}]},
    "ranks-short.jsonl": ranked(ranks=[1]),
    "ranks-none.jsonl": {"prompt": "p", "completions": ["a", "b"]},
    "ranks-zero.jsonl": ranked(ranks=[0, 1]),
    "ranks-float.jsonl": ranked(ranks=[1.5, 2]),
    "ranks-text.jsonl": ranked(ranks=["first", "second"]),
    "ranks-gap.jsonl": ranked(ranks=[1, 3]),
    "ranks-null.jsonl": ranked(ranks=[None, 1]),
    "one.jsonl": ranked(completions=["a"], ranks=[1]),
    "completions.jsonl": ranked(completions="a"),
    "schema.jsonl": {"schema": "other/9"},
    "nouser.jsonl": {"messages": [{"role": "assistant", "content": "x"}]},
}


@pytest.mark.parametrize("name", BAD)
def test_refused_with_its_name_and_a_mend(tmp_path, name):
    content = BAD[name]
    path = tmp_path / name
    path.write_bytes(
        content
        if isinstance(content, bytes)
        else (json.dumps(content) if isinstance(content, dict) else content).encode()
    )
    with pytest.raises(UserError) as error:
        load_data(str(path))
    assert name in error.value.message and "mend:" in error.value.message


def test_missing_file_and_folder_without_data(tmp_path):
    for spec in (tmp_path / "nowhere.jsonl", tmp_path):
        with pytest.raises(UserError, match=str(spec)):
            load_data(str(spec))


def test_the_row_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ranked()) + "\n" + json.dumps(ranked(ranks=[1])) + "\n")
    with pytest.raises(UserError, match="row 2, field ranks"):
        load_data(str(path))


def test_a_few_degenerate_rows_of_a_long_file_are_left_out_and_counted(tmp_path, capsys):
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(200)]
    rows[7]["chosen"] = "b"
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = comparisons(str(path), "train") + comparisons(str(path), "tune") + comparisons(str(path), "report")
    assert len(found) == 199
    assert "1 of 200 rows left out" in capsys.readouterr().err


def test_hh_rlhf_text_becomes_messages(tmp_path):
    path = tmp_path / "hh.jsonl.gz"
    row = {
        "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant: Good.",
        "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant: Bad.",
    }
    path.write_bytes(gzip.compress(json.dumps(row).encode()))
    data = load_data(str(path))
    assert [m["content"] for m in data.comparisons[0].messages] == ["Hi", "Hello", "Why?"]
    assert data.comparisons[0].completions == ["Good.", "Bad."] and data.comparisons[0].ranks == [1, 2]
    assert data.demonstrations[0].messages[-1]["content"] == "Good."
