"""The registry names every metric once, says what it means, and knows a wrong name."""

import pytest

from tutelage.runs.metrics import METRICS, TRAINING, check_names, find, markdown_table

# TRL's names that dashboards know: SFTTrainer, RewardTrainer and PPOTrainer.
# fmt: off
TRL = [
    "loss", "learning_rate", "grad_norm", "num_tokens", "epoch", "entropy", "mean_token_accuracy", "accuracy",
    "margin", "min_reward", "mean_reward", "max_reward", "objective/kl", "objective/entropy",
    "objective/non_score_reward", "objective/rlhf_reward", "objective/scores", "policy/approxkl_avg",
    "policy/clipfrac_avg", "policy/entropy_avg", "loss/policy_avg", "loss/value_avg", "val/clipfrac_avg", "val/ratio",
    "val/ratio_var", "val/num_eos_tokens", "lr", "episode",
]
# fmt: on)


@pytest.mark.parametrize("name", TRL)
def test_names_of_trl_are_there(name):
    assert name in METRICS


@pytest.mark.parametrize("stage", TRAINING)
@pytest.mark.parametrize("name", ["step", "seconds", "num_tokens", "loss"])
def test_what_each_row_of_each_stage_has(stage, name):
    assert stage in METRICS[name].stages


def test_every_entry_says_what_it_is():
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.unit
        assert metric.formula
        assert set(metric.stages) <= set(TRAINING)
        assert metric.stages


def test_the_sign_of_the_penalty_is_stated():
    assert METRICS["objective/non_score_reward"].formula.startswith("−β · objective/kl")
    assert METRICS["objective/kl"].better == "down"


def test_known_names_pass_and_families_match():
    check_names({"step": 1, "objective/kl": 0.0, "eval/accuracy/brainstorming": 0.5})
    assert find("eval/accuracy/brainstorming").name == "eval/accuracy/*"
    assert find("eval/accuracy").name == "eval/accuracy"


@pytest.mark.parametrize(
    ("name", "near"), [("objective/KL", "objective/kl"), ("grad_nrm", "grad_norm"), ("zzz", None)]
)
def test_an_unknown_name_is_refused_with_the_near_one(name, near):
    with pytest.raises(ValueError, match=name) as caught:
        check_names({"step": 1, name: 0.0})
    assert (f"did you mean {near}?" in str(caught.value)) == (near is not None)


@pytest.mark.parametrize("stage", [None, *TRAINING])
def test_the_table_has_a_row_for_each_metric_and_the_same_columns_in_each(stage):
    lines = markdown_table(stage).splitlines()
    expected = [m.name for m in METRICS.values() if stage is None or stage in m.stages]
    assert [line.split("`")[1] for line in lines[2:]] == expected
    assert {line.replace("\\|", "").count("|") for line in lines} == {6}
