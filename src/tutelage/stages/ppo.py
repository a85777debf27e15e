"""PPO with a KL penalty, and PPO-ptx (Ouyang et al. 2022, section 3.5 and appendix C.4).

Departures from the paper, and what it leaves open:
1. lambda 0.95, whitened advantages, value clipping, value weight 0.1: Ziegler et al. 2019.
2. A truncated answer's score is lowered by missing_eos_penalty (Huang et al. 2024).
3. Losses are means over the response tokens of a minibatch; ptx is a mean over pretraining tokens.
4. The averaged weights (EMA per iteration) are what is saved as the model.
5. `best` is the checkpoint with the best held-out reward less the KL penalty, never the gold judge.
"""

import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.algorithms.advantages import explained_variance, gae, whiten
from tutelage.algorithms.averaging import ema_update
from tutelage.algorithms.kl import adaptive_kl_coef
from tutelage.algorithms.ppo import approximate_kl, clip_fraction, clipped_policy_loss, clipped_value_loss
from tutelage.algorithms.rewards import token_rewards
from tutelage.algorithms.schedules import constant_after_warmup
from tutelage.configs import PPOConfig
from tutelage.data.batches import batch_order, rank_batches, step_seed
from tutelage.data.sources import ON_POLICY_PROMPTS, data_hash, load_texts, prompts
from tutelage.data.templates import Rendered, template_hash
from tutelage.engine.distributed import summed_row
from tutelage.engine.optimizer import MasterAdam
from tutelage.engine.packing import pack, segment_sum
from tutelage.models import Policy, resolve, save_model
from tutelage.records import Prompt
from tutelage.runs.alarms import on_policy_alarms
from tutelage.stages.gate import gated_reward_model, stop_if_broken
from tutelage.stages.language_modeling import as_document, backward_mean_nll
from tutelage.stages.loading import on_policy_models
from tutelage.stages.on_policy import prompts_an_iteration, rollout_metrics, sample_held_out
from tutelage.stages.passes import response_indices
from tutelage.stages.rollout import Models, Rollout, check_first_rollout, collect
from tutelage.stages.sample import fitting_prompts
from tutelage.stages.session import Session

SHOWN = ("objective/scores", "objective/kl", "response_length/mean")
PTX_TOKENS = 400_000  # of the reservoir that batches of plain text are drawn from
UPDATE_METRICS = (
    "loss/policy_avg",
    "loss/value_avg",
    "policy/approxkl_avg",
    "policy/clipfrac_avg",
    "policy/entropy_avg",
    "val/ratio",
)


@dataclass
class Optimizers:
    policy: MasterAdam
    value: MasterAdam


