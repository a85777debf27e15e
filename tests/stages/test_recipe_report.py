"""The report of a whole run takes over all that its evaluation measured."""

import json
from pathlib import Path

import pytest

from tutelage.configs import EvalConfig, OnlineDPOConfig, PPOConfig
from tutelage.recipe import Recipe
from tutelage.stages.evaluated import CARRIED
from tutelage.stages.recipe_run import _report
from tutelage.world import prompts


def test_a_run_s_report_carries_what_its_evaluation_measured(tmp_path):
    measured = {key: {"measured": key} for key in CARRIED}
    results = {"eval": {"stage": "eval", "seconds": 1.0, "out": "eval", **measured}}
    stages = [("eval", "eval", EvalConfig(models=("a=world", "b=world")))]
    recipe = Recipe(
        path="x.yaml", name="x", out=Path(tmp_path), stages=stages, seed=0, model="world", data="pairs.jsonl"
    )
    report = _report(recipe, results, "tutelage run x.yaml")
    assert {key: report[key] for key in CARRIED} == measured and report["name"] == "x"
    none = _report(recipe, {"eval": {"stage": "eval", "seconds": 1.0}}, "tutelage run x.yaml")
    assert none["win_rates"] == [] and none["corpus_loss"] == {} and "kl" not in none


@pytest.mark.parametrize("config", [OnlineDPOConfig(eval_prompts=3), PPOConfig(eval_prompts=3)], ids=lambda c: c.verb)
def test_every_on_policy_stage_has_its_curve_of_proxy_and_gold(tmp_path, config):
    rows = [
        {
            "step": step,
            "prompt_id": one.id,
            "text": "Yes.",
            "finish": "stop",
            "tokens": 3,
            "proxy": 0.5,
            "kl": step / 10,
        }
        for step in (1, 2)
        for one in prompts("tune", 3, 0)
    ]
    (tmp_path / config.verb).mkdir()
    (tmp_path / config.verb / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stages = [(config.verb, config.verb, config)]
    recipe = Recipe(path="x.yaml", name="x", out=Path(tmp_path), stages=stages, seed=0, model="world", data="world")
    report = _report(recipe, {config.verb: {"stage": config.verb, "seconds": 1.0}}, "tutelage run x.yaml")
    (found,) = report["overoptimization"]
    assert (found["stage"], found["kl_coef"]) == (config.verb, 0.1 if config.verb == "online-dpo" else 0.02)
    assert [point["step"] for point in found["curve"]] == [1, 2] and all("gold" in point for point in found["curve"])
    assert ("hacking" in report) == (config.verb == "ppo")  # the fits and the verdict are over its coefficients
