"""On-policy optimization without a critic: RLOO, GRPO, Dr. GRPO and online DPO, one loop for all of them.

K answers to each prompt are compared with each other, so that no value model is trained.

Departures from the papers:
1. A truncated answer's score is lowered by missing_eos_penalty (Huang et al. 2024).
2. The gradient's norm is clipped (max_grad_norm); one pass over each iteration's answers.
3. Online DPO with K > 2 takes the best and the worst answer of each prompt (the paper has K = 2).
4. `best` is the checkpoint with the best held-out reward less the KL penalty, never the gold judge.
5. What older weights or vLLM drew is weighted by truncated importance weights (rollout.py): GRPO's advantages token by
   token, as PPO's are; in RLOO, whose action is the answer, and in online DPO, answer by answer.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.algorithms.dpo import dpo_loss
from tutelage.algorithms.grpo import centered_advantages, dr_grpo_loss, group_advantages, grpo_loss
from tutelage.algorithms.kl import k1
from tutelage.algorithms.ppo import approximate_kl, clip_fraction
from tutelage.algorithms.rloo import leave_one_out_advantages, penalized_rewards, reinforce_loss
from tutelage.algorithms.schedules import constant_after_warmup
from tutelage.configs import GroupConfig, GRPOConfig, OnlineDPOConfig, RLOOConfig
from tutelage.data.batches import batch_order, rank_batches, step_seed
from tutelage.data.sources import ON_POLICY_PROMPTS, data_hash, prompts
from tutelage.data.templates import template_hash
from tutelage.engine.distributed import summed_row
from tutelage.engine.optimizer import MasterAdam
from tutelage.engine.packing import pack, segment_sum
from tutelage.models import Policy, resolve, save_model
from tutelage.records import Prompt
from tutelage.runs.alarms import on_policy_alarms
from tutelage.stages.gate import gated_reward_model, stop_if_broken
from tutelage.stages.loading import on_policy_models
from tutelage.stages.on_policy import prompts_an_iteration, rollout_metrics, sample_held_out
from tutelage.stages.passes import response_indices
from tutelage.stages.rollout import Rollout, check_first_rollout, collect
from tutelage.stages.sample import fitting_prompts
from tutelage.stages.session import Session

SHOWN = ("objective/scores", "objective/kl", "response_length/mean")


def run(config: GroupConfig) -> dict[str, Any]:
    """Optimize the policy; returns the run's summary with its checkpoint."""
    # 1. The policy, its frozen reference and the reward model.
    source, reward_source = resolve(config.model), gated_reward_model(config)
    models = on_policy_models(config, source, reward_source)
    policy = models.policy
    asked = fitting_prompts(policy, prompts(config.data, "train", ON_POLICY_PROMPTS, config.seed), config.max_length)
    held_out = fitting_prompts(
        policy, prompts(config.data, "tune", config.eval_prompts, config.seed), config.max_length
    )
    held_out = held_out[: config.eval_prompts]
    count = prompts_an_iteration(config, asked)
    about = {"role": "policy", "stage": config.verb, "parent": str(source), "reward_model": str(reward_source)}
    about |= {"data": data_hash(config.data), "template": template_hash(policy.tokenizer)}

    with Session(config, config.verb, config.max_steps or 500) as session:
        session.prepare(policy)
        optimizer = MasterAdam(policy.own_parameters(), state=config.optimizer_state)
        alarms: list[dict[str, Any]] = session.state.get("alarms", [])
        if session.state:
            optimizer.load(session.state["optimizer"])

        def prompts_of(step: int) -> list[Prompt]:
            order = batch_order(len(asked), count, config.seed, session.position(step))
            return [asked[i] for i in order]

        for step in session.steps():
            # 2. group_size answers of the current policy to each prompt, scored by the reward model.
            clock = [time.perf_counter()]
            rollout = collect(
                models,
                prompts_of(step),
                config,
                seed=config.seed,
                step=step,
                prompts_of=prompts_of,
            )
            clock.append(time.perf_counter())
            if step == 1:
                stop_if_broken(check_first_rollout(rollout, policy), config)

            # 3. What each answer is worth against the others of its prompt.
            groups, advantages_N = comparison_within_groups(config, rollout)

            # 4. Updates, minibatch by minibatch.
            rate = config.learning_rate * constant_after_warmup(step - 1, config.warmup_steps)
            updates = _update(config, policy, optimizer, rollout, groups, advantages_N, step, rate)
            clock.append(time.perf_counter())

            # 5. What happened; held-out samples on a schedule.
            row = {**rollout_metrics(rollout, config.penalty), **_spread(config, rollout), **updates}
            row |= {"lr": rate, "episode": step * count * config.group_size}
            row |= {"time/rollout": clock[1] - clock[0], "time/update": clock[2] - clock[1]}
            session.tokens += sum(len(s) for s in rollout.sequences)
            for message in on_policy_alarms(row, step):
                alarms.append({"step": step, "message": message})
                print(f"\nalarm, step {step}: {message}", file=sys.stderr)
            objective = None
            if step % config.eval_every == 0 or step in (1, session.total):
                with session.measuring():
                    row |= sample_held_out(session, config, models, held_out, step)
                objective = row["eval/scores"] - config.penalty * row["eval/kl"]
            write = lambda path, verify: save_model(path, policy, about, verify=verify)  # noqa: E731
            session.done(step, row, write, {"optimizer": optimizer.state(), "alarms": alarms}, SHOWN, objective)
        inputs: dict[str, Path | str | None] = {"model": source, "reward_model": reward_source, "data": config.data}
        return session.finish(inputs, alarms=alarms, episodes=session.total * count * config.group_size)