def run(config: PPOConfig) -> dict[str, Any]:
    """Optimize the policy; returns the run's summary with its checkpoint."""
    # 1. Four models: the policy and its frozen reference, the reward model and the value model that starts from it.
    source, reward_source = resolve(config.model), gated_reward_model(config)
    models = on_policy_models(config, source, reward_source)
    policy, value = models.policy, models.value
    assert value is not None
    asked = fitting_prompts(policy, prompts(config.data, "train", ON_POLICY_PROMPTS, config.seed), config.max_length)
    held_out = fitting_prompts(
        policy, prompts(config.data, "tune", config.eval_prompts, config.seed), config.max_length
    )
    held_out = held_out[: config.eval_prompts]
    count = prompts_an_iteration(config, asked)
    documents = _ptx_documents(config, policy)
    kl_coef = config.kl_coef
    about = {"role": "policy", "stage": "ppo", "parent": str(source), "reward_model": str(reward_source)}
    about |= {"data": data_hash(config.data), "template": template_hash(policy.tokenizer)}
    with Session(config, "ppo", config.max_steps or 500) as session:
        session.prepare(policy, value)
        adam = Optimizers(*(MasterAdam(m.own_parameters(), state=config.optimizer_state) for m in (policy, value)))
        averages = [m.detach().clone() for m in adam.policy.masters]
        alarms: list[dict[str, Any]] = session.state.get("alarms", [])
        if session.state:
            adam.policy.load(session.state["optimizer"])
            adam.value.load(session.state["value_optimizer"])
            adam.policy.fill(averages, session.state["averages"])
            kl_coef = session.state["kl_coef"]

        def prompts_of(step: int) -> list[Prompt]:
            order = batch_order(len(asked), count, config.seed, session.position(step))
            return [asked[i] for i in order]

        for step in session.steps():
            # 2. Answers of the current policy, scored by the reward model.
            clock = [time.perf_counter()]
            rollout = collect(models, prompts_of(step), config, seed=config.seed, step=step, prompts_of=prompts_of)
            clock.append(time.perf_counter())
            if step == 1:
                stop_if_broken(check_first_rollout(rollout, policy), config)

            # 3. R_t = -beta (log pi - log pi_ref)_t + [t = T] r(x, y); advantages by GAE, whitened.
            logprobs = (rollout.logprobs, rollout.reference_logprobs)
            rewards_T = token_rewards(*logprobs, rollout.scores, rollout.offsets, kl_coef) + rollout.step_rewards
            advantages_T, returns_T = gae(rewards_T, rollout.values, rollout.offsets, 1.0, config.lam)
            advantages_T = whiten(advantages_T) * rollout.weights

            # 4. Clipped updates of policy and value, minibatch by minibatch, with ptx in the same update.
            rate = constant_after_warmup(step - 1, config.warmup_steps)
            updates = _update(config, models, adam, rollout, advantages_T, returns_T, documents, step, rate)
            ema_update(averages, adam.policy.masters, config.ema)
            clock.append(time.perf_counter())

            # 5. What happened; the KL controller; held-out samples on a schedule.
            row = {"loss": updates["loss/policy_avg"], **_metrics(rollout, rewards_T, returns_T, kl_coef), **updates}
            row |= {"lr": config.learning_rate * rate, "episode": step * count * config.group_size}
            row |= {"time/rollout": clock[1] - clock[0], "time/update": clock[2] - clock[1]}
            session.tokens += sum(len(s) for s in rollout.sequences)
            if config.kl_target is not None:
                kl_coef = adaptive_kl_coef(kl_coef, row["objective/kl"], len(rollout.samples), config.kl_target, 10_000)
            for message in on_policy_alarms(row, step):
                alarms.append({"step": step, "message": message})
                print(f"\nalarm, step {step}: {message}", file=sys.stderr)
            objective = None
            if step % config.eval_every == 0 or step in (1, session.total):
                with session.measuring():
                    row |= sample_held_out(session, config, models, held_out, step)
                objective = row["eval/scores"] - config.kl_coef * row["eval/kl"]
            state: dict[str, Any] = {"optimizer": adam.policy.state(), "value_optimizer": adam.value.state()}
            state |= {"averages": adam.policy.to_save(averages), "kl_coef": kl_coef, "alarms": alarms}
            write = partial(_save_average, policy, adam.policy, averages, about)
            session.done(step, row, write, state, SHOWN, objective)
        inputs: dict[str, Path | str | None] = {"model": source, "reward_model": reward_source, "data": config.data}
        return session.finish(inputs, alarms=alarms, episodes=session.total * count * config.group_size)


def _ptx_documents(config: PPOConfig, policy: Policy) -> list[Rendered]:
    """Plain text for ptx: 8 examples an episode in the paper; a reservoir here."""
    if not config.ptx_coef:
        return []
    texts = load_texts(config.ptx_data or config.data, PTX_TOKENS, policy.tokenizer, seed=1)
    return [as_document(ids, config.max_length) for ids in texts if len(ids) > 1]


