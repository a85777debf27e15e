"""Every recipe is parsed by the classes it names; names of stages become paths."""

from pathlib import Path

import pytest

from tutelage.configs import STAGES, PPOConfig, SFTConfig, from_mapping
from tutelage.configs.base import StageConfig, TrainingConfig
from tutelage.errors import UserError
from tutelage.recipe import load_recipe, skips

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))
ROUNDS = [path for path in RECIPES if path.stem.endswith("-round")]  # what a round of people's labels trains


OWN_ROAD = ("constitutional", "process")  # recipes whose policies do not come from people's comparisons
BESIDE = ("more-approaches",)  # without PPO


@pytest.mark.parametrize("path", ROUNDS, ids=lambda p: p.name)
def test_a_rounds_recipe_trains_on_the_rounds_answers(path, tmp_path):
    recipe = load_recipe(path, data="labels", model="some/policy", out=str(tmp_path))
    configs = {stage: config for stage, _, config in recipe.stages}
    assert not skips(recipe) & configs.keys()
    assert configs["reward"].data == "labels" and configs["reward"].model == "some/policy"
    if "ppo" in configs:
        assert configs["ppo"].model == "some/policy" and configs["ppo"].reward_model == str(tmp_path / "reward")


@pytest.mark.parametrize(
    "path", [p for p in RECIPES if p not in ROUNDS and p.stem not in (*OWN_ROAD, *BESIDE)], ids=lambda p: p.name
)
def test_recipe_resolves(path, tmp_path):
    recipe = load_recipe(path, out=str(tmp_path))
    configs = {stage: config for stage, _, config in recipe.stages}
    assert configs["ppo"].model == str(tmp_path / "sft") and configs["ppo"].reward_model == str(tmp_path / "reward")
    assert configs["reward"].data == str(tmp_path / "label" / "comparisons.jsonl")
    assert configs["sample"].split == "train"  # the report asks others
    assert configs["eval"].models[0] == "base=world" and f"ppo={tmp_path / 'ppo'}" in configs["eval"].models


def test_own_comparisons_leave_sampling_and_labeling_out(tmp_path):
    recipe = load_recipe(RECIPES[0], data="pairs.jsonl", model="some/model", out=str(tmp_path))
    configs = {stage: config for stage, _, config in recipe.stages}
    assert (
        skips(recipe) == {"sample", "label"}
        and configs["reward"].data == "pairs.jsonl"
        and configs["sft"].model == "some/model"
    )


def test_the_methods_beside_ppo_start_from_sft_on_the_same_labels(tmp_path):
    recipe = load_recipe(RECIPES[0].parent / "approaches.yaml", out=str(tmp_path))
    configs = {stage: config for stage, _, config in recipe.stages}
    for stage in ("dpo", "kto"):
        assert configs[stage].data == str(tmp_path / "label" / "comparisons.jsonl")
    for stage in ("ppo", "rloo", "grpo", "rejection"):
        assert configs[stage].reward_model == str(tmp_path / "reward") and configs[stage].data == "world"
    for stage in ("dpo", "kto", "rloo", "grpo", "rejection"):
        assert configs[stage].model == str(tmp_path / "sft")
        assert f"{stage}={tmp_path / stage}" in configs["eval"].models


def test_the_methods_that_approaches_leaves_out_have_its_start_and_labels(tmp_path):
    recipe, other = (
        load_recipe(RECIPES[0].parent / f"{n}.yaml", out=str(tmp_path)) for n in ("more-approaches", "approaches")
    )
    configs = {stage: config for stage, _, config in recipe.stages}
    theirs = {stage: config for stage, _, config in other.stages}
    for stage in ("sft", "sample", "label", "reward"):
        assert configs[stage] == theirs[stage]
    assert configs["orpo"].model == "world" and configs["simpo"].model == str(
        tmp_path / "sft"
    )  # ORPO takes SFT's place
    for stage in ("orpo", "simpo"):
        assert configs[stage].data == str(tmp_path / "label" / "comparisons.jsonl")
    online = configs["online-dpo"]
    assert (online.model, online.reward_model) == (str(tmp_path / "sft"), str(tmp_path / "reward"))
    episodes = [one.max_steps * one.batch_size for one in (online, theirs["rloo"], theirs["ppo"])]
    assert episodes == [9216] * 3
    assert {f"{s}={tmp_path / s}" for s in ("sft", "orpo", "simpo", "online-dpo")} <= {*configs["eval"].models}


