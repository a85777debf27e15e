"""Memory and time of a stage or a recipe before any model is loaded: `tutelage plan`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.configs import (
    GroupConfig,
    PPOConfig,
    RejectionConfig,
    SampleConfig,
    StageConfig,
    TrainingConfig,
)
from tutelage.models.adapters import is_adapter
from tutelage.models.checkpoint import base_path_of, compute_dtype, load_tokenizer, resolve
from tutelage.planning import memory
from tutelage.planning.memory import Work
from tutelage.planning.shape import Shape, read_shape
from tutelage.planning.work import Load, load_of

EFFICIENCY = 0.6  # of the measured rate of matrix products, in training
BYTES_A_TOKEN = 48  # a Python list's place, its number, and the mask
OnPolicy = PPOConfig | GroupConfig
Planned = TrainingConfig | SampleConfig


@dataclass(frozen=True)
class Models:
    """Sizes of what a stage holds. copies: whole sets of weights; trained: elements that an optimizer updates."""

    shape: Shape
    copies: int
    trained: int
    optimizers: int
    w: int
    adapters: bool


def plan_stage(config: StageConfig, rates: Mapping[str, Any], instead: str | None = None) -> dict[str, Any] | None:
    """Phases with their peak, the peak of all, and the time. None for a stage that runs no model of its own.

    instead: the model to measure where the stage's own does not exist yet.
    """
    if not isinstance(config, TrainingConfig | SampleConfig):
        return None
    named = config.model if instead is None or Path(config.model).expanduser().exists() else instead
    path = resolve(named)
    shape, load = read_shape(base_path_of(path)), load_of(config, load_tokenizer(path))
    models = _models(config, shape)
    phases = _phases(config, models, load)
    seconds = _seconds(config, models, load, rates)
    return {
        "stage": config.verb,
        "model": str(path),
        "parameters": shape.parameters,
        "trained_parameters": models.trained * models.optimizers,
        "tokens_in_a_pass": load.work.tokens,
        "steps": load.steps,
        "phases": phases,
        "peak_bytes": max(phases.values()),
        "seconds": seconds,
        "guessed": load.guessed,
    }


def _models(config: Planned, shape: Shape) -> Models:
    w = compute_dtype(config.dtype).itemsize
    if isinstance(config, SampleConfig):
        return Models(shape, 1, 0, 0, w, False)
    critic = isinstance(config, PPOConfig)
    trained, copies = shape.parameters, 1
    if config.adapters:
        trained = shape.adapter(config.lora_r, config.lora_target_modules)
    if isinstance(config, OnPolicy):
        copies = 4 if critic else 3
    if isinstance(config, RejectionConfig):
        copies = 2
    if config.adapters and isinstance(config, OnPolicy):
        copies = 1 if _shares(config) else 2
    return Models(shape, copies, trained, 2 if critic else 1, w, config.adapters)


def _shares(config: OnPolicy) -> bool:
    """Whether the reward model is an adapter of the policy's base (as on_policy_models decides)."""
    if config.reward_model is None or not Path(config.reward_model).expanduser().exists():
        return True  # made by an earlier stage of the same recipe
    reward = resolve(config.reward_model)
    if not Path(config.model).expanduser().exists():
        return is_adapter(reward)
    return is_adapter(reward) and base_path_of(reward) == base_path_of(resolve(config.model))


def _phases(config: Planned, models: Models, load: Load) -> dict[str, int]:
    """Peak bytes of each phase, everything that is held counted in."""
    shape, w, work = models.shape, models.w, load.work
    whole = memory.weights(shape, w)
    held = memory.PROGRAM + models.copies * whole + BYTES_A_TOKEN * load.data_tokens
    if isinstance(config, SampleConfig):
        return {"load": held, "sample": held + memory.sampling(shape, work, w) + memory.inference(shape, work, w)}
    moment = 2 if config.optimizer_state == "bfloat16" else 4
    held += models.optimizers * memory.optimizer(models.trained, w, moment)
    if isinstance(config, PPOConfig):
        held += 4 * models.trained  # averaged weights
    gradients = memory.gradients(models.trained, w, work.micros)
    kept = 0 if work.micros == 1 else 4 * models.trained
    value = gradients if isinstance(config, PPOConfig) else 0  # the policy's wait for the value model's pass
    passes = memory.training_pass(shape, work, w, models.adapters)
    phases = {"load": memory.PROGRAM + models.copies * whole}
    if work.rows:
        phases["sample"] = held + memory.sampling(shape, work, w)
        scored = Work(min(config.micro_tokens, work.rows * work.context), 0, 1)
        phases["score"] = held + memory.inference(shape, scored, w)
    largest = max(passes, gradients - kept + memory.update(shape, models.trained, w))
    phases["update"] = held + kept + value + largest
    copied = w * models.trained if isinstance(config, PPOConfig) else 0
    phases["save"] = held + copied + memory.checking(shape, w)
    return phases


def _seconds(config: Planned, models: Models, load: Load, rates: Mapping[str, Any]) -> float | None:
    """Multiply-adds over the rate of matrix products: 6 P a trained token (4 P with adapters), 2 P a scored one; and
    for sampling the weights' bytes over the rate of memory, or 2 P a token where that is more."""
    if load.steps == 0:
        return None
    name = "bfloat16" if models.w == 2 else "float32"
    rate, size = rates["gemm_flops"][name] * EFFICIENCY, models.shape.parameters
    a_token = 4 * size if models.adapters else 6 * size
    seconds = a_token * load.step_tokens * load.steps / rate
    if isinstance(config, RejectionConfig | SampleConfig):
        rounds = 1
    else:
        rounds = load.steps
    if isinstance(config, OnPolicy):
        forward = 4 if isinstance(config, PPOConfig) else 3
        seconds += forward * 2 * size * load.step_tokens * load.steps / rate
        seconds += (a_token * load.step_tokens * load.steps / rate) if isinstance(config, PPOConfig) else 0
    if load.work.rows:
        steps = load.sampled_tokens / load.work.rows
        one = max(models.w * size / rates["memory_bytes_per_second"], 2 * size * load.work.rows / rate)
        seconds += rounds * steps * one
    return seconds
