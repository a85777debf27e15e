"""Dropout on the residual branches, for architectures whose own configuration has none."""

from inspect import signature
from typing import Any

from torch import nn
from torch.nn.functional import dropout


def residual_dropout(model: nn.Module, probability: float) -> None:
    """Drop elements of each layer's attention and feed-forward output while training (paper: 0.2 in SFT)."""
    if probability == 0:
        return
    for name, module in model.named_modules():
        if hasattr(module, "hidden_dropout") and "residual" in signature(module.forward).parameters:
            module.hidden_dropout = probability  # it adds its branch to the residual stream itself (BLOOM, MPT)
        elif name.endswith((".self_attn", ".mlp", ".attn", ".self_attention")):
            module.register_forward_hook(_drop(probability))


def _drop(probability: float) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (dropout(output[0], probability, module.training), *output[1:])
        return dropout(output, probability, module.training)

    return hook
