"""The registry of metrics: what each number in metrics.jsonl means, its unit, its good direction, its formula.

Names are TRL's where its meaning is sound, so that dashboards work. `python -m tutelage.runs.metrics` prints the
table of the documentation.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.errors import did_you_mean

Better = Literal["up", "down", "zero"] | None
PREFERENCE = "dpo ipo kto orpo simpo"
GROUP = "rloo grpo online-dpo"


@dataclass(frozen=True)
class Metric:
    """One number of a step's row, and the stages that log it."""

    name: str
    unit: str
    better: Better  # the direction of progress; "zero" is good near zero; None: neither is good by itself
    formula: str
    stages: tuple[str, ...]


def _of(stages: str, *rows: tuple[str, str, Better, str]) -> list[Metric]:
    return [Metric(name, unit, better, formula, tuple(stages.split())) for name, unit, better, formula in rows]


METRICS = [
    *_of(
        f"pretrain sft reward ppo rejection cai prm {PREFERENCE} {GROUP}",
        ("step", "count", None, "optimizer updates done; in PPO, iterations of rollout and update"),
        ("seconds", "s", None, "wall time since the run began, all sittings together, when the step's update was done"),
        ("num_tokens", "tokens", None, "tokens that went through the training passes so far, padding not counted"),
        ("loss", "nats", "down", "the loss that was minimized, mean over the step's batch (in PPO loss/policy_avg)"),
        ("grad_norm", "1", None, "L2 norm of the gradient before clipping (in PPO the mean over updates)"),
    ),
    *_of(
        f"pretrain sft reward rejection cai prm {PREFERENCE}",
        ("learning_rate", "1", None, "the optimizer's rate at this step"),
    ),
    *_of(f"{PREFERENCE} sft", ("epoch", "passes", None, "examples seen / examples in the training set")),
    *_of(
        f"pretrain sft rejection cai {PREFERENCE}",
        ("entropy", "nats/token", None, "mean over loss-bearing tokens of −Σ_v π(v) log π(v)"),
    ),
    *_of(
        "sft",
        ("eval/loss", "nats/token", "down", "mean −log π of the answers' tokens in held-out demonstrations"),
    ),
    *_of(
        "reward",
        ("accuracy", "share", "up", "share of the batch's ordered pairs with r(chosen) > r(rejected)"),
        ("min_reward", "reward", None, "smallest score in the batch"),
        ("mean_reward", "reward", None, "mean score in the batch"),
        ("max_reward", "reward", None, "largest score in the batch"),
        ("eval/accuracy", "share", "up", "accuracy on held-out comparisons; an equal score counts half"),
    ),
    *_of(
        "prm",
        ("step_accuracy", "share", "up", "share of the batch's supervised steps with (p > ½) = (target > ½)"),
        ("eval/step_accuracy", "share", "up", "step_accuracy on held-out solutions, up to each one's first error"),
    ),
    *_of(
        PREFERENCE,
        (
            "rewards/chosen",
            "nats",
            "up",
            "mean implicit reward of the better answers: β (log π − log π_ref), or SimPO's, ORPO's",
        ),
        ("rewards/rejected", "nats", "down", "mean implicit reward of the worse answers"),
        ("rewards/margins", "nats", "up", "rewards/chosen − rewards/rejected"),
        ("logps/chosen", "nats", None, "mean over the better answers of Σ_t log π"),
        ("logps/rejected", "nats", None, "mean over the worse answers of Σ_t log π"),
        ("nll_loss", "nats/token", "down", "mean −log π of the better answers, per token"),
        ("eval/rewards/chosen", "nats", "up", "rewards/chosen on held-out comparisons"),
        ("eval/rewards/rejected", "nats", "down", "rewards/rejected on held-out comparisons"),
        ("eval/rewards/margins", "nats", "up", "rewards/margins on held-out comparisons"),
        (
            "rewards/accuracies",
            "share",
            "up",
            "share of ordered pairs whose better answer has the higher implicit reward",
        ),
        ("eval/rewards/accuracies", "share", "up", "rewards/accuracies on held-out comparisons"),
        ("eval/rewards/accuracies_low", "share", "up", "lower end of its 95 % interval, prompts clustered"),
        ("eval/rewards/accuracies_high", "share", "up", "upper end of its 95 % interval"),
    ),
    *_of("kto", ("kl", "nats", "zero", "KTO's baseline z_0: mean log π − log π_ref of mismatched answers, at least 0")),
    *_of(
        f"ppo {GROUP}",
        ("episode", "count", None, "answers sampled so far"),
        ("lr", "1", None, "the policy optimizer's rate (TRL's name for it in PPO)"),
        ("objective/kl", "nats/sequence", "down", "mean over answers of Σ_t (log π − log π_ref): k1, unbiased"),
        ("objective/kl_se", "nats/sequence", "down", "standard error of objective/kl over answers: s/√N"),
        ("objective/kl_k3", "nats/sequence", "down", "mean over answers of Σ_t (e^L − 1 − L), L = log π_ref − log π"),
        ("objective/kl_coef", "reward/nat", None, "β in this iteration"),
        ("objective/entropy", "nats/sequence", None, "mean over answers of Σ_t −Σ_v π(v) log π(v)"),
        ("objective/scores", "reward", "up", "mean reward-model score of the answers, before any penalty"),
        ("objective/non_score_reward", "reward", None, "−β · objective/kl: the penalty in the reward"),
        ("val/num_eos_tokens", "count", None, "answers that ended with the end token"),
        ("val/ratio", "1", None, "mean of ρ = π/π_old over response tokens and updates; 1 in expectation"),
        (
            "sampling/sampling_logp_difference/mean",
            "nats/token",
            "zero",
            "mean of |log π − log μ| over response tokens, μ the sampler's: rounding, vLLM, or older weights",
        ),
        (
            "sampling/importance_sampling_ratio/mean",
            "1",
            None,
            "mean over response tokens of min(π/μ, cap), the weights of what older weights or vLLM drew; 1 for others",
        ),
        ("response_length/mean", "tokens", None, "mean length of the answers, end token included"),
        ("response_length/clip_ratio", "share", "down", "share of answers cut off at max_new_tokens"),
        ("policy/approxkl_avg", "nats/token", "zero", "mean of ½ (log π − log π_old)² over tokens and updates"),
        ("policy/clipfrac_avg", "share", "zero", "share of response tokens with |ρ − 1| > ε"),
        ("policy/entropy_avg", "nats/token", None, "mean of −Σ_v π(v) log π(v) over response tokens in the update"),
        ("eval/scores", "reward", "up", "mean reward-model score on held-out prompts, missing end tokens penalized"),
        ("eval/kl", "nats/sequence", "down", "objective/kl of the answers to held-out prompts"),
        ("eval/length", "tokens", None, "mean length of the answers to held-out prompts"),
        ("time/rollout", "s", "down", "seconds of sampling and scoring in this iteration"),
        ("time/update", "s", "down", "seconds of the updates in this iteration"),
    ),
    *_of(
        "ppo",
        ("objective/rlhf_reward", "reward", "up", "mean over answers of Σ_t R_t, what PPO maximizes, all penalties in"),
        ("val/explained_variance", "share", "up", "1 − Var(R − V_old) / Var(R) over response tokens"),
        ("loss/policy_avg", "advantage", None, "mean over tokens and updates of max(−Aρ, −A clip(ρ, 1 ± ε))"),
        ("loss/value_avg", "reward²", "down", "mean over tokens and updates of ½ max((V − R)², (V_clip − R)²)"),
        ("loss/ptx", "nats/token", "down", "mean −log π per pretraining token, before the weight γ"),
        ("ptx/grad_ratio", "1", None, "‖γ ∇ptx‖ / ‖∇policy‖"),
    ),
    *_of(
        GROUP,
        ("reward_std", "reward", "up", "mean over prompts of the standard deviation of their answers' scores"),
        (
            "frac_reward_zero_std",
            "share",
            "down",
            "share of the prompts whose answers all have one score: nothing to learn",
        ),
    ),
]


