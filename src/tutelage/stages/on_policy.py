"""What every on-policy loop reports of its rollouts, with a critic or without."""

import sys

from tutelage.algorithms.kl import k1, k3
from tutelage.configs import GroupConfig, PPOConfig
from tutelage.engine.packing import segment_sum
from tutelage.records import Prompt
from tutelage.stages.rollout import Models, Rollout, collect
from tutelage.stages.sample import text_of
from tutelage.stages.session import Session


def prompts_an_iteration(config: PPOConfig | GroupConfig, asked: list[Prompt]) -> int:
    """How many prompts a batch has: never one twice, whose answers would be the same. Says where there are too few."""
    wanted = config.batch_size // config.group_size
    if len(asked) < wanted:
        said = (
            f"{len(asked)} prompts make {len(asked) * config.group_size} answers an iteration, not {config.batch_size}"
        )
        print(f"{config.verb}: {said}", file=sys.stderr)
    return min(wanted, len(asked))


def rollout_metrics(rollout: Rollout, kl_coef: float) -> dict[str, float]:
    """KL to the reference with its standard error, entropy, scores and lengths, under TRL's names."""
    kl_N = segment_sum(k1(rollout.logprobs, rollout.reference_logprobs), rollout.offsets)
    kl3_N = segment_sum(k3(rollout.logprobs, rollout.reference_logprobs), rollout.offsets)
    return {
        "objective/kl": float(kl_N.mean()),
        "objective/kl_se": float(kl_N.std() / len(kl_N) ** 0.5),
        "objective/kl_k3": float(kl3_N.mean()),
        "objective/kl_coef": kl_coef,
        "objective/entropy": float(segment_sum(rollout.entropy, rollout.offsets).mean()),
        "objective/scores": float(rollout.raw_scores.mean()),
        "objective/non_score_reward": float(-kl_coef * kl_N.mean()),
        "val/num_eos_tokens": int(rollout.ended.sum()),
        "sampling/sampling_logp_difference/mean": float((rollout.logprobs - rollout.sampled_logprobs).abs().mean()),
        "sampling/importance_sampling_ratio/mean": float(rollout.weights.mean()),
        "response_length/mean": float(rollout.offsets.diff().float().mean()),
        "response_length/clip_ratio": float((~rollout.ended).float().mean()),
    }


def sample_held_out(
    session: Session, config: PPOConfig | GroupConfig, models: Models, held_out: list[Prompt], step: int
) -> dict[str, float]:
    """Sample on held-out prompts; the answers go to samples.jsonl, where evaluation can judge them later."""
    rollout = collect(models, held_out, config, seed=config.seed + 1, step=0, group_size=1)
    kl_N = segment_sum(k1(rollout.logprobs, rollout.reference_logprobs), rollout.offsets)
    rows = [
        {
            "step": step,
            "prompt_id": prompt.id,
            "prompt": prompt.messages[-1]["content"],
            "text": text_of(models.policy, one),
            "finish": one.finish,
            "tokens": len(one.tokens),
            "proxy": score,
            "kl": kl,
        }
        for prompt, one, score, kl in zip(
            held_out, rollout.samples, rollout.raw_scores.tolist(), kl_N.tolist(), strict=True
        )
    ]
    session.run.add_samples(rows)
    return {
        "eval/scores": float(rollout.scores.mean()),
        "eval/kl": float(kl_N.mean()),
        "eval/length": float(rollout.offsets.diff().float().mean()),
    }
