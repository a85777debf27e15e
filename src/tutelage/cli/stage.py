"""The verbs that run one stage: pretrain, sft, sample, label, reward, ppo, the dpo family, rloo …, eval."""

from typing import Any

from tutelage.cli.options import as_yaml, parse, show
from tutelage.configs import STAGES, TrainingConfig, to_mapping
from tutelage.recipe import stage_function
from tutelage.runs import check_out


def main(verb: str, arguments: list[str]) -> dict[str, Any] | None:
    config, dry_run = parse(STAGES[verb], verb, arguments)
    if dry_run:
        print(as_yaml(config), end="")
        return None
    if isinstance(config, TrainingConfig):
        check_out(config.out or f"runs/{verb}", stage=verb, config=to_mapping(config), resume=config.resume)
    result = stage_function(verb)(config)
    for key in ("checkpoint", "out", "agreement", "reward_model"):
        if result.get(key) is not None:
            show(f"{verb}: {key}: {result[key]}")
    if verb == "eval":
        for row in result["win_rates"]:
            low, high = row["ci95"]
            shown = f"{row['win_rate']:.3f} [{low:.3f}, {high:.3f}]"
            show(f"eval: {row['policy']} over {row['baseline']} by {row['judge']}: {shown}")
    return result