def comparison_within_groups(config: GroupConfig, rollout: Rollout) -> tuple[list[list[int]], Tensor]:
    """The episodes of each prompt that are trained on, and the advantage [N] of each episode.

    Online DPO: the best and the worst episode, in this order, of each prompt where they differ; no advantages.
    """
    scores_PK = rollout.scores.view(-1, config.group_size)
    groups = torch.arange(len(rollout.scores)).view_as(scores_PK)
    match config:
        case RLOOConfig():
            kl_N = segment_sum(k1(rollout.logprobs, rollout.reference_logprobs), rollout.offsets)
            rewards_N = penalized_rewards(rollout.scores, kl_N, config.kl_coef)
            return groups.tolist(), leave_one_out_advantages(rewards_N.view_as(scores_PK)).flatten()
        case GRPOConfig(loss="grpo"):
            return groups.tolist(), group_advantages(scores_PK).flatten()
        case GRPOConfig():
            return groups.tolist(), centered_advantages(scores_PK).flatten()
        case OnlineDPOConfig():
            best, worst = scores_PK.argmax(-1, keepdim=True), scores_PK.argmin(-1, keepdim=True)
            pairs = groups.gather(1, torch.cat([best, worst], 1))
            differ = scores_PK.amax(-1) > scores_PK.amin(-1)
            return pairs[differ].tolist(), torch.zeros_like(rollout.scores)
    raise TypeError(f"no comparison for {type(config).__name__}")


def group_loss(
    config: GroupConfig,
    logprobs_T: Tensor,
    old_T: Tensor,
    reference_T: Tensor,
    advantages_N: Tensor,
    offsets: Tensor,
    weights_T: Tensor,
) -> Tensor:
    """The loss of each episode [N] (online DPO: of each pair, whose episodes follow each other [N/2]).

    weights_T: importance weights, ones where the policy itself drew; all tokens of an answer share one in RLOO and
    online DPO, whose pair has the product of its two (as in WPO, Zhou et al. 2024, with mu known).
    """
    match config:
        case RLOOConfig():
            return reinforce_loss(segment_sum(logprobs_T, offsets), advantages_N * weights_T[offsets[:-1]])
        case GRPOConfig(loss="grpo"):
            more = (config.clip, config.kl_coef, weights_T)
            return grpo_loss(logprobs_T, old_T, reference_T, advantages_N, offsets, *more)
        case GRPOConfig():
            constants = (config.clip, config.kl_coef, config.max_new_tokens, weights_T)
            return dr_grpo_loss(logprobs_T, old_T, reference_T, advantages_N, offsets, *constants)
        case OnlineDPOConfig():
            log_ratio_N, weights_N = segment_sum(logprobs_T - reference_T, offsets), weights_T[offsets[:-1]]
            return dpo_loss(log_ratio_N[0::2], log_ratio_N[1::2], config.beta) * weights_N[0::2] * weights_N[1::2]
    raise TypeError(f"no loss for {type(config).__name__}")