def _update(
    config: PPOConfig,
    models: Models,
    adam: Optimizers,
    rollout: Rollout,
    advantages_T: Tensor,
    returns_T: Tensor,
    documents: list[Rendered],
    step: int,
    rate: float,
) -> dict[str, float]:
    """The inner epochs; returns means over the minibatches."""
    totals: dict[str, float] = {}
    count = 0
    for epoch in range(config.inner_epochs):
        for number in range(max(1, len(rollout.sequences) // config.minibatch_size)):
            seed = step_seed(config.seed, "minibatch", step, epoch)
            episodes = batch_order(len(rollout.sequences), config.minibatch_size, seed, number)
            row = _backward(config, models, adam, rollout, episodes, advantages_T, returns_T)
            if documents:
                row |= _add_ptx(config, models.policy, adam.policy, documents, step, number)
            row["grad_norm"] = adam.policy.step(config.learning_rate * rate, config.max_grad_norm)
            adam.value.step((config.value_learning_rate or config.learning_rate) * rate, config.max_grad_norm)
            totals = {name: totals.get(name, 0.0) + x for name, x in row.items()}
            count += 1
    return {name: x / count for name, x in totals.items()}


def _backward(
    config: PPOConfig,
    models: Models,
    adam: Optimizers,
    rollout: Rollout,
    episodes: list[int],
    advantages_T: Tensor,
    returns_T: Tensor,
) -> dict[str, float]:
    """Gradients of one minibatch, in micro-batches; the losses are means over its response tokens."""
    lengths = [len(rollout.sequences[i]) for i in episodes]
    total = int(sum(rollout.offsets[i + 1] - rollout.offsets[i] for i in episodes))
    row = dict.fromkeys(UPDATE_METRICS, 0.0)
    fresh, rollout.fresh = rollout.fresh, None  # it is of weights that this update changes
    assert models.value is not None
    for micro in [range(len(episodes))] if fresh else rank_batches(lengths, config.micro_tokens):
        sequences, starts, where = rollout.part([episodes[i] for i in micro])
        if fresh is None:
            packed, (targets, _) = pack(sequences, share=True), response_indices(sequences, starts)
            logprobs, entropy = models.policy.logprobs(packed, targets, config.temperature)
        else:
            logprobs, entropy = fresh.logprobs[where], fresh.entropy[where]
        old_logprobs, old_values = rollout.logprobs[where], rollout.values[where]
        loss_T = clipped_policy_loss(logprobs, old_logprobs, advantages_T[where], config.clip)
        (loss_T.sum() / total).backward()
        adam.policy.collect()
        values = models.value.per_token(packed)[targets - 1] if fresh is None else fresh.values[where]
        value_T = clipped_value_loss(values, old_values, returns_T[where], config.clip)
        (config.value_coef * value_T.sum() / total).backward()
        adam.value.collect()
        with torch.no_grad():
            share = len(where) / total
            row["loss/policy_avg"] += float(loss_T.sum()) / total
            row["loss/value_avg"] += float(value_T.sum()) / total
            row["policy/approxkl_avg"] += float(approximate_kl(logprobs, old_logprobs).mean()) * share
            row["policy/clipfrac_avg"] += float(clip_fraction(logprobs, old_logprobs, config.clip)) * share
            row["policy/entropy_avg"] += float(entropy.mean()) * share
            row["val/ratio"] += float((logprobs - old_logprobs).exp().mean()) * share
    return summed_row(row)


def _add_ptx(
    config: PPOConfig, policy: Policy, optimizer: MasterAdam, documents: list[Rendered], step: int, number: int
) -> dict[str, float]:
    """Add gamma times the pretraining gradient to the same update; logs the ratio of the two norms."""
    before = [g.clone() for g in optimizer.gradients()]
    chosen = batch_order(len(documents), config.minibatch_size, config.seed, (step - 1) * 1000 + number)
    batch = [documents[i] for i in chosen]
    row = backward_mean_nll(policy, batch, config.micro_tokens, optimizer, scale=config.ptx_coef)
    added = [g - b for g, b in zip(optimizer.gradients(), before, strict=True)]
    rl_norm, ptx_norm = (optimizer.norm(gradients) for gradients in (before, added))
    return {"loss/ptx": row["loss"], "ptx/grad_ratio": ptx_norm / max(rl_norm, 1e-12)}


def _metrics(rollout: Rollout, rewards_T: Tensor, returns_T: Tensor, kl_coef: float) -> dict[str, float]:
    return {
        **rollout_metrics(rollout, kl_coef),
        "objective/rlhf_reward": float(segment_sum(rewards_T, rollout.offsets).mean()),
        "val/explained_variance": float(explained_variance(rollout.values, returns_T)),
    }


def _save_average(
    policy: Policy, optimizer: MasterAdam, averages: list[Tensor], about: dict[str, Any], folder: Path, verify: bool
) -> None:
    """Save the averaged weights as the model, then put the current ones back."""
    with torch.no_grad():
        current = [parameter.detach().clone() for parameter in optimizer.slices]
        for parameter, average in zip(optimizer.slices, averages, strict=True):
            parameter.copy_(average)
        save_model(folder, policy, about, verify=verify)
        for parameter, saved in zip(optimizer.slices, current, strict=True):
            parameter.copy_(saved)
