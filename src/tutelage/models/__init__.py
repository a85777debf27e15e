"""Checkpoints by role: the policy, the reward model, the value model, the process reward model."""

from tutelage.models.checkpoint import (
    export_model,
    is_step_model,
    load_policy,
    load_scalar,
    load_step_model,
    resolve,
    save_model,
)
from tutelage.models.roles import Policy, ScalarModel, StepModel

__all__ = [
    "Policy",
    "ScalarModel",
    "StepModel",
    "export_model",
    "is_step_model",
    "load_policy",
    "load_scalar",
    "load_step_model",
    "resolve",
    "save_model",
]