def check_names(row: Mapping[str, Any], stage: str) -> None:
    """Raise ValueError for a name that is not registered for the stage, with the near one."""
    known = registered(stage)
    for name in row:
        if name not in known:
            raise ValueError(f"metric {name!r} of {stage} is not in tutelage.runs.metrics{did_you_mean(name, known)}")


def registered(stage: str) -> list[str]:
    return [metric.name for metric in METRICS if stage in metric.stages]


def markdown_table(metrics: Iterable[Metric] = METRICS) -> str:
    """The metrics as a table for the documentation."""
    arrows = {"up": "higher", "down": "lower", "zero": "near 0", None: "–"}
    lines = ["| name | unit | better | formula | stages |", "|---|---|---|---|---|"]
    for metric in metrics:
        formula, stages = metric.formula.replace("|", "\\|"), ", ".join(metric.stages)
        lines.append(f"| `{metric.name}` | {metric.unit} | {arrows[metric.better]} | {formula} | {stages} |")
    return "\n".join(lines)


PAGE = """# Metrics

Every training run writes `metrics.jsonl`: one object a step, with the numbers below. Names are TRL's where TRL has
the same quantity, so that dashboards made for it work. This page is generated:
`python -m tutelage.runs.metrics > docs/metrics.md`.

"""

if __name__ == "__main__":
    print(PAGE + markdown_table())

DRAWN_FIRST = (  # the curves of a stage, on its page and in its report; the short names are of older runs
    "objective/scores",
    "objective/kl",
    "response_length/mean",
    "response_length/clip_ratio",
    "eval/scores",
    "eval/kl",
    "loss",
    "eval/loss",
    "eval/accuracy",
    "accuracy",
    "step_accuracy",
    "eval/step_accuracy",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "rewards/accuracies",
    "eval/rewards/accuracies",
    "objective/entropy",
    "entropy",
    "proxy",
    "gold",
    "kl",
    "policy/clipfrac_avg",
    "val/explained_variance",
    "ptx/grad_ratio",
    "grad_norm",
    "learning_rate",
)
