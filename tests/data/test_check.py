"""`data check` tells what a careful person would want to know before training; `data stats` fills the paper's tables."""

import json
import subprocess
import sys

import pytest

from tutelage.cli.data import main
from tutelage.data.check import check
from tutelage.data.formats import write_rows
from tutelage.data.pii import find
from tutelage.data.stats import describe, stats
from tutelage.errors import UserError


def report_on(tmp_path, rows, **options):
    path = tmp_path / "data.jsonl"
    write_rows(path, rows)
    return check(str(path), **options)


def pair(i, chosen, rejected):
    return {"prompt": f"Question {i}?", "chosen": chosen, "rejected": rejected}


def names(report):
    return [remark["name"] for remark in report.remarks]


def test_counts_formats_and_splits(tmp_path):
    rows = [pair(i, f"yes {i}", f"no, {i}") for i in range(40)] + [{"prompt": "p", "completion": "c"}]
    report = report_on(tmp_path, rows)
    assert report.ok and not report.remarks
    assert report.files[0]["formats"] == {"trl-preference": 40, "trl-sft": 1} and report.files[0]["rows"] == 41
    assert report.counts["comparisons"] == 40 and sum(report.splits.values()) == 41
    assert report.statistics["pairs"] == 40 and report.statistics["prompts_in_two_splits"] == 0


def test_a_taste_for_length_is_remarked(tmp_path):
    report = report_on(tmp_path, [pair(i, "a long answer" if i % 10 else "a", "short") for i in range(100)])
    assert report.statistics["longer_answer_wins"] == 0.9
    assert "longer answer wins 90%" in report.remarks[0]["text"]
    balanced = report_on(tmp_path, [pair(i, "longer" if i % 2 else "a", "abc") for i in range(100)])
    assert balanced.statistics["longer_answer_wins"] == 0.5 and not balanced.remarks


def test_contradictions_repeats_equals_and_ties(tmp_path):
    rows = [
        pair(0, "a", "b"),
        pair(0, "b", "a"),
        pair(1, "a", "b"),
        pair(1, "a", "b"),
        pair(2, "a", "a "),
        {"prompt": "q", "completions": ["a", "b"], "ranks": [1, 1]},
        {"prompt": "r", "completion": "x"},
        {"prompt": "R", "completion": "x"},
    ]
    report = report_on(tmp_path, rows)
    numbers = report.statistics
    assert (numbers["pairs_labeled_both_ways"], numbers["repeated_pairs"], numbers["comparisons_with_ties"]) == (
        1,
        1,
        1,
    )
    assert numbers["equal_answers_ranked_apart"] == 1 and numbers["duplicate_demonstrations"] == 1
    assert names(report) == ["duplicates", "equal answers", "duplicates"]
    assert "row 4" in report.remarks[2]["examples"][0] and "row 5" in report.remarks[1]["examples"][0]


def test_every_fault_is_listed_with_a_limit(tmp_path):
    report = report_on(tmp_path, [pair(0, "a", "b"), *[{"prompt": 3, "chosen": "a", "rejected": "b"}] * 30])
    assert not report.ok and report.files[0]["fault_count"] == 30 and len(report.files[0]["faults"]) == 20
    assert any("10 more" in line for line in report.lines())
    with pytest.raises(UserError, match=r"row 2, field prompt: is a whole number, not text \(and 29 more"):
        report.raise_if_broken()


def test_leaks_between_declared_splits_and_files_are_found(tmp_path):
    rows = [{"prompt": "Same  question", "split": "train"}, {"prompt": "same question", "split": "test"}]
    report = report_on(tmp_path, rows)
    assert report.splits == {"train": 1, "report": 1} and report.statistics["prompts_in_two_splits"] == 1
    assert names(report) == ["leakage"] and "row 2" in report.remarks[0]["examples"][0]
    write_rows(tmp_path / "test.jsonl", [{"prompt": "Another"}, {"prompt": "SAME question"}])
    report = report_on(tmp_path, [{"prompt": "Same question"}], against=str(tmp_path / "test.jsonl"))
    assert report.statistics["prompts_shared"] == 1 and names(report) == ["leakage"]


