"""What must hold before a policy is optimized against a reward model."""

import json
import sys
from pathlib import Path

from tutelage.configs import GroupConfig, PPOConfig, RejectionConfig
from tutelage.errors import UserError
from tutelage.models import resolve


def gated_reward_model(config: PPOConfig | GroupConfig | RejectionConfig) -> Path:
    """The reward model's folder; refuses one that is no better than length or chance, unless forced."""
    if config.reward_model is None:
        raise UserError(
            f"{config.verb} needs a reward model",
            where="option --reward-model (reward_model)",
            mend="give a checkpoint of `tutelage reward`",
        )
    path = resolve(config.reward_model)
    about = path / "tutelage.json"
    gate = json.loads(about.read_text()).get("card", {}).get("gate", "unknown") if about.exists() else "unknown"
    if gate != "passed" and not config.force:
        raise UserError(
            f"the reward model's gate is: {gate}",
            where=str(config.reward_model),
            mend="collect more comparisons, or go on all the same with --force",
        )
    return path


def stop_if_broken(broken: list[str], config: PPOConfig | GroupConfig) -> None:
    """Raise for a broken step-0 invariant, or with --force say it."""
    if broken and not config.force:
        raise UserError(
            "; ".join(broken), where="first iteration", mend="mend that, or go on all the same with --force"
        )
    for line in broken:
        print(f"{config.verb}: {line}", file=sys.stderr)