def _update(
    config: GroupConfig,
    policy: Policy,
    optimizer: MasterAdam,
    rollout: Rollout,
    groups: list[list[int]],
    advantages_N: Tensor,
    step: int,
    rate: float,
) -> dict[str, float]:
    """One pass over the iteration's groups; returns means over the minibatches."""
    totals: dict[str, float] = {}
    per_update = (config.minibatch_size or config.batch_size) // config.group_size
    updates = max(1, len(groups) // per_update) if groups else 0
    for number in range(updates):
        chosen = batch_order(len(groups), per_update, step_seed(config.seed, "minibatch", step), number)
        row = _backward(config, policy, optimizer, rollout, [groups[i] for i in chosen], advantages_N)
        row["grad_norm"] = optimizer.step(rate, config.max_grad_norm)
        totals = {name: totals.get(name, 0.0) + x / updates for name, x in row.items()}
    return totals or {"loss": 0.0}  # every group was a tie: nothing to learn


def _backward(
    config: GroupConfig,
    policy: Policy,
    optimizer: MasterAdam,
    rollout: Rollout,
    groups: list[list[int]],
    advantages_N: Tensor,
) -> dict[str, float]:
    """Gradient of the mean loss over the episodes (online DPO: pairs) of some groups, in micro-batches of groups."""
    lengths = [sum(len(rollout.sequences[i]) for i in group) for group in groups]
    episodes = sum(map(len, groups))
    terms = len(groups) if isinstance(config, OnlineDPOConfig) else episodes
    row = dict.fromkeys(("loss", "policy/approxkl_avg", "policy/clipfrac_avg", "policy/entropy_avg", "val/ratio"), 0.0)
    total = sum(int(rollout.offsets[i + 1] - rollout.offsets[i]) for group in groups for i in group)
    fresh, rollout.fresh = rollout.fresh, None  # it is of weights that this update changes
    for micro in [range(len(groups))] if fresh else rank_batches(lengths, config.micro_tokens):
        some = [i for number in micro for i in groups[number]]
        sequences, starts, where = rollout.part(some)
        targets, offsets = response_indices(sequences, starts)
        if fresh is None:
            logprobs_T, entropy_T = policy.logprobs(pack(sequences, share=True), targets, config.temperature)
        else:
            logprobs_T, entropy_T = fresh.logprobs[where], fresh.entropy[where]
        old_T, reference_T = rollout.logprobs[where], rollout.reference_logprobs[where]
        more = (advantages_N[torch.tensor(some)], offsets, rollout.weights[where])
        loss = group_loss(config, logprobs_T, old_T, reference_T, *more)
        (loss.sum() / terms).backward()
        optimizer.collect()
        with torch.no_grad():
            row["loss"] += float(loss.sum()) / terms
            row["policy/approxkl_avg"] += float(approximate_kl(logprobs_T, old_T).sum()) / total
            if isinstance(config, GRPOConfig):
                row["policy/clipfrac_avg"] += float(clip_fraction(logprobs_T, old_T, config.clip)) * len(where) / total
            row["policy/entropy_avg"] += float(entropy_T.sum()) / total
            row["val/ratio"] += float((logprobs_T - old_T).exp().sum()) / total
    return summed_row(row)


def _spread(config: GroupConfig, rollout: Rollout) -> dict[str, float]:
    """How much the answers to one prompt differ: without a spread there is nothing to learn."""
    scores_PK = rollout.scores.view(-1, config.group_size)
    return {
        "reward_std": float(scores_PK.std(-1, correction=0).mean()),
        "frac_reward_zero_std": float((scores_PK.amax(-1) == scores_PK.amin(-1)).float().mean()),
    }
