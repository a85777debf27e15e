"""The models of a training stage: each with weights of its own, or as adapters on shared ones (`--adapters`)."""

from pathlib import Path
from typing import Any

import torch

from tutelage.cluster import scorers
from tutelage.configs import GroupConfig, PPOConfig, TrainingConfig
from tutelage.data.batches import step_seed
from tutelage.errors import UserError
from tutelage.models import Policy, ScalarModel, is_step_model, load_policy, load_scalar, load_step_model
from tutelage.models.adapters import is_adapter
from tutelage.models.checkpoint import base_path_of, load_scalar_beside
from tutelage.models.roles import Lora
from tutelage.stages.rollout import Models


def lora_options(config: TrainingConfig) -> dict[str, Any] | None:
    """What the adapters of a run are made of; None for full fine-tuning."""
    if not config.adapters:
        return None
    torch.manual_seed(step_seed(config.seed, "adapters"))
    return {"r": config.lora_r, "lora_alpha": config.lora_alpha, "target_modules": config.lora_target_modules}


def trained_policy(config: TrainingConfig, path: Path | str) -> Policy:
    return load_policy(path, config.dtype, lora_options(config), device=config.device)


def on_policy_models(config: PPOConfig | GroupConfig, source: Path, reward_source: Path) -> Models:
    """Policy, frozen reference, reward model and (PPO) the value model that starts from it.

    With adapters the reference is the policy's weights with no adapter, or with the one that the policy starts from; the
    reward model shares them where it is an adapter of the same base, else it has its own, which serve the value model.
    Where workers of a cluster hold the frozen models, they are not loaded here.
    """
    critic = isinstance(config, PPOConfig)
    policy = trained_policy(config, source)
    if policy.lora is not None and is_step_model(reward_source):
        what = f"a process reward model ({reward_source}) cannot be on the policy's weights"
        raise UserError(what, where="option --adapters (adapters)", mend="leave it out")
    if (apart := scorers.current()) is not None:
        return Models(
            policy, None, None, _value_alone(config, policy, source, reward_source) if critic else None, apart
        )
    if policy.lora is None:
        reference = load_policy(source, config.dtype, device=config.device)
        if is_step_model(reward_source):  # its head has two labels: the value model begins as the policy
            value = load_scalar(source, config.dtype, trained=False, device=config.device) if critic else None
            return Models(policy, reference, load_step_model(reward_source, config.dtype, device=config.device), value)
        reward = load_scalar(reward_source, config.dtype, device=config.device)
        value = load_scalar(reward_source, config.dtype, device=config.device) if critic else None
        return Models(policy, reference, reward, value)
    start = policy.beside() if is_adapter(source) else Lora(policy.lora.adapters, None)
    reference = Policy(policy.model, policy.tokenizer, start)
    reward = _reward_beside(config, policy, source, reward_source)
    return Models(policy, reference, reward, _value_beside(reward, config) if critic else None)


def _reward_beside(config: TrainingConfig, policy: Policy, source: Path, reward_source: Path) -> ScalarModel:
    """The reward model on the policy's weights where it is an adapter of the same base, else on its own."""
    if is_adapter(reward_source) and base_path_of(reward_source) == base_path_of(source):
        return load_scalar_beside(policy, reward_source)
    return load_scalar(reward_source, config.dtype, device=config.device)


def _value_alone(config: TrainingConfig, policy: Policy, source: Path, reward_source: Path) -> ScalarModel:
    """The value model as `on_policy_models` has it, where no reward model stays beside it."""
    if policy.lora is not None:
        return _value_beside(_reward_beside(config, policy, source, reward_source), config)
    if is_step_model(reward_source):
        return load_scalar(source, config.dtype, trained=False, device=config.device)
    return load_scalar(reward_source, config.dtype, device=config.device)


def _value_beside(reward: ScalarModel, config: TrainingConfig) -> ScalarModel:
    """The value model on the reward model's weights: a copy of its adapter, or a fresh one on what has none."""
    if reward.lora is not None:
        return reward.second()
    value = reward.second()
    value.add_adapter(lora_options(config) or {})
    assert value.lora is not None
    reward.lora = Lora(value.lora.adapters, None)
    return value
