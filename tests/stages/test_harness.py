"""EleutherAI's lm-eval itself, where it is installed: our server against its `hf` backend, and our command that drives it."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'tutelage[lm-eval]'")
pytest.importorskip("accelerate", reason="lm-eval's hf backend is not installed: pip install 'tutelage[lm-eval]'")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import harness

from tutelage.configs import EvalConfig
from tutelage.stages.evaluate import run

COMMAND = str(Path(sys.executable).with_name("lm_eval"))


def test_scores_through_the_server_are_those_of_the_hf_backend():
    found = harness.measure("world", COMMAND, 12)
    assert found["equal"], found
    assert found["hf"]["acc,none"] > 0.5 and found["hf, chat"]["chrf,none"] > 0


def test_our_command_scores_a_checkpoint_and_the_same_one_behind_a_url_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    harness.write_tasks(tmp_path, 12)
    choice, short = (str(tmp_path / f"{name}.yaml") for name in ("choice", "short"))
    small = {"data": "world", "judge": ("gold",), "prompts": 2, "dtype": "float32"}
    with harness.served(str(harness.resolve("world"))) as address:
        models = ("near=world", f"far=openai:{address}/v1#m")
        alike = run(EvalConfig(**small, models=models, tasks=(short,), out=str(tmp_path / "alike")))
    near, far = (alike["behaviours"][name]["lm-eval:world_short/chrf"] for name in ("near", "far"))
    assert near == far and near["value"] > 0 and near["ci95"][0] < near["value"] < near["ci95"][1]
    # Plain text and log-probabilities, the documents paired.
    found = run(EvalConfig(**small, models=("a=world", "b=world"), tasks=(choice,), out=str(tmp_path / "two")))
    a = found["behaviours"]["a"]["lm-eval:world_choice/acc"]
    assert a["value"] > 0.5 and a["prompts"] == 12
    (row,) = (r for r in found["changes"] if r["behavior"] == "lm-eval:world_choice/acc")
    assert row["prompts"] == 12 and row["difference"] == 0
    (results,) = (tmp_path / "two" / "lm-eval" / "a").rglob("results*.json")
    assert json.loads(results.read_text())["results"]["world_choice"]["acc,none"] == pytest.approx(a["value"])
