"""Every training loop with --adapters on a nano model: one set of weights, resuming, merging."""

import json

import pytest
import torch

from resumed import resumes_with_the_same_numbers, rows
from tutelage.configs import DPOConfig, PPOConfig, RewardConfig, RLOOConfig, SFTConfig
from tutelage.errors import UserError
from tutelage.models import load_policy
from tutelage.stages import group_policy, loading, ppo, preference, reward, sft

pytest.importorskip("peft", reason="adapters need peft: pip install -e '.[adapters]'")
COMMON = {
    "adapters": True, "lora_r": 4, "lora_alpha": 8, "seed": 3, "max_length": 96, "dtype": "float32",
    "learning_rate": 1e-2, "save_every": 2,
}  # fmt: skip
ONLINE = {
    "batch_size": 8, "minibatch_size": 4, "max_new_tokens": 6, "eval_every": 4, "eval_prompts": 4, "force": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    lines = [{"prompt": f"Say {i}", "chosen": f"It is {i}.", "rejected": "No."} for i in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return path


@pytest.fixture(scope="module")
def trained(nano, pairs, tmp_path_factory, little_text):
    out = tmp_path_factory.mktemp("runs")
    sft.run(SFTConfig(model=str(nano), out=str(out / "sft"), max_steps=3, demonstrations=40, **COMMON))
    options = {"data": str(pairs), "max_steps": 3, "batch_size": 4, **COMMON}
    reward.run(RewardConfig(model=str(nano), out=str(out / "reward"), **options))
    return out


def test_what_is_saved_is_the_adapter_alone(trained, nano):
    for name, role in (("sft", "policy"), ("reward", "reward")):
        folder = trained / name / "checkpoints/latest"
        assert (folder / "adapter_model.safetensors").exists() and not list(folder.glob("model*.safetensors"))
        assert json.loads((folder / "tutelage.json").read_text())["role"] == role
    assert rows(trained / "sft")[-1]["loss"] < rows(trained / "sft")[0]["loss"]


@pytest.mark.parametrize("sft_first", [True, False])
def test_ppo_has_four_models_on_one_body(trained, nano, tmp_path, sft_first):
    """From the plain base the reference is the adapter off; from an adapter it is its frozen copy."""
    source, out = (str(trained / "sft") if sft_first else str(nano)), tmp_path / "ppo"
    config = PPOConfig(
        model=source, reward_model=str(trained / "reward"), out=str(out), max_steps=2, **ONLINE, **COMMON
    )
    models = loading.on_policy_models(config, *(ppo.resolve(x) for x in (source, config.reward_model)))
    four = (models.policy, models.reference, models.reward, models.value)
    assert len({id(m.model.base_model) for m in four}) == 1
    assert len({m.lora.name for m in four}) == 4
    ppo.run(config)
    first, last = rows(out)
    assert abs(first["objective/kl"]) < 1e-4 and last["objective/kl"] != 0
    start, end = (load_policy(x, "float32") for x in (source, out))
    assert any(not torch.equal(a, b) for a, b in zip(start.model.parameters(), end.model.parameters(), strict=True))


def test_a_whole_reward_model_serves_the_value_model_too(nano, pairs, tmp_path):
    options = {**COMMON, "adapters": False, "lora_r": 16, "lora_alpha": 32}
    out = tmp_path / "reward"
    reward.run(RewardConfig(model=str(nano), out=str(out), data=str(pairs), max_steps=2, batch_size=4, **options))
    config = PPOConfig(
        model=str(nano), reward_model=str(out), out=str(tmp_path / "ppo"), max_steps=1, **ONLINE, **COMMON
    )
    models = loading.on_policy_models(config, nano, ppo.resolve(str(out)))
    assert models.reward.model.base_model is models.value.model.base_model is not models.policy.model.base_model
    assert models.reward.lora.name is None and models.value.lora.name
    ppo.run(config)


def test_dpo_resumes_with_the_same_numbers(trained, pairs, tmp_path, monkeypatch):
    def make(out, **more):
        shared = {"max_steps": 4, "batch_size": 4, "eval_every": 2}
        return DPOConfig(model=str(trained / "sft"), data=str(pairs), out=str(out), **shared, **more, **COMMON)

    resumes_with_the_same_numbers(monkeypatch, preference.run, make, tmp_path)
    first = rows(tmp_path / "whole")[0]
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3)  # policy and reference start equal


def test_ppo_and_rloo_resume_with_the_same_numbers(trained, nano, tmp_path, monkeypatch):
    def make(cls):
        shared = {"model": str(nano), "reward_model": str(trained / "reward"), "max_steps": 4, **ONLINE, **COMMON}
        return lambda out, **more: cls(out=str(out), **shared, **more)

    resumes_with_the_same_numbers(monkeypatch, ppo.run, make(PPOConfig), tmp_path / "ppo")
    resumes_with_the_same_numbers(monkeypatch, group_policy.run, make(RLOOConfig), tmp_path / "rloo")


def test_an_option_of_adapters_needs_adapters(nano):
    with pytest.raises(UserError, match=r"--lora-r.*\n.*--adapters"):
        SFTConfig(model=str(nano), lora_r=8)
