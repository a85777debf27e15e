"""The registry names every metric once, says what it means, and knows a wrong name; the page is made from it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.configs import STAGES as CONFIGS
from tutelage.configs import TrainingConfig
from tutelage.runs.metrics import METRICS, check_names, markdown_table, registered

STAGES = sorted(verb for verb, cls in CONFIGS.items() if issubclass(cls, TrainingConfig))


def test_every_entry_says_what_it_is_once():
    seen = [(metric.name, stage) for metric in METRICS for stage in metric.stages]
    assert len(seen) == len(set(seen))
    for metric in METRICS:
        assert metric.unit and metric.formula and set(metric.stages) <= set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_what_each_row_of_each_stage_has(stage):
    assert {"step", "seconds", "num_tokens", "loss"} <= set(registered(stage))


def test_the_sign_of_the_penalty_is_stated():
    metrics = {metric.name: metric for metric in METRICS}
    assert metrics["objective/non_score_reward"].formula.startswith("−β · objective/kl")
    assert metrics["objective/kl"].better == "down"


@pytest.mark.parametrize(
    ("name", "near"), [("objective/KL", "objective/kl"), ("grad_nrm", "grad_norm"), ("epoch", None)]
)
def test_an_unknown_name_is_refused_with_the_near_one(name, near):
    check_names({"step": 1, "objective/kl": 0.0}, "ppo")
    with pytest.raises(ValueError, match=name) as caught:
        check_names({"step": 1, name: 0.0}, "ppo")
    assert ("did you mean" in str(caught.value)) == (near is not None)
    assert near is None or f"did you mean {near}?" in str(caught.value)


def test_the_table_has_a_row_for_each_metric_and_the_same_columns_in_each():
    lines = markdown_table().splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == [metric.name for metric in METRICS]
    assert {line.replace("\\|", "").count("|") for line in lines} == {6}


def test_the_page_is_the_generated_one():
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    made = subprocess.run([sys.executable, "-m", "tutelage.runs.metrics"], capture_output=True, text=True, check=True)
    assert page.read_text() == made.stdout, "python -m tutelage.runs.metrics > docs/metrics.md"
