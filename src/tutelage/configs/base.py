"""The options that every stage shares, and the strict way from YAML to a config and back."""

import math
import re
from dataclasses import asdict, dataclass, fields
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tutelage.errors import UserError, did_you_mean

Dtype = Literal["auto", "float32", "bfloat16"]
C = TypeVar("C")


@dataclass(kw_only=True, frozen=True)
class StageConfig:
    """Options of every verb."""

    verb: ClassVar[str]

    data: str = "world"
    """`world`, or a file or folder of records, pairs or prompts (JSON Lines, .gz, parquet)."""
    out: str | None = None
    """The folder (or file) to write; `runs/VERB` when not given."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """Where models compute: cpu, cuda (each process on the GPU of its number), cuda:N, or auto: a GPU if there is one."""
    json: bool = False
    """Print one JSON object last."""
    dry_run: bool = False
    """Print the resolved configuration, as --config reads it, and stop."""

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise a UserError for a value that cannot work."""
        require_device(self.device)
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise invalid(f.name, value, "give a finite number")


@dataclass(kw_only=True, frozen=True)
class ModelConfig(StageConfig):
    """Options of every verb that runs models."""

    max_length: int = 1024
    """Longest sequence in tokens, prompt and answer together."""
    dtype: Dtype = "auto"
    """Compute type; `auto` is bfloat16 where the GPU or processor has it (weights stay float32 in the optimizer)."""

    def check(self) -> None:
        super().check()
        require_positive(self, "max_length")


@dataclass(kw_only=True, frozen=True)
class TrainingConfig(ModelConfig):
    """Options of every verb that trains."""

    model: str = "world"
    """A Hugging Face folder, or `world` for the embedded world's base model."""
    max_steps: int | None = None
    """Stop after this many steps (optimizer updates; iterations in PPO)."""
    batch_size: int = 32
    """Examples a step."""
    learning_rate: float = 1e-5
    """Peak learning rate of Adam (beta1 .9, beta2 .95)."""
    micro_tokens: int = 8192
    """Most tokens in one forward pass; a batch is cut into as many as it needs, with equal results."""
    parallel: Literal["data", "fsdp"] = "data"
    """On several processes: the whole model on each (data), or slices of it (fsdp)."""
    activation_checkpointing: bool = False
    """Compute each layer's activations again in the backward pass: less memory, a third more work."""
    max_grad_norm: float | None = 1.0
    """Clip the gradient's norm; not in the paper."""
    optimizer_state: Literal["float32", "bfloat16"] = "float32"
    """Type of Adam's two moments; bfloat16 halves their memory (the master weights stay float32)."""
    save_every: int = 50
    """Steps between checkpoints."""
    rollbacks: int = 2
    """How often a run whose numbers break (NaN, or a spike) goes back to its last checkpoint and past that batch."""
    spike: float | None = None
    """Take loss or KL this many median deviations above their median for broken; when not given, only NaN is."""
    stall_seconds: float = 1800.0
    """End a process that made no progress for so long, with its rank, phase and stack."""
    resume: bool = False
    """Go on where the run in `out` was stopped."""
    adapters: bool = False
    """Train LoRA adapters; the weights stay as they are and serve every model of the run that starts from them."""
    lora_r: int = 16
    """Rank of the adapters' matrices."""
    lora_alpha: int = 32
    """An adapter's product is multiplied by lora_alpha / lora_r."""
    lora_target_modules: tuple[str, ...] = ()
    """Names of the linear layers that get an adapter (q_proj v_proj, say); all of them but the heads when not given."""

    def check(self) -> None:
        super().check()
        require_positive(self, "batch_size", "learning_rate", "micro_tokens", "save_every")
        if self.max_steps is not None:
            require_positive(self, "max_steps")
        require_positive(self, "stall_seconds", "lora_r", "lora_alpha")
        require_not_negative(self, "rollbacks")
        for name in ("max_grad_norm", "spike"):
            if getattr(self, name) is not None:
                require_positive(self, name)
        for name in ("lora_r", "lora_alpha", "lora_target_modules"):
            if not self.adapters and getattr(self, name) != getattr(TrainingConfig, name):
                raise invalid(name, getattr(self, name), "give --adapters too: without adapters nothing reads it")
        if self.adapters and self.parallel == "fsdp":
            raise invalid("parallel", self.parallel, "adapters are small: leave it at data")


def option(name: str) -> str:
    return "--" + name.replace("_", "-")


def invalid(name: str, value: Any, mend: str) -> UserError:
    return UserError(f"{value!r} cannot be used", where=f"option {option(name)} ({name})", mend=mend)


def require_device(name: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise invalid("device", name, "use one of: auto, cpu, cuda, cuda:0 and so on")


def require_positive(config: StageConfig, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise invalid(name, getattr(config, name), "give a number above zero")


def require_share(config: StageConfig, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise invalid(name, getattr(config, name), "give a number from 0 to 1")


def require_not_negative(config: StageConfig, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 0:
            raise invalid(name, getattr(config, name), "give zero or a number above it")


def to_mapping(config: StageConfig) -> dict[str, Any]:
    """Every effective value, ready for YAML."""
    return asdict(config)


def from_mapping(cls: type[C], values: dict[str, Any], *, where: str) -> C:
    """A config from a YAML mapping; unknown keys and wrong types are errors that name the key."""
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]  # a dataclass
    resolved: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UserError(
                f"unknown key {key!r}{did_you_mean(name, known)}",
                where=where,
                mend=f"use one of: {', '.join(known)}",
            )
        resolved[name] = _coerce(value, hints[name], where=f"{where}, key {key}")
    return cls(**resolved)


def _coerce(value: Any, hint: Any, *, where: str) -> Any:
    """Accept what YAML writes for the type (an int for a float, '1e-5' for a float); refuse the rest."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in options:
            return None
        return _coerce(value, next(o for o in options if o is not NoneType), where=where)
    if origin is Literal:
        if value not in options:
            near = did_you_mean(str(value), [str(o) for o in options])
            raise UserError(
                f"{value!r} is not known{near}", where=where, mend=f"use one of: {', '.join(map(str, options))}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{value!r} is not a list", where=where, mend="write [a, b, …]")
        return tuple(_coerce(item, options[0], where=where) for item in value)
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise UserError(f"{value!r} is not of type {hint.__name__}", where=where, mend=f"give a {hint.__name__}")
