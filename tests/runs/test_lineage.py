"""A checkpoint's hash, and the chain from it back to the base model."""

import json
import platform
import shutil
import subprocess

import pytest

from tutelage.runs import Run
from tutelage.runs.lineage import environment, file_hash, folder_hash, read_lineage_chain, write_lineage


def write_model(content):
    def write(folder):
        (folder / "model.safetensors").write_bytes(content)
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer.json").write_text("{}")

    return write


def make_run(out, content, inputs):
    run = Run.open(out, stage="sft", config={}, resume=False)
    model = run.save(1, write_model(content), None)
    write_lineage(run.path, inputs, {"model": model})
    return run


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base").mkdir()
    write_model(b"base")(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def runs(tmp_path, base):
    """sft from base; reward from sft; ppo from both."""
    data = tmp_path / "data.jsonl"
    data.write_text("{}\n")
    top = tmp_path / "runs"
    sft = make_run(top / "sft", b"sft", {"model": base, "data": data})
    reward = make_run(top / "reward", b"reward", {"model": sft.path / "checkpoints/latest", "data": "world"})
    models = {"model": sft.latest(), "reward_model": reward.latest(), "data": "world", "ptx_data": None}
    make_run(top / "ppo", b"ppo", models)
    return top


def test_a_file_hash_is_sha256sum(base):
    expected = subprocess.run(["sha256sum", base / "config.json"], capture_output=True, text=True, check=True)
    assert file_hash(base / "config.json") == expected.stdout.split()[0]


def test_a_folder_hash_changes_with_weights_tokenizer_config_and_names_only(base, tmp_path):
    first = folder_hash(base)
    shutil.copytree(base, tmp_path / "copy")
    assert folder_hash(tmp_path / "copy") == first
    for name in ("tutelage.json", "README.md", "notes.log"):
        (base / name).write_text("other")
    assert folder_hash(base) == first
    seen = {first}
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (base / name).write_text("changed")
        seen.add(folder_hash(base))
    (base / "config.json").rename(base / "config2.json")
    seen.add(folder_hash(base))
    assert len(seen) == 5


def test_the_environment_names_versions_but_no_machine():
    found = environment()
    assert {"python", "tutelage", "torch", "transformers", "platform", "cpus"} <= set(found)
    assert platform.node() not in json.dumps(found)


def test_lineage_describes_files_folders_and_names(runs):
    lineage = json.loads((runs / "sft" / "lineage.json").read_text())
    assert lineage["inputs"]["model"]["path"] == "../../base"
    assert lineage["inputs"]["data"] == {"path": "../../data.jsonl", "sha256": file_hash(runs.parent / "data.jsonl")}
    assert lineage["outputs"]["model"]["path"] == "checkpoints/step-1/model"
    assert lineage["parents"] == []
    assert str(runs) not in json.dumps(lineage)
    ppo = json.loads((runs / "ppo" / "lineage.json").read_text())
    assert ppo["inputs"]["data"] == {"name": "world"}
    assert "ptx_data" not in ppo["inputs"]
    assert [parent["lineage"] for parent in ppo["parents"]] == ["../sft/lineage.json", "../reward/lineage.json"]
    assert ppo["inputs"]["model"]["sha256"] == lineage["outputs"]["model"]["sha256"]


@pytest.mark.parametrize("start", ["", "checkpoints/latest", "checkpoints/step-1/model"])
def test_the_chain_goes_back_to_the_base_each_run_once(runs, start):
    chain = read_lineage_chain(runs / "ppo" / start)
    assert [entry["run"].rsplit("/", 1)[1] for entry in chain] == ["ppo", "sft", "reward"]
    assert chain[1]["inputs"]["model"]["sha256"] == folder_hash(runs.parent / "base")


def test_the_chain_survives_a_move(runs, tmp_path):
    runs.rename(tmp_path / "moved")
    assert len(read_lineage_chain(tmp_path / "moved" / "ppo")) == 3


def test_a_lost_ancestor_is_named(runs):
    shutil.rmtree(runs / "reward")
    chain = read_lineage_chain(runs / "ppo")
    assert chain[2] == {"run": str(runs / "reward"), "missing": True}


def test_a_model_that_no_run_wrote_has_no_chain(base):
    assert read_lineage_chain(base) == []


def test_a_run_that_goes_on_from_itself_ends(runs):
    write_lineage(runs / "sft", {"model": runs / "ppo"}, runs / "sft" / "checkpoints" / "latest")
    assert len(read_lineage_chain(runs / "ppo")) == 3
