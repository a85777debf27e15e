"""LoRA (Hu et al. 2022, 2106.09685) by `peft`: several adapters, one for each role, on one set of weights.

An adapter is written as a `peft` folder (adapter_config.json, adapter_model.safetensors) and names its base model.
"""

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import UserError

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."  # of every name in a `peft` file
HEAD = "score"  # a scalar model's head, kept beside its adapter


class Adapters:
    """The adapters of one body (a model without its head). One of them is active, or none: the plain weights."""

    def __init__(self, body: nn.Module, base: str):
        self.body, self.base = body, base
        self.configs: dict[str, Any] = {}
        self.active: str | None = None
        self.current = True  # whether the layers know what is active
        body.requires_grad_(False)

    def add(self, config: Any, like: str | None = None) -> str:
        """A new adapter, with the weights of the one called `like`, or fresh ones that change nothing; its name."""
        peft = import_peft()
        name = f"role{len(self.configs)}"
        self.configs[name] = config
        with warnings.catch_warnings():  # several adapters on one model are meant
            warnings.simplefilter("ignore", UserWarning)
            peft.inject_adapter_in_model(copy.deepcopy(config), self.body, adapter_name=name)
        self.body.requires_grad_(False)
        self.current = False
        if like is not None:
            self.load(name, {key: value.clone() for key, value in self.state(like).items()})
        return name

    def activate(self, name: str | None) -> None:
        """What the body computes from here on: its own weights, with this adapter or none. Only it is trainable."""
        if name == self.active and self.current:
            return
        self.active, self.current = name, True
        for layer in self._layers():
            if name is not None:
                layer.set_adapter(name)
            layer.enable_adapters(name is not None)

    def parameters(self, name: str) -> list[nn.Parameter]:
        return [p for key, p in self.body.named_parameters() if f".{name}." in key]

    @torch.no_grad()
    def state(self, name: str) -> dict[str, Tensor]:
        """Its weights under the names of the body's modules: layers.0.self_attn.q_proj.lora_A.weight."""
        named = self.body.named_parameters()
        return {key.replace(f".{name}.", "."): p.detach() for key, p in named if f".{name}." in key}

    @torch.no_grad()
    def load(self, name: str, state: Mapping[str, Tensor]) -> None:
        for key, parameter in self.body.named_parameters():
            if f".{name}." in key:
                parameter.copy_(state[key.replace(f".{name}.", ".")])

    def _layers(self) -> list[Any]:
        return [m for m in self.body.modules() if hasattr(m, "lora_A") and hasattr(m, "set_adapter")]


def import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UserError(
            "adapters need the package peft, which is not installed",
            where="option --adapters (adapters)",
            mend="pip install 'tutelage[adapters]'",
        ) from error
    # What peft asks of transformers is its own affair.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    return peft


def is_adapter(path: Path) -> bool:
    return (path / CONFIG).exists()


def base_of(path: Path) -> str:
    """The base model that an adapter's folder names."""
    try:
        about = json.loads((path / CONFIG).read_text())
    except ValueError as error:
        raise UserError(f"{CONFIG} is not JSON ({error})", where=str(path), mend="save the adapter again") from error
    base = about.get("base_model_name_or_path")
    if not base or not Path(base).expanduser().exists():
        what = f"its base model {base!r} is not there"
        raise UserError(what, where=str(path / CONFIG), mend="put the base's folder into base_model_name_or_path")
    return base


def read_adapter(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """The configuration and the weights of an adapter's folder, for training to go on; weights named as in `state`."""
    config, found = import_peft().LoraConfig.from_pretrained(path), _weights(path)
    odd = sorted({*(config.modules_to_save or [])} - {HEAD})
    if odd or config.use_dora or config.bias != "none":
        what = "has DoRA, trained biases or whole modules, with which training does not go on here"
        raise UserError(what, where=str(path), mend="merge it first: tutelage export")
    config.inference_mode = False
    return config, {key.removeprefix(PREFIX): value for key, value in found.items()}


def _weights(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        found = load_file(path / WEIGHTS)
    except Exception as error:
        raise UserError(f"{WEIGHTS} does not load ({error})", where=str(path), mend="save the adapter again") from error
    for name, value in found.items():
        if not torch.isfinite(value).all():
            raise UserError(
                f"weight {name} holds NaN or infinite values", where=str(path), mend="use a sound checkpoint"
            )
    return found


def new_config(body: nn.Module, options: Mapping[str, Any], where: str) -> Any:
    """peft's LoraConfig. options: r, lora_alpha and target_modules, names of linear layers; all of them when empty."""
    from transformers.pytorch_utils import Conv1D

    linear = {name.rpartition(".")[2] for name, m in body.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    unknown = [name for name in options["target_modules"] if name not in linear]
    if unknown:
        raise UserError(
            f"the model has no linear layers called {unknown[0]}",
            where="option --lora-target-modules (lora_target_modules)",
            mend=f"use some of: {', '.join(sorted(linear))}",
        )
    chosen = list(options["target_modules"]) or sorted(linear)
    transposed = any(isinstance(m, Conv1D) for m in body.modules())
    return import_peft().LoraConfig(
        r=options["r"],
        lora_alpha=options["lora_alpha"],
        target_modules=chosen,
        fan_in_fan_out=transposed,
        base_model_name_or_path=where,
    )


def write_adapter(folder: Path, adapters: Adapters, name: str, prefix: str, head: nn.Linear | None) -> None:
    """The adapter as `peft` reads it. prefix: the body's name in its model; head: a scalar head to keep beside it."""
    from safetensors.torch import save_file

    config = copy.deepcopy(adapters.configs[name])
    config.base_model_name_or_path = adapters.base
    config.task_type = "CAUSAL_LM" if head is None else "SEQ_CLS"
    config.modules_to_save = None if head is None else [HEAD]
    config.inference_mode = True
    config.save_pretrained(folder)
    state = {f"{PREFIX}{prefix}.{key}": value.cpu().contiguous() for key, value in adapters.state(name).items()}
    if head is not None:
        state[f"{PREFIX}{HEAD}.weight"] = head.weight.detach().cpu()
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def merged(model: Any, path: Path) -> Any:
    """The model with an adapter's folder added into its weights."""
    _weights(path)  # that they are sound
    try:
        return import_peft().PeftModel.from_pretrained(model, str(path)).merge_and_unload()
    except UserError:
        raise
    except Exception as error:
        what = f"the adapter does not load ({(str(error) or type(error).__name__).splitlines()[0]})"
        raise UserError(what, where=str(path), mend="check the folder and its base model") from error
