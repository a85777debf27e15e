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
from tutelage.engine.device import resolve_device
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
    """Sizes of what a stage holds. copies: whole sets of weights; trained: elements that an optimizer updates.

    w: bytes of a weight. optimizers: of how many models.
    """

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
    models = models_of(config, shape, compute_dtype(config.dtype, resolve_device(config.device)).itemsize)
    phases = phases_of(config, models, load)
    seconds = seconds_of(config, models, load, rates)
    return {
        "stage": config.verb,
        "model": str(path),
        "parameters": shape.parameters,
        "trained_parameters": models.trained * models.optimizers,
        "tokens_in_a_pass": load.work.tokens,
        "steps": load.steps,
        "phases": phases,
        "peak_bytes": max(phases.values()),
        "seconds": None if seconds is None else sum(seconds.values()),
        "guessed": load.guessed,
    }


def models_of(config: Planned, shape: Shape, w: int) -> Models:
    """What a stage holds, every model as large as the policy. w: bytes of a weight."""
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


def phases_of(config: Planned, models: Models, load: Load, shards: int = 1) -> dict[str, int]:
    """Peak bytes of each phase on one process, everything that is held counted in.

    shards: processes that each hold a slice of what is trained, its gradients and its optimizer (`--parallel fsdp`).
    """
    shape, w, work = models.shape, models.w, load.work
    whole = memory.weights(shape, w)
    apart = memory.PROGRAM + BYTES_A_TOKEN * load.data_tokens
    held = apart + models.copies * whole
    if isinstance(config, SampleConfig):
        return {"load": held, "sample": held + memory.sampling(shape, work, w) + memory.inference(shape, work, w)}
    moment = 2 if config.optimizer_state == "bfloat16" else 4
    mine = -(-models.trained // shards)
    state = models.optimizers * memory.optimizer(mine, w, moment)
    if isinstance(config, PPOConfig):
        state += 4 * mine  # averaged weights
    held += state
    gradients = memory.gradients(mine, w, work.micros)
    kept = 0 if work.micros == 1 else 4 * mine
    value = gradients if isinstance(config, PPOConfig) else 0  # the policy's wait for the value model's pass
    passes = memory.training_pass(shape, work, w, models.adapters, config.activation_checkpointing)
    phases = {"load": memory.PROGRAM + models.copies * whole}
    if work.rows:
        phases["sample"] = held + memory.sampling(shape, work, w)
        scored = Work(min(config.micro_tokens, work.rows * work.context), 0, 1)
        phases["score"] = held + memory.inference(shape, scored, w)
    largest = max(passes, gradients - kept + memory.update(shape, mine, w))
    updating = held
    if shards > 1:  # slices of the trained models, and what a pass puts together of one
        frozen = (models.copies - models.optimizers) * whole
        updating = apart + frozen + models.optimizers * w * mine + state + memory.gathered(shape, w)
    phases["update"] = updating + kept + value + largest
    copied = w * mine if isinstance(config, PPOConfig) else 0
    phases["save"] = held + copied + memory.checking(shape, w)
    return phases


def seconds_of(config: Planned, models: Models, load: Load, rates: Mapping[str, Any]) -> dict[str, float] | None:
    """Seconds of each phase of a whole stage; None where its number of steps is not known.

    Multiply-adds over the rate of matrix products: 6 P a trained token (4 P with adapters; 2 P more where activations
    are computed again), 2 P a scored one; and for sampling the bytes of the weights and of the keys and values over the
    rate of memory, or 2 P a token where that is more. rates: operations and bytes a second, and the share of the first
    that training reaches ("efficiency"; EFFICIENCY when not given).
    """
    if load.steps == 0:
        return None
    name, size = "bfloat16" if models.w == 2 else "float32", models.shape.parameters
    rate = rates["gemm_flops"][name] * rates.get("efficiency", EFFICIENCY)
    tokens = load.step_tokens * load.steps
    a_token = 4 * size if models.adapters else 6 * size
    if isinstance(config, TrainingConfig) and config.activation_checkpointing:
        a_token += 2 * size
    found: dict[str, float] = {}
    if load.work.rows:
        rounds = 1 if isinstance(config, RejectionConfig | SampleConfig) else load.steps
        found["sample"] = rounds * load.sampled_tokens / load.work.rows * decoding_step(config, models, load, rates)
    if isinstance(config, OnPolicy):
        found["score"] = (4 if isinstance(config, PPOConfig) else 3) * 2 * size * tokens / rate
    if not isinstance(config, SampleConfig):
        found["update"] = (2 if isinstance(config, PPOConfig) else 1) * a_token * tokens / rate
    return found


def decoding_step(config: Any, models: Models, load: Load, rates: Mapping[str, Any]) -> float:
    """Seconds of one token of each row: half of the new ones are there at the mean step."""
    name, work, size = "bfloat16" if models.w == 2 else "float32", load.work, models.shape.parameters
    rate = rates["gemm_flops"][name] * rates.get("efficiency", EFFICIENCY)
    filled = work.context - config.max_new_tokens / 2
    read = models.w * size + memory.cache(models.shape, work.rows, filled, models.w)
    return max(read / rates["memory_bytes_per_second"], 2 * size * work.rows / rate)
