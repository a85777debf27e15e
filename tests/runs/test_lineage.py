"""A checkpoint's lineage: hashes of what went in, and where the runs before it tell of theirs."""

import json
import shutil

import pytest

from tutelage.runs.lineage import file_hash, folder_hash, write_lineage


@pytest.fixture
def runs(tmp_path):
    """sft from a base and a file of data; ppo from sft."""
    for folder in ("base", "runs/sft/checkpoints/step-1/model", "runs/ppo/checkpoints/step-2/model"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "model.safetensors").write_text(folder)
    (tmp_path / "data.jsonl").write_text("{}\n")
    sft, ppo = tmp_path / "runs/sft", tmp_path / "runs/ppo"
    (sft / "checkpoints/latest").symlink_to("step-1/model")
    made = sft / "checkpoints/step-1/model"
    write_lineage(sft, inputs={"model": tmp_path / "base", "data": tmp_path / "data.jsonl"}, output=made)
    inputs = {"model": sft / "checkpoints/latest", "data": "world", "ptx_data": None}
    write_lineage(ppo, inputs=inputs, output=ppo / "checkpoints/step-2/model")
    return tmp_path / "runs"


def lineage(run):
    return json.loads((run / "lineage.json").read_text())


def test_files_folders_and_names_are_described(runs):
    sft = lineage(runs / "sft")
    assert sft["inputs"]["model"] == {"path": "../../base", "sha256": folder_hash(runs.parent / "base")}
    assert sft["inputs"]["data"] == {"path": "../../data.jsonl", "sha256": file_hash(runs.parent / "data.jsonl")}
    assert str(runs) not in json.dumps(sft)
    assert lineage(runs / "ppo")["inputs"]["data"] == {"name": "world"}
    assert "ptx_data" not in lineage(runs / "ppo")["inputs"]


def test_the_chain_goes_back_to_the_base_and_survives_a_move(runs):
    runs = runs.rename(runs.parent / "moved")
    model = lineage(runs / "ppo")["inputs"]["model"]
    before = lineage((runs / "ppo" / model["lineage"]).parent)
    assert before["checkpoint"]["sha256"] == model["sha256"]
    assert "lineage" not in before["inputs"]["model"]


def test_a_folder_hash_changes_with_weights_config_and_names_only(runs, tmp_path):
    base = runs.parent / "base"
    seen = {folder_hash(base)}
    shutil.copytree(base, tmp_path / "copy")
    (base / "tutelage.json").write_text("other")
    assert seen == {folder_hash(tmp_path / "copy")} == {folder_hash(base)}
    for change in ("model.safetensors", "config.json"):
        (base / change).write_text("changed")
        seen.add(folder_hash(base))
    (base / "config.json").rename(base / "other.json")
    seen.add(folder_hash(base))
    assert len(seen) == 4
