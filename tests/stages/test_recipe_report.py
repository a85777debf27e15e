"""The report of a whole run takes over all that its evaluation measured."""

from pathlib import Path

from tutelage.configs import EvalConfig
from tutelage.recipe import Recipe
from tutelage.stages.evaluated import CARRIED
from tutelage.stages.recipe_run import _report


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
