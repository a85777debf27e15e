"""The registry of metrics: what each number in metrics.jsonl means, its unit, its good direction, its formula.

Names are TRL's where its meaning is sound, so that dashboards work. The table in the documentation is made from here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from tutelage.errors import did_you_mean

Better = Literal["up", "down", "zero"] | None
TRAINING = ("pretrain", "sft", "reward", "ppo")
LANGUAGE = ("pretrain", "sft")


@dataclass(frozen=True)
class Metric:
    """One number of a step's row. A name may end in `*`: a family (one number a slice, say)."""

    name: str
    unit: str
    better: Better  # the direction of progress; "zero" is good near zero; None: neither is good by itself
    formula: str
    stages: tuple[str, ...]


def _all(stages: Iterable[str], *rows: tuple[str, str, Better, str]) -> list[Metric]:
    return [Metric(name, unit, better, formula, tuple(stages)) for name, unit, better, formula in rows]


_COMMON = _all(
    TRAINING,
    ("step", "count", None, "optimizer updates done; in PPO, iterations of rollout and update"),
    ("seconds", "s", None, "wall time since the run began, all sittings together"),
    ("num_tokens", "tokens", None, "tokens that went through the training passes so far, padding not counted"),
    ("loss", "nats", "down", "the loss that was minimized, mean over the step's batch"),
    ("learning_rate", "1", None, "the optimizer's rate at this step"),
    ("grad_norm", "1", None, "L2 norm of the whole gradient before clipping"),
    ("tokens_per_second", "tokens/s", "up", "tokens trained on in this step / its seconds"),
    ("peak_rss_bytes", "bytes", "down", "largest resident memory of the process so far"),
)
_SUPERVISED = _all(
    ("pretrain", "sft", "reward"),
    ("epoch", "passes", None, "examples seen / examples in the training set"),
    ("eval/loss", "nats", "down", "loss on the held-out set, no dropout"),
)
_LANGUAGE = _all(
    LANGUAGE,
    ("entropy", "nats/token", None, "mean over loss-bearing tokens of −Σ_v π(v) log π(v)"),
    ("mean_token_accuracy", "share", "up", "share of loss-bearing tokens that are the model's most probable token"),
    ("perplexity", "1", "down", "exp of the mean −log π over loss-bearing tokens"),
    ("eval/perplexity", "1", "down", "perplexity on the held-out set"),
    ("eval/mean_token_accuracy", "share", "up", "mean_token_accuracy on the held-out set"),
    ("eval/entropy", "nats/token", None, "entropy on the held-out set"),
    ("eval/reward", "reward", "up", "mean reward-model score of samples on validation prompts"),
)
_REWARD = _all(
    ("reward",),
    ("accuracy", "share", "up", "share of the batch's ordered pairs with r(chosen) > r(rejected)"),
    ("margin", "reward", "up", "mean over ordered pairs of r(chosen) − r(rejected)"),
    ("min_reward", "reward", None, "smallest score in the batch"),
    ("mean_reward", "reward", None, "mean score in the batch"),
    ("max_reward", "reward", None, "largest score in the batch"),
    ("pairs", "count", None, "ordered pairs in the batch"),
    ("eval/accuracy", "share", "up", "accuracy on held-out comparisons"),
    ("eval/accuracy/*", "share", "up", "eval/accuracy on one slice of the comparisons"),
    ("eval/margin", "reward", "up", "margin on held-out comparisons"),
    ("eval/calibration_error", "share", "down", "mean |P(chosen wins) − observed share| over bins of P = σ(margin)"),
    ("eval/length_correlation", "1", "zero", "rank correlation of score and length within a prompt's answers"),
    ("eval/pairs", "count", None, "ordered pairs in the held-out set"),
)
_OBJECTIVE = _all(
    ("ppo",),
    ("objective/kl", "nats/sequence", "down", "mean over answers of Σ_t (log π − log π_ref): k1, unbiased"),
    ("objective/kl_k3", "nats/sequence", "down", "mean over answers of Σ_t (e^L − 1 − L), L = log π_ref − log π"),
    ("objective/kl_se", "nats/sequence", "down", "standard error of objective/kl over answers: s/√N"),
    ("objective/entropy", "nats/sequence", None, "mean over answers of Σ_t −log π at the sampled tokens"),
    ("objective/scores", "reward", "up", "mean reward-model score of the answers, cut-off penalty included"),
    ("objective/scores_std", "reward", None, "standard deviation of the scores over the iteration's answers"),
    ("objective/non_score_reward", "reward", None, "−β · objective/kl: the penalty in the reward, ≤ 0 but for noise"),
    ("objective/rlhf_reward", "reward", "up", "objective/scores + objective/non_score_reward"),
    ("objective/kl_coef", "reward/nat", None, "β in this iteration"),
    ("episode", "count", None, "answers sampled so far"),
    ("lr", "1", None, "the policy optimizer's rate (learning_rate under TRL's PPO name)"),
    ("value_lr", "1", None, "the value optimizer's rate"),
    ("response_length/mean", "tokens", None, "mean length of the answers, end token included"),
    ("response_length/max", "tokens", None, "longest answer"),
    ("response_length/clip_ratio", "share", "down", "share of answers cut off at max_new_tokens"),
    ("val/num_eos_tokens", "count", None, "answers that ended with the end token"),
)
_UPDATE = _all(
    ("ppo",),
    ("loss/policy_avg", "advantage", None, "mean over response tokens and updates of max(−Aρ, −A clip(ρ, 1 ± ε))"),
    ("loss/value_avg", "reward²", "down", "mean over response tokens and updates of ½ max((V − R)², (V_clipped − R)²)"),
    ("loss/ptx", "nats/token", "down", "mean −log π per pretraining token"),
    ("ptx/grad_ratio", "1", None, "‖γ ∇ptx‖ / ‖∇policy‖"),
    ("policy/approxkl_avg", "nats/token", "zero", "mean of ½ (log π − log π_old)² over response tokens and updates"),
    ("policy/clipfrac_avg", "share", "zero", "share of response tokens with |ρ − 1| > ε"),
    ("policy/entropy_avg", "nats/token", None, "mean of −Σ_v π(v) log π(v) over response tokens in the update"),
    ("policy/grad_norm", "1", None, "L2 norm of the policy's gradient before clipping, mean over updates"),
    ("value/grad_norm", "1", None, "L2 norm of the value model's gradient before clipping, mean over updates"),
    ("val/clipfrac_avg", "share", "zero", "share of response tokens with |V − V_old| > ε"),
    ("val/ratio", "1", None, "mean of ρ = π/π_old over response tokens and updates; 1 in expectation"),
    ("val/ratio_var", "1", "zero", "variance of ρ over response tokens"),
    ("val/explained_variance", "share", "up", "1 − Var(R − V_old) / Var(R) over response tokens"),
    ("advantages/mean", "reward", None, "mean of GAE before whitening"),
    ("advantages/std", "reward", None, "standard deviation of GAE before whitening"),
    ("returns/mean", "reward", "up", "mean of the value targets"),
    ("values/mean", "reward", None, "mean of the value model's predictions at rollout"),
)
_PPO_EVAL = _all(
    ("ppo",),
    ("eval/scores", "reward", "up", "mean reward-model score of samples on held-out prompts"),
    ("eval/scores_se", "reward", "down", "standard error of eval/scores over prompts"),
    ("eval/kl", "nats/sequence", "down", "objective/kl of samples on held-out prompts"),
    ("eval/length", "tokens", None, "mean length of samples on held-out prompts"),
    ("eval/corpus_loss", "nats/token", "down", "mean −log π per token of held-out plain text: the alignment tax"),
    ("time/rollout", "s", "down", "seconds of sampling in this iteration"),
    ("time/score", "s", "down", "seconds of reward, reference and value passes"),
    ("time/update", "s", "down", "seconds of the updates"),
    ("time/eval", "s", "down", "seconds of held-out evaluation"),
)


