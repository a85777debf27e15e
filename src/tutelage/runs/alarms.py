"""Early alarms of a PPO run: a plain sentence with what happens, why, and what to do."""

from collections.abc import Mapping


def ppo_alarms(row: Mapping[str, float], step: int) -> list[str]:
    """What is wrong with an iteration's metrics, in plain words; empty when nothing is."""
    found = []
    if row["response_length/clip_ratio"] > 0.3:
        found.append(
            f"{row['response_length/clip_ratio']:.0%} of the answers are cut off: raise max_new_tokens, or the length is being rewarded"
        )
    if row["objective/kl"] < -3 * row["objective/kl_se"] - 0.05:
        found.append(
            f"the KL is {row['objective/kl']:.3f}, clearly below zero: sampling and scoring differ (temperature, template)"
        )
    if row["policy/clipfrac_avg"] > 0.4:
        found.append(f"{row['policy/clipfrac_avg']:.0%} of the tokens are clipped: lower learning_rate or inner_epochs")
    if step > 20 and row["val/explained_variance"] < 0:
        found.append(
            f"the value model explains nothing ({row['val/explained_variance']:.2f}): lower value_learning_rate"
        )
    if row["objective/entropy"] < 0.05:
        found.append("the policy has lost its entropy: lower learning_rate or raise kl_coef")
    return found
