"""The verbs that run one stage: pretrain, sft, sample, label, reward, ppo, eval."""

from typing import Any

import yaml

from tutelage.cli.options import parse, show
from tutelage.configs import STAGES, TrainingConfig, to_mapping
from tutelage.recipe import stage_function


def main(verb: str, arguments: list[str]) -> dict[str, Any] | None:
    config = parse(STAGES[verb], verb, arguments)
    if isinstance(config, TrainingConfig) and config.dry_run:
        print(yaml.safe_dump(to_mapping(config), sort_keys=False), end="")
        return None
    result = stage_function(verb)(config)
    for key in ("checkpoint", "out", "agreement", "reward_model"):
        if result.get(key) is not None:
            show(f"{verb}: {key}: {result[key]}")
    if verb == "eval":
        for row in result["win_rates"]:
            show(
                f"eval: {row['policy']} over {row['baseline']} by {row['judge']}: {row['win_rate']:.3f} [{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]"
            )
    return result
