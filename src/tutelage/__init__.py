"""Tutelage turns a language model into an assistant with human feedback: the InstructGPT loop, whole.

Every stage is a function: `tutelage.sft(SFTConfig(...))`. Names are loaded on first use, so that
importing the package (and `tutelage --help`) never imports torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "pretrain": "tutelage.stages.pretrain:run",
    "sft": "tutelage.stages.sft:run",
    "reward": "tutelage.stages.reward:run",
    "ppo": "tutelage.stages.ppo:run",
    **dict.fromkeys(("dpo", "ipo", "kto", "orpo", "simpo"), "tutelage.stages.preference:run"),
    **dict.fromkeys(("rloo", "grpo", "online_dpo"), "tutelage.stages.group_policy:run"),
    "rejection": "tutelage.stages.rejection:run",
    "cai": "tutelage.stages.cai:run",
    "cai_label": "tutelage.stages.cai_label:run",
    "step_label": "tutelage.stages.step_label:run",
    "prm": "tutelage.stages.prm:run",
    "score": "tutelage.stages.score:run",
    "rerank": "tutelage.stages.rerank:run",
    "sample": "tutelage.stages.sample:run",
    "label": "tutelage.stages.label:run",
    "evaluate": "tutelage.stages.evaluate:run",
    "PretrainConfig": "tutelage.configs:PretrainConfig",
    "SFTConfig": "tutelage.configs:SFTConfig",
    "RewardConfig": "tutelage.configs:RewardConfig",
    "PPOConfig": "tutelage.configs:PPOConfig",
    **{f"{name}Config": f"tutelage.configs:{name}Config" for name in ("DPO", "IPO", "KTO", "ORPO", "SimPO")},
    **{f"{name}Config": f"tutelage.configs:{name}Config" for name in ("RLOO", "GRPO", "OnlineDPO", "Rejection")},
    "CAIConfig": "tutelage.configs:CAIConfig",
    "CAILabelConfig": "tutelage.configs:CAILabelConfig",
    "StepLabelConfig": "tutelage.configs:StepLabelConfig",
    "PRMConfig": "tutelage.configs:PRMConfig",
    "ScoreConfig": "tutelage.configs:ScoreConfig",
    "RerankConfig": "tutelage.configs:RerankConfig",
    "SampleConfig": "tutelage.configs:SampleConfig",
    "LabelConfig": "tutelage.configs:LabelConfig",
    "EvalConfig": "tutelage.configs:EvalConfig",
    "UserError": "tutelage.errors:UserError",
}
__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'tutelage' has no attribute {name!r}")
    module, attribute = _EXPORTS[name].split(":")
    return getattr(import_module(module), attribute)
