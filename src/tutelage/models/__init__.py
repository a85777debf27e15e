"""Checkpoints by role: the policy, the reward model, the value model."""

from tutelage.models.checkpoint import export_model, load_policy, load_scalar, resolve, save_model
from tutelage.models.roles import Policy, ScalarModel

__all__ = ["Policy", "ScalarModel", "export_model", "load_policy", "load_scalar", "resolve", "save_model"]
