"""What a stage is given: splits that never leak, derived demonstrations, joined records, dropped rows counted."""

import gzip
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tutelage.data.foreign import prompt_id
from tutelage.data.formats import write_rows
from tutelage.data.sources import SHARES, dataset_hash, describe, is_world, load_data, world_options
from tutelage.errors import UserError
from tutelage.records import Comparison, Completion, Prompt


def pairs(n: int) -> list[dict[str, Any]]:
    return [{"prompt": f"Question {i}?", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(n)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    write_rows(path, pairs(2000))
    return path


def test_splits_share_no_prompt_and_have_their_shares(file: Path) -> None:
    parts = {split: load_data(file, split) for split in ("train", "tune", "report")}  # type: ignore[arg-type]
    ids = [p.id for part in parts.values() for p in part.prompts]
    assert len(ids) == len(set(ids)) == 2000
    for split, part in parts.items():
        assert abs(len(part.prompts) / 2000 - SHARES[split]) < 0.02
        held = {p.id for p in part.prompts}
        assert {c.prompt_id for c in part.comparisons} == {d.prompt_id for d in part.demonstrations} == held
    assert len(load_data(file, "all").prompts) == 2000


def test_a_prompts_split_depends_on_its_text_alone(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    write_rows(other, [*pairs(3000)[1000:], {"prompt": "x", "completion": "y"}])
    held = {p.id for p in load_data(file, "report").prompts}
    assert held & {p.id for p in load_data(other, "all").prompts}
    assert not held & {p.id for p in load_data(other, "train").prompts}


def test_few_prompts_are_all_train(tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    write_rows(path, pairs(19))
    assert len(load_data(path).comparisons) == 19
    assert describe(load_data(path, "tune")) == "nothing"


def test_declared_splits_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "declared.jsonl"
    write_rows(path, [{"prompt": f"p {i}", "split": "report" if i < 5 else "train"} for i in range(50)])
    assert len(load_data(path, "report").prompts) == 5
    assert load_data(path, "tune").prompts == []


def test_limit_and_describe(file: Path) -> None:
    assert describe(load_data(file, limit=7)) == "7 prompts, 7 demonstrations, 7 comparisons"


def test_demonstrations_are_the_best_completions_unless_there_are_some(tmp_path: Path) -> None:
    path = tmp_path / "ranked.jsonl"
    ranked = {"prompt": "p", "completions": ["worst", "best", "mid"], "ranks": [3, 1, 2]}
    write_rows(path, [ranked])
    (demo,) = load_data(path).demonstrations
    assert demo.messages == [{"role": "user", "content": "p"}, {"role": "assistant", "content": "best"}]
    write_rows(path, [ranked, {"prompt": "q", "completion": "written"}])
    assert [d.messages[-1]["content"] for d in load_data(path).demonstrations] == ["written"]


def test_labels_become_demonstrations_and_pairs(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    rows = [("p", "good", True), ("p", "bad", False), ("q", "fine", True), ("r", "poor", False)]
    write_rows(path, [{"prompt": p, "completion": c, "label": good} for p, c, good in rows])
    data = load_data(path)
    assert [d.messages[-1]["content"] for d in data.demonstrations] == ["good", "fine"]
    (one,) = data.comparisons
    assert (one.completions, one.ranks) == (["good", "bad"], [1, 2])
    assert len(data.prompts) == 3


def test_records_of_a_folder_are_joined_and_superseded(tmp_path: Path) -> None:
    ask = [{"role": "user", "content": "hi"}]
    write_rows(tmp_path / "prompts.jsonl", [Prompt(id="p", messages=ask, category="chat").to_json()])
    write_rows(tmp_path / "answers.jsonl", [Completion(id=i, prompt_id="p", text=f"text {i}").to_json() for i in "ab"])
    first = Comparison(id="1", prompt_id="p", completion_ids=["a", "b"], ranks=[1, 2])
    second = Comparison(id="2", prompt_id="p", completion_ids=["a", "b"], ranks=[2, 1], supersedes="1")
    write_rows(tmp_path / "labels.jsonl", [first.to_json(), second.to_json(), first.to_json()])
    (tmp_path / "README.md").write_text("not data")
    (one,) = load_data(tmp_path).comparisons
    assert (one.id, one.messages, one.completions) == ("2", ask, ["text a", "text b"])
    assert load_data(tmp_path).demonstrations[0].messages[-1]["content"] == "text b"


def test_documents(tmp_path: Path) -> None:
    path = tmp_path / "book.txt.gz"
    text = "\n\n".join(f"Paragraph {i}. " + "word " * 60 for i in range(600))
    path.write_bytes(gzip.compress(text.encode()))
    texts = load_data(path, "all").texts
    assert "\n\n".join(texts).split() == text.split()
    assert all(len(t) < 2500 for t in texts)
    assert 0 < len(load_data(path, "train").texts) < len(texts)


def degenerate(n: int, bad: int) -> list[dict[str, str]]:
    ask = "\n\nHuman: {}\n\nAssistant: {}"
    rows = [{"chosen": ask.format(i, "a"), "rejected": ask.format(i, "b")} for i in range(n)]
    for i in range(bad):
        rows[i * 3]["chosen"] = ask.format(i * 3, "")
    return rows


def test_a_few_degenerate_rows_are_dropped_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "hh.jsonl"
    write_rows(path, degenerate(200, 9))
    with caplog.at_level(logging.WARNING):
        assert len(load_data(path, "all").comparisons) == 191
        load_data(path, "tune")
    assert len(caplog.messages) == 1  # said once, however many splits are loaded
    assert "hh.jsonl: 9 of 200 rows dropped" in caplog.text and "row 1" in caplog.text
    write_rows(path, degenerate(200, 10))
    with pytest.raises(UserError, match=r"hh\.jsonl, row 1.*empty"):
        load_data(path)
    write_rows(path, degenerate(99, 1))
    with pytest.raises(UserError, match=r"hh\.jsonl, row 1.*empty"):
        load_data(path)


def test_a_bad_row_is_never_dropped(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = pairs(300)
    rows[250]["chosen"] = 3
    write_rows(path, rows)
    with pytest.raises(UserError, match=r"row 251, field chosen|row 251"):
        load_data(path)


def test_hash_follows_the_bytes(file: Path) -> None:
    before = dataset_hash(file)
    assert before == dataset_hash(file)
    file.write_text(file.read_text() + json.dumps(pairs(1)[0]) + "\n")
    assert dataset_hash(file) != before
    assert dataset_hash("world") != dataset_hash("world:tastes=length")


def test_a_changed_file_is_read_anew(file: Path) -> None:
    assert len(load_data(file, "all").prompts) == 2000
    write_rows(file, pairs(5))
    assert len(load_data(file, "all").prompts) == 5


def test_equal_prompts_of_different_rows_are_one(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_rows(path, [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "c", "rejected": "d"}])
    data = load_data(path)
    assert [p.id for p in data.prompts] == [prompt_id([{"role": "user", "content": "p"}])]
    assert len(data.comparisons) == 2


def test_world() -> None:
    data = load_data("world:tastes=length", "report", limit=5)
    assert len(data.prompts) == 5 and not data.demonstrations
    assert len(load_data("world", limit=6, needs="demonstrations").demonstrations) == 6
    assert len(load_data("world", limit=3, needs="texts").texts) == 3
    assert is_world("world") and is_world("world:tastes=length") and not is_world("worlds.jsonl")
    with pytest.raises(UserError, match="holds no comparisons until"):
        load_data("world", needs="comparisons")


def test_world_options() -> None:
    assert world_options("world:tastes=length,seed=3") == {"tastes": "length", "seed": "3"}
    with pytest.raises(UserError, match="did you mean tastes"):
        world_options("world:taste=length")
    with pytest.raises(UserError, match="not a whole number"):
        world_options("world:seed=x")


def test_real_pairs_load() -> None:
    path = Path(__file__).parents[3] / "shared" / "data" / "hh-rlhf" / "harmless-base.jsonl.gz"
    if not path.exists():
        pytest.skip("the hh-rlhf sample is not beside the project")
    data = load_data(path, "all")
    assert 1780 < len(data.comparisons) <= 1812
    assert all(c.messages and c.messages[-1]["role"] == "user" for c in data.comparisons)


def test_data_is_free_of_torch() -> None:
    modules = "check, export, sources, mixtures, batches, templates, preflight"
    code = f"import sys\nfrom tutelage.data import {modules}\nassert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
