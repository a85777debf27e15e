"""The function of each training verb, and which verbs share one loop. Torch-free until a function is asked for."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

from tutelage.configs import SampleConfig, StageConfig, TrainingConfig
from tutelage.processes import world_size
from tutelage.runs.rollback import going_on

FAMILY = ("dpo", "ipo", "kto", "orpo", "simpo")  # one loop: stages/preference.py
GROUP = ("rloo", "grpo", "online-dpo")  # one loop: stages/group_policy.py
# Where the module of a stage's function is not called like its verb.
MODULES = {"eval": "evaluate", **dict.fromkeys(FAMILY, "preference"), **dict.fromkeys(GROUP, "group_policy")}
MODULES |= {"cai-label": "cai_label", "step-label": "step_label"}


def is_divided(config: StageConfig) -> bool:
    """Whether several processes share a stage's work; the others are done by the main one, for which all wait."""
    return isinstance(config, TrainingConfig) or (isinstance(config, SampleConfig) and config.draws_itself)


def stage_function(verb: str) -> Callable[[Any], dict[str, Any]]:
    """The function that runs a stage, rollbacks included; torch is loaded here and not before."""
    run = import_module(f"tutelage.stages.{MODULES.get(verb, verb)}").run

    def work(config: Any) -> dict[str, Any]:
        return going_on(run, config, lambda broken: replace(broken, resume=True))

    def function(config: Any) -> dict[str, Any]:
        if world_size() == 1 or is_divided(config):
            return work(config)
        from tutelage.engine.distributed import from_main

        return from_main(lambda: work(config))

    return function