def test_personal_data(tmp_path):
    key = "AKIA" + "ABCDEFGH12345678"
    text = f"Write to ann.b@mail.example.org or call +44 20 7946 0958 or (212) 555-0123. Key {key}."
    found = find([("row 1", text), ("row 2", "In 1999-2003 we had 3.1415926 of 100-200, a@b and 12:30.")])
    assert {name: one["count"] for name, one in found.items()} == {"email": 1, "phone": 2, "key": 1}
    assert found["key"]["examples"] == [{"where": "row 1", "text": "AKIA…"}]
    report = report_on(tmp_path, [pair(0, text, "no")])
    assert report.statistics["pii_phone"] == 2 and names(report) == ["pii"] * 3
    assert key not in json.dumps(report.to_json())


def test_tokens_truncation_and_template(tmp_path, tokenizer):
    report = report_on(tmp_path, [pair(0, "a", "b " * 100)], tokenizer=tokenizer, max_length=50)
    assert report.tokens["truncated"] == 1 and report.tokens["longest_in_tokens"] > 100
    assert report.tokens["end_token_trained"] == 1 and report.tokens["same_template_when_serving"]
    assert "truncation" in names(report)
    special = next(token for token in tokenizer.all_special_tokens if len(token) > 1)
    report = report_on(tmp_path, [pair(0, f"a {special}", "b")], tokenizer=tokenizer)
    assert report.tokens["special_tokens_in_text"] == 1 and names(report) == ["template"]
    report = report_on(tmp_path, [pair(0, "a " * 90, "b " * 90)], tokenizer=tokenizer, max_length=30)
    assert not report.ok and "end token" in report.first_fault.what


def test_stats_are_the_papers_tables(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(
        path,
        [
            {"prompt": "one two", "completion": "a b c", "category": "generation", "user_id": "u", "split": "train"},
            {"prompt": "one two three four", "category": "generation", "user_id": "u", "split": "train"},
            {"prompt": "x", "category": "open_qa", "user_id": "v", "split": "test"},
            {"prompt": "y", "completions": ["a", "b"], "ranks": [1, 1], "flags": [["harmful"], []], "labeler": "l"},
        ],
    )
    tables = stats(str(path))
    assert tables["use_cases"]["generation"] == {"count": 2, "percent": 50.0, "paper_percent": 45.6}
    assert tables["per_customer"]["train"] == {"customers": 1, "mean": 2.0, "max": 2, "above 200": 0}
    assert tables["prompt_lengths_by_category"]["generation"] == describe([2, 4])
    assert tables["annotations"]["harmful"] == 0.5 and tables["annotations"]["comparisons with a tie"] == 1.0
    assert tables["demonstration_lengths"]["demonstration"]["mean"] == 3.0
    assert describe([1, 2, 3, 10]) == {
        "count": 4, "mean": 4.0, "std": 3.5, "min": 1.0, "25%": 1.75, "50%": 2.5, "75%": 4.75, "max": 10.0
    }  # fmt: skip


def test_a_models_tokenizer_is_read_without_torch(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [pair(0, "a", "b")])
    code = "import sys; from tutelage.cli.data import main; found = main('data', ['check', sys.argv[1], '--model', 'world'])"
    code += "; sys.exit('torch' in sys.modules or not found['tokens']['same_template_when_serving'])"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(UserError, match=r"holds no tokenizer\.json"):
        main("data", ["stats", str(path), "--model", str(tmp_path)])


def test_the_command(tmp_path, capsys):
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    write_rows(path, [pair(0, "a", "b"), pair(1, "a", "a")])
    with pytest.raises(UserError, match="chosen and rejected are equal"):
        main("data", ["check", str(path), "--json"])
    assert json.loads(capsys.readouterr().out)["ok"] is False
    assert main("data", ["import", str(path), "--out", str(out), "--skip-bad"])["written"]["comparisons"] == 1
    assert "left out" in capsys.readouterr().out
    assert main("data", ["check", str(out)])["ok"] and "sound" in capsys.readouterr().out
    assert main("data", ["stats", str(out)])["unit"] == "words" and "table 11" in capsys.readouterr().out
    words = ["export", str(out), "--to", "hh-rlhf", "--out", str(tmp_path / "hh.jsonl.gz")]
    assert main("data", words)["card"] == str(tmp_path / "hh.md")
    with pytest.raises(UserError, match="did you mean check"):
        main("data", ["chek", str(path)])