def test_every_method_stands_in_a_recipe():
    used = {verb for path in RECIPES for _, verb, _ in load_recipe(path).stages}
    assert STAGES.keys() - used == {"pretrain", "score"}  # the base is shipped; score is for files of one's own


def test_constitutional_keeps_harm_from_the_policy(tmp_path):
    recipe = load_recipe(RECIPES[0].parent / "constitutional.yaml", out=str(tmp_path))
    configs = {stage: config for stage, _, config in recipe.stages}
    assert configs["sft"].data == configs["cai"].helpful_data == configs["helpful-pairs"].data == "world:helpful"
    assert configs["cai"].model == "world" and configs["cai"].policy == str(tmp_path / "sft")
    labels = configs["ai-label"]
    assert labels.critic == configs["cai"].critic == str(tmp_path / "critic")
    assert labels.mix == str(tmp_path / "human-label" / "comparisons.jsonl")
    assert labels.human == str(tmp_path / "audit" / "comparisons.jsonl")  # for the agreement; the reward model reads:
    assert configs["reward"].data == str(tmp_path / "ai-label" / "comparisons.jsonl")
    assert configs["rl-cai"].model == str(tmp_path / "cai") and configs["rl-cai"].reward_model == str(
        tmp_path / "reward"
    )


def test_process_rewards_come_from_the_same_solutions(tmp_path):
    recipe = load_recipe(RECIPES[0].parent / "process.yaml", out=str(tmp_path))
    configs = {stage: config for stage, _, config in recipe.stages}
    assert configs["prm"].data == configs["orm"].data == str(tmp_path / "step-label" / "steps.jsonl")
    assert configs["rerank"].prm == str(tmp_path / "prm") and configs["rerank"].orm == str(tmp_path / "orm")
    assert configs["prm-ppo"].reward_model == str(tmp_path / "prm") and configs["orm-ppo"].kl_coef == 0.03


def test_the_papers_numbers_are_the_defaults():
    sft, ppo = SFTConfig(), PPOConfig()
    assert (sft.learning_rate, sft.batch_size, sft.epochs, sft.dropout, sft.final_fraction) == (
        9.65e-6,
        32,
        16,
        0.0,  # a departure: see stages/sft.py
        0.1,
    )
    assert (ppo.batch_size, ppo.minibatch_size, ppo.inner_epochs, ppo.kl_coef, ppo.clip, ppo.ema, ppo.warmup_steps) == (
        512,
        64,
        1,
        0.02,
        0.2,
        0.992,
        10,
    )
    assert ppo.batch_size * (ppo.max_steps or 0) == 256_000 and ppo.temperature == 1.0


def test_unknown_keys_and_wrong_types_are_errors():
    with pytest.raises(UserError, match="did you mean learning_rate"):
        from_mapping(SFTConfig, {"lerning_rate": 1}, where="x.yaml")
    with pytest.raises(UserError, match="epochs"):
        from_mapping(SFTConfig, {"epochs": "many"}, where="x.yaml")
    assert from_mapping(SFTConfig, {"learning-rate": "1e-4"}, where="x").learning_rate == 1e-4


def test_no_stage_has_more_than_25_options_of_its_own():
    shared = set(TrainingConfig.__dataclass_fields__) | set(StageConfig.__dataclass_fields__)
    assert all(len(set(cls.__dataclass_fields__) - shared) <= 25 for cls in STAGES.values())
