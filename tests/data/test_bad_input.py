"""Bad files: one message that names the file, the row or field, and the mend."""

import gzip
import json

import pytest

from tutelage.data.check import check
from tutelage.data.sources import comparisons, load_data, prompts
from tutelage.errors import UserError

PAIR = {
    "prompt": [{"role": "user", "content": "hi"}],
    "chosen": [{"role": "assistant", "content": "a"}],
    "rejected": [{"role": "assistant", "content": "b"}],
}
RANKED = {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [1, 2, 3]}
OWN = {
    "schema": "tutelage.comparison/1",
    "id": "x",
    "prompt_id": "p",
    "completion_ids": ["a", "b"],
    "ranks": [1, 2],
    "messages": PAIR["prompt"],
    "completions": ["a", "b"],
}
STEPS = {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def assistant(text):
    return [{"role": "assistant", "content": text}]


# file name -> (content, what the message must say besides the file's name)
FILES = {
    # the file
    "empty.jsonl": (b"", "is empty"),
    "blank.jsonl": (b"\n\n", "is empty"),
    "empty.json": (b"[]", "is empty"),
    "empty.txt": (b"\n \n", "is empty"),
    "notjson.jsonl": (b"{oops\n", "row 1: is not JSON"),
    "truncated.jsonl": (lines(PAIR)[:40], "row 1: is cut off"),
    "second.jsonl": (lines(PAIR) + b"{bad\n", "row 2: is not JSON"),
    "utf16.jsonl": ('{"text": "x"}'.encode("utf-16"), "is not UTF-8"),
    "bytes.jsonl": (b"\xff\xfe\x00bad\n", "is not UTF-8"),
    "latin.jsonl": (lines(PAIR) + '{"text": "café"}\n'.encode("latin-1"), "row 2: is not UTF-8"),
    "cut.jsonl.gz": (gzip.compress(lines(*[PAIR] * 50))[:-20], "gzip file is cut off"),
    "notgzip.jsonl.gz": (lines(PAIR), "not a gzip file"),
    "badgzip.jsonl.gz": (b"\x1f\x8bnonsense", "not a sound gzip file"),
    "corrupt.parquet": (b"PAR1nonsense", "not a sound parquet file"),
    "pairs.csv": (b"prompt,chosen,rejected\n", "is of no known kind"),
    "list.json": (b'"text"', "not a list of rows"),
    "cut.json": (json.dumps([PAIR])[:-4].encode(), "is cut off"),
    # the row
    "array.jsonl": (b"[1,2]\n", "row 1: is a list"),
    "null.jsonl": (b"null\n", "row 1: is null"),
    "number.jsonl": (b"3\n", "row 1: is a whole number"),
    "nan.jsonl": (b'{"prompt": "p", "completion": NaN}\n', "NaN is not a number"),
    "infinity.jsonl": (b'{"prompt": "p", "margin": Infinity}\n', "Infinity is not a number"),
    "deep.jsonl": (b'{"prompt": ' + b"[" * 100_000 + b"\n", "row 1"),
    "unknown.jsonl": (lines({"a": 1}), "no known format"),
    "nothing.jsonl": (lines({}), "no known format"),
    # pairs
    "noprompt.jsonl": (lines({"chosen": "a", "rejected": "b"}), "has no prompt"),
    "nullprompt.jsonl": (lines({**RANKED, "prompt": None}), "has no prompt"),
    "nochosen.jsonl": (lines({"prompt": "p", "rejected": "b"}), "has rejected but no chosen"),
    "misspelled.jsonl": (lines({"prompt": "p", "choosen": "a", "rejected": "b"}), "did you mean choosen"),
    "types.jsonl": (lines({"prompt": 3, "chosen": [], "rejected": {}}), "field prompt: is a whole number"),
    "chosentype.jsonl": (lines({**PAIR, "chosen": {"a": 1}}), "field chosen: is an object"),
    "same.jsonl": (lines({**PAIR, "rejected": PAIR["chosen"]}), "chosen and rejected are equal"),
    "samedialogue.jsonl": (
        lines({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: b"}),
        "equal",
    ),
    "emptytext.jsonl": (lines({**PAIR, "chosen": assistant("")}), "field chosen: the answer is empty"),
    "emptyprompt.jsonl": (lines({"prompt": " ", "chosen": "a", "rejected": "b"}), "the prompt is empty"),
    "role.jsonl": (lines({**PAIR, "chosen": [{"role": "wizard", "content": "x"}]}), "the role 'wizard' is not known"),
    "human.jsonl": (lines({**PAIR, "prompt": [{"role": "human", "content": "x"}]}), "did you mean user"),
    "content.jsonl": (lines({**PAIR, "chosen": assistant(3)}), "is a whole number, not text"),
    "image.jsonl": (lines({**PAIR, "chosen": assistant([{"type": "image"}])}), "a part that is not text"),
    "surrogate.jsonl": (b'{"prompt": "\\ud800", "completion": "a"}\n', "surrogate"),
    "nouser.jsonl": (lines({**PAIR, "prompt": [{"role": "system", "content": "x"}]}), "has no user turn"),
    "emptyturns.jsonl": (lines({**PAIR, "prompt": []}), "is an empty list"),
    "lastturn.jsonl": (
        lines({**PAIR, "prompt": [*PAIR["prompt"], *assistant("a")]}),
        "the last turn is the assistant's",
    ),
    "diverge.jsonl": (
        lines({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"}),
        "differ before their last answer",
    ),
    "unfinished.jsonl": (
        lines({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: a\n\nAssistant: b"}),
        "does not end with",
    ),
    "severalturns.jsonl": (lines({**PAIR, "chosen": assistant("a") * 2}), "assistant, assistant, not one answer"),
    "noranks.jsonl": (lines({"prompt": "p", "completions": ["a", "b"]}), "has completions but no ranks or labels"),
    # rankings
    "ranks.jsonl": (lines({"prompt": "p", "completions": ["a", "b"], "ranks": [1]}), "field ranks: has 1 entry for 2"),
    "rankszero.jsonl": (lines({**RANKED, "ranks": [0, 1, 2]}), "ranks begin at 1"),
    "ranksnegative.jsonl": (lines({**RANKED, "ranks": [-1, 1, 2]}), "ranks begin at 1"),
    "ranksfloat.jsonl": (lines({**RANKED, "ranks": [1.5, 1, 2]}), "1.5, not a whole number"),
    "rankstrue.jsonl": (lines({**RANKED, "ranks": [True, 1, 2]}), "True, not a whole number"),
    "rankstext.jsonl": (lines({**RANKED, "ranks": ["1", "2", "3"]}), "'1', not a whole number"),
    "ranksgap.jsonl": (lines({**RANKED, "ranks": [1, 3, 4]}), "have gaps"),
    "ranksnull.jsonl": (lines({**RANKED, "ranks": [None, None, None]}), "every entry is null"),
    "ranksone.jsonl": (lines({**RANKED, "ranks": [None, 1, None]}), "ranks only one"),
    "rankslist.jsonl": (lines({**RANKED, "ranks": "1,2,3"}), "is text, not a list"),
    "onecompletion.jsonl": (lines({"prompt": "p", "completions": ["a"], "ranks": [1]}), "compares 1 completions"),
    "allequal.jsonl": (lines({**RANKED, "completions": ["a", "a", "a"]}), "two equal answers are ranked apart"),
    "completionstext.jsonl": (lines({**RANKED, "completions": "abc"}), "field completions: is text"),
    # other formats
    "thumbwithoutprompt.jsonl": (lines({"completion": "c", "label": True}), "has no prompt"),
    "thumbrecord.jsonl": (
        lines({"schema": "tutelage.thumb/1", "id": "t", "prompt_id": "p", "completion": "c", "label": True}),
        "field messages: is missing",
    ),
    "twoprompts.jsonl": (
        lines(
            {
                "chosen": [*PAIR["prompt"], *assistant("a")],
                "rejected": [{"role": "user", "content": "yo"}, *assistant("b")],
            }
        ),
        "the two dialogues differ before their last answer",
    ),
    "otherprompt.jsonl": (
        lines(
            {
                "prompt": "yo",
                "chosen": [*PAIR["prompt"], *assistant("a")],
                "rejected": [*PAIR["prompt"], *assistant("b")],
            }
        ),
        "field prompt: is not the prompt of chosen and rejected",
    ),
    "stepsjoin.jsonl": (
        lines(
            {
                "schema": "tutelage.step_label/1",
                "id": "s",
                "prompt_id": "p",
                "steps": ["a", "c"],
                "labels": [1, 1],
                "solution": "a b",
            }
        ),
        "the steps do not join to the solution",
    ),
    "label.jsonl": (lines({"prompt": "p", "completion": "c", "label": 2}), "not true or false"),
    "labeltext.jsonl": (lines({"prompt": "p", "completion": "c", "label": "true"}), "not true or false"),
    "steps.jsonl": (lines({**STEPS, "labels": [True]}), "1 labels for 2 steps"),
    "stepslabel.jsonl": (lines({**STEPS, "labels": [True, 7]}), "not true, false, -1, 0 or 1"),
    "stepsempty.jsonl": (lines({**STEPS, "completions": ["a", " "]}), "a step is empty"),
    "stepsrecord.jsonl": (
        lines({"schema": "tutelage.step_label/1", "id": "s", "prompt_id": "p", "steps": ["a", ""], "labels": [1, 1]}),
        "field steps: a step is empty",
    ),
    "prmstep.jsonl": (lines({"question": {"problem": "q"}, "label": {"steps": [3]}}), "step 1: is no step of PRM800K"),
    "prmchosen.jsonl": (
        lines(
            {
                "question": {"problem": "q"},
                "label": {"steps": [{"completions": [{"text": "a", "rating": 1}], "chosen_completion": 4}]},
            }
        ),
        "chosen_completion is 4, of 1 completions",
    ),
    "shepherd.jsonl": (lines({"input": "What is 2? It is 2. ки", "label": "What is 2? It is 2. +"}), "has no Step 1:"),
    "thumblist.jsonl": (lines({"prompt": "p", "completion": "c", "thumbs": [1]}), "not up or down"),
    "noanswer.jsonl": (lines({"prompt": "p", "completion": ""}), "the assistant's text is empty"),
    "textnumber.jsonl": (lines({"text": 3}), "field text: is a whole number"),
    "sharegpt.jsonl": (lines({"conversations": [{"from": "human"}]}), "is null, not text"),
    # our own records
    "schema.jsonl": (lines({**OWN, "schema": "tutelage.comparsion/1"}), "did you mean tutelage.comparison/1"),
    "schematype.jsonl": (lines({**OWN, "schema": 1}), "unknown schema"),
    "noid.jsonl": (lines({k: v for k, v in OWN.items() if k != "id"}), "field id: is missing"),
    "owntype.jsonl": (lines({**OWN, "seconds": "3"}), "field seconds: is text, not a number"),
    "ownk.jsonl": (lines({**OWN, "completion_ids": ["a"], "ranks": [1]}), "compares 1 completions"),
    "owncount.jsonl": (lines({**OWN, "completions": ["a"]}), "field completions: has 1 entries for 2"),
    "ownrating.jsonl": (lines({**OWN, "ratings": [0, 8]}), "not from 1 to 7"),
    "ownweight.jsonl": (lines({**OWN, "weight": -1}), "field weight: is -1"),
    "duplicate.jsonl": (lines(OWN, {**OWN, "ranks": [2, 1]}), "row 2: the id 'x' stands already"),
    "lostprompt.jsonl": (lines({**OWN, "messages": None}), "field prompt_id: 'p' is not in the data"),
    "losttext.jsonl": (lines({**OWN, "completions": None}), "field completion_ids: ['a', 'b'] is not in the data"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_refused_by_name_and_nothing_written(name, tmp_path):
    content, words = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_data(str(path))
    message = str(caught.value)
    assert name in message and words in message, message
    assert caught.value.mend and "\n" not in caught.value.what
    assert [p.name for p in tmp_path.iterdir()] == [name]
    if name != "pairs.csv":
        report = check(str(path))
        assert not report.ok and any(words.removeprefix("row 2: ") in line for line in report.lines())
        with pytest.raises(UserError, match=name):
            report.raise_if_broken()


def test_missing_file_and_folder_without_data(tmp_path):
    for spec in (tmp_path / "nowhere.jsonl", tmp_path):
        with pytest.raises(UserError, match=str(spec)):
            load_data(str(spec))


def test_the_row_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(RANKED) + "\n" + json.dumps({**RANKED, "ranks": [1]}) + "\n")
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


def test_a_split_without_a_prompt_is_named(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Say {i}"}) + "\n" for i in range(400)))
    kept = {p.messages[0]["content"] for p in prompts(str(path), "train", None, 0)}
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in sorted(kept)))
    assert len(prompts(str(path), "train", None, 0)) == len(kept) > 40
    with pytest.raises(UserError, match=r"no prompt in its split 'tune'(.|\n)*a field split"):
        prompts(str(path), "tune", None, 0)


def test_all_of_a_files_prompts_whatever_split_they_are_in(tmp_path):
    file = tmp_path / "many.jsonl"
    file.write_bytes(lines(*({"prompt": f"Question {i}?"} for i in range(200))))
    assert len(prompts(str(file), "train", None, 0)) < 200 == len(prompts(str(file), "all", None, 0))
    assert len(prompts(str(file), None, None, 0)) == 200  # who names no split has given the prompts to be answered
    assert prompts("world", None, 5, 0) == prompts("world", "train", 5, 0)
    with pytest.raises(UserError, match="no end"):
        prompts("world", "all", 5, 0)