def _registry(metrics: Iterable[Metric]) -> dict[str, Metric]:
    registry: dict[str, Metric] = {}
    for metric in metrics:
        if metric.name in registry:
            raise ValueError(f"metric {metric.name!r} is registered twice")
        registry[metric.name] = metric
    return registry


METRICS = _registry([*_COMMON, *_SUPERVISED, *_LANGUAGE, *_REWARD, *_OBJECTIVE, *_UPDATE, *_PPO_EVAL])


def find(name: str) -> Metric | None:
    """The metric of this name, or the family it belongs to."""
    if name in METRICS:
        return METRICS[name]
    return next((metric for pattern, metric in METRICS.items() if "*" in pattern and fnmatchcase(name, pattern)), None)


def check_names(row: dict[str, Any]) -> None:
    """Raise ValueError for a name that is not registered, with the near one."""
    for name in row:
        if find(name) is None:
            raise ValueError(f"metric {name!r} is not in tutelage.runs.metrics{did_you_mean(name, list(METRICS))}")


def markdown_table(stage: str | None = None) -> str:
    """The metrics (of one stage) as a table for the documentation."""
    arrows = {"up": "higher", "down": "lower", "zero": "near 0", None: "–"}
    lines = ["| name | unit | better | formula | stages |", "|---|---|---|---|---|"]
    for metric in METRICS.values():
        if stage is None or stage in metric.stages:
            formula = metric.formula.replace("|", "\\|")
            stages = ", ".join(metric.stages)
            lines.append(f"| `{metric.name}` | {metric.unit} | {arrows[metric.better]} | {formula} | {stages} |")
    return "\n".join(lines) + "\n"
