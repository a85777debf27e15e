"""`data check` tells what a careful person would want to know before training."""

from pathlib import Path
from typing import Any

from tutelage.data.check import check
from tutelage.data.formats import write_rows

from .tokens import CHATML, tokenizer_with


def report_on(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> Any:
    path = tmp_path / "data.jsonl"
    write_rows(path, rows)
    return check(str(path), **options)


def pair(i: int, chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": f"Question {i}?", "chosen": chosen, "rejected": rejected}


def test_counts_formats_and_splits(tmp_path: Path) -> None:
    report = report_on(
        tmp_path, [pair(i, f"yes {i}", f"no {i}") for i in range(40)] + [{"prompt": "p", "completion": "c"}]
    )
    assert report.ok
    assert report.files[0].formats == {"preference": 40, "prompt-completion": 1}
    assert report.counts["comparisons"] == 40 and sum(report.splits.values()) == 41
    assert report.statistics["pairs"] == 40 and report.statistics["prompts_in_two_splits"] == 0
    assert report.lines()[-1].startswith("sound")
    assert report.to_json()["ok"] is True


def test_a_taste_for_length_is_remarked(tmp_path: Path) -> None:
    rows = [pair(i, "a long answer" if i % 10 else "a", "short") for i in range(100)]
    report = report_on(tmp_path, rows)
    assert report.statistics["longer_wins"] == 0.9
    assert any("longer answer wins 90%" in remark for remark in report.remarks)
    balanced = report_on(tmp_path, [pair(i, "longer" if i % 2 else "a", "abc") for i in range(100)])
    assert balanced.statistics["longer_wins"] == 0.5 and not balanced.remarks


def test_contradictions_repeats_and_ties(tmp_path: Path) -> None:
    rows = [
        pair(0, "a", "b"),
        pair(0, "b", "a"),
        {"prompt": "q", "completions": ["a", "b"], "ranks": [1, 1]},
        {"prompt": "r", "completions": ["a", "b", "a"], "ranks": [1, 2, 3]},
    ]
    numbers = report_on(tmp_path, rows).statistics
    assert numbers["pairs_labeled_both_ways"] == 2  # rows 1 and 2, and the text that stands twice in row 4
    assert numbers["comparisons_with_ties"] == 1
    assert numbers["equal_answers_ranked_apart"] == 1


def test_every_fault_is_listed_with_a_limit(tmp_path: Path) -> None:
    report = report_on(tmp_path, [pair(0, "a", "b"), *[{"prompt": 3, "chosen": "a", "rejected": "b"}] * 30])
    assert not report.ok and report.files[0].fault_count == 30 and len(report.files[0].faults) == 20
    assert any("10 more" in line for line in report.lines())


def test_leaks_between_declared_splits_are_found(tmp_path: Path) -> None:
    rows = [{"prompt": "Same  question", "split": "train"}, {"prompt": "Same question", "split": "report"}]
    report = report_on(tmp_path, rows)
    assert report.statistics["prompts_in_two_splits"] == 1 and "held-out" in report.remarks[-1]


def test_tokens_and_truncation(tmp_path: Path) -> None:
    rows = [pair(0, "a", "b " * 100)]
    report = report_on(tmp_path, rows, tokenizer=tokenizer_with(CHATML), max_length=50)
    assert report.statistics["truncated"] == 1 and report.statistics["longest_in_tokens"] > 100


def test_world_is_sound() -> None:
    assert check("world").ok
