"""Early alarms of an on-policy run: a plain sentence with what happens, why, and what to do."""

from collections.abc import Mapping


def on_policy_alarms(row: Mapping[str, float], step: int) -> list[str]:
    """What is wrong with an iteration's metrics, in plain words; empty when nothing is.

    For PPO, RLOO, GRPO and online DPO: what a stage does not log cannot alarm.
    """

    def beyond(name: str, limit: float) -> bool:
        return name in row and row[name] > limit

    found = []
    if beyond("response_length/clip_ratio", 0.3):
        found.append(
            f"{row['response_length/clip_ratio']:.0%} of the answers are cut off: raise max_new_tokens, or the length is being rewarded"
        )
    if "objective/kl" in row and row["objective/kl"] < -3 * row.get("objective/kl_se", 0.0) - 0.05:
        found.append(
            f"the KL is {row['objective/kl']:.3f}, clearly below zero: sampling and scoring differ (temperature, template)"
        )
    if beyond("sampling/sampling_logp_difference/mean", 0.2):
        found.append(
            f"sampler and trainer differ by {row['sampling/sampling_logp_difference/mean']:.2f} nats a token: do the weights reach the sampler? one step off: lower learning_rate"
        )
    if beyond("policy/clipfrac_avg", 0.4):
        found.append(
            f"{row['policy/clipfrac_avg']:.0%} of the tokens are clipped: lower learning_rate (in PPO also inner_epochs)"
        )
    if step > 20 and row.get("val/explained_variance", 0.0) < 0:
        found.append(
            f"the value model explains nothing ({row['val/explained_variance']:.2f}): lower value_learning_rate"
        )
    if row.get("objective/entropy", 1.0) < 0.05:
        found.append("the policy has lost its entropy: lower learning_rate or raise kl_coef")
    if beyond("frac_reward_zero_std", 0.8):
        found.append(
            f"{row['frac_reward_zero_std']:.0%} of the prompts have one score for all their answers, which teach nothing: raise temperature or group_size, or give harder prompts"
        )
    return found
