"""What every stage can be told: typed, torch-free, with the paper's values as defaults.

A recipe or a command line holds only departures from these. Source of the numbers: Ouyang et al.
2022 (arXiv 2203.02155), appendices C and E; where that paper is silent, Ziegler et al. 2019
(1909.08593) and Stiennon et al. 2020 (2009.01325), named at the field.
"""

from tutelage.configs.base import StageConfig, TrainingConfig, from_mapping, to_mapping
from tutelage.configs.constitutional import CAIConfig, CAILabelConfig
from tutelage.configs.group_policy import GroupConfig, GRPOConfig, OnlineDPOConfig, RejectionConfig, RLOOConfig
from tutelage.configs.measure import EvalConfig, LabelConfig, SampleConfig
from tutelage.configs.on_policy import PPOConfig
from tutelage.configs.preference import DPOConfig, IPOConfig, KTOConfig, ORPOConfig, PreferenceConfig, SimPOConfig
from tutelage.configs.process import PRMConfig, RerankConfig, ScoreConfig, StepLabelConfig
from tutelage.configs.supervised import PretrainConfig, RewardConfig, SFTConfig

STAGES: dict[str, type[StageConfig]] = {
    "pretrain": PretrainConfig,
    "sft": SFTConfig,
    "sample": SampleConfig,
    "label": LabelConfig,
    "reward": RewardConfig,
    "ppo": PPOConfig,
    "dpo": DPOConfig,
    "ipo": IPOConfig,
    "kto": KTOConfig,
    "orpo": ORPOConfig,
    "simpo": SimPOConfig,
    "rloo": RLOOConfig,
    "grpo": GRPOConfig,
    "online-dpo": OnlineDPOConfig,
    "rejection": RejectionConfig,
    "cai": CAIConfig,
    "cai-label": CAILabelConfig,
    "step-label": StepLabelConfig,
    "prm": PRMConfig,
    "score": ScoreConfig,
    "rerank": RerankConfig,
    "eval": EvalConfig,
}
__all__ = [
    "STAGES",
    "CAIConfig",
    "CAILabelConfig",
    "DPOConfig",
    "EvalConfig",
    "GRPOConfig",
    "GroupConfig",
    "IPOConfig",
    "KTOConfig",
    "LabelConfig",
    "ORPOConfig",
    "OnlineDPOConfig",
    "PPOConfig",
    "PRMConfig",
    "PreferenceConfig",
    "PretrainConfig",
    "RLOOConfig",
    "RejectionConfig",
    "RerankConfig",
    "RewardConfig",
    "SFTConfig",
    "SampleConfig",
    "ScoreConfig",
    "SimPOConfig",
    "StageConfig",
    "StepLabelConfig",
    "TrainingConfig",
    "from_mapping",
    "to_mapping",
]
