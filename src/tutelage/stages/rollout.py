"""One iteration's experience: answers to a batch of prompts, with everything that the update needs.

Suffixes: _T response tokens of all episodes end to end, _N episodes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.algorithms.importance import truncated_importance_weights
from tutelage.algorithms.rewards import terminal_scores
from tutelage.cluster import samplers
from tutelage.configs import GroupConfig, PPOConfig
from tutelage.data.batches import step_seed, token_budget_batches
from tutelage.data.templates import Rendered, end_token_id, render_completion, render_prompt
from tutelage.engine import distributed
from tutelage.engine.packing import offsets_of, pack, positions_in
from tutelage.engine.sampling import Sample, SamplingParams
from tutelage.engine.sharding import whole
from tutelage.models import Policy, ScalarModel, StepModel
from tutelage.records import Prompt
from tutelage.stages.sample import draw, text_of
from tutelage.stages.step_scores import process_rewards

LISTS = ("prompts", "samples", "sequences", "starts")
TENSORS = (
    *("scores", "raw_scores", "ended", "logprobs", "reference_logprobs", "values", "entropy"),
    *("sampled_logprobs", "weights", "step_rewards"),
)


@dataclass
class Rollout:
    """sequences: prompt and response ids of each episode; starts: where its response begins."""

    prompts: list[Prompt]
    samples: list[Sample]
    sequences: list[list[int]]
    starts: list[int]
    offsets: Tensor  # [N+1] of the response tokens
    scores: Tensor  # [N] reward-model scores, missing end tokens penalized
    raw_scores: Tensor  # [N] before that penalty
    ended: Tensor  # [N]
    logprobs: Tensor  # [T] under the policy that sampled, recomputed by the trainer
    reference_logprobs: Tensor  # [T]
    values: Tensor  # [T] of the state before each response token; zeros without a critic
    entropy: Tensor  # [T]
    sampled_logprobs: Tensor  # [T] as the sampler gave them
    weights: Tensor  # [T] of answers that older weights drew; ones otherwise
    step_rewards: Tensor  # [T] of a process reward model, summing to 0 over each answer; zeros without one

    @classmethod
    def joined(cls, parts: "Sequence[Rollout | None]") -> "Rollout":
        """The processes' rollouts end to end; a process without a prompt has None."""
        some = [one for one in parts if one is not None]
        lists: dict[str, Any] = {name: [x for one in some for x in getattr(one, name)] for name in LISTS}
        offsets = offsets_of(torch.cat([one.offsets.diff() for one in some]))
        tensors: dict[str, Any] = {name: torch.cat([getattr(one, name) for one in some]) for name in TENSORS}
        return cls(**lists, **tensors, offsets=offsets)

    def part(self, episodes: list[int]) -> tuple[list[list[int]], list[int], Tensor]:
        """Sequences and starts of some episodes, and the indices of their response tokens on the [T] axis."""
        spans = [torch.arange(int(self.offsets[i]), int(self.offsets[i + 1])) for i in episodes]
        return [self.sequences[i] for i in episodes], [self.starts[i] for i in episodes], torch.cat(spans)


def response_indices(sequences: list[list[int]], starts: list[int]) -> tuple[Tensor, Tensor]:
    """Packed index of each response token [T], and the offsets [N+1] of the responses."""
    totals = torch.tensor([len(s) for s in sequences])
    lengths = totals - torch.tensor(starts)
    offsets = offsets_of(lengths)
    begin = offsets_of(totals)[:-1] + torch.tensor(starts)
    return begin.repeat_interleave(lengths) + positions_in(offsets), offsets


@dataclass
class Models:
    """The four models of PPO, three without a critic; the reference and the reward model are frozen."""

    policy: Policy
    reference: Policy
    reward: ScalarModel | StepModel
    value: ScalarModel | None


def collect(
    models: Models,
    asked: list[Prompt],
    config: PPOConfig | GroupConfig,
    *,
    seed: int,
    step: int,
    group_size: int | None = None,
    prompts_of: Callable[[int], list[Prompt]] | None = None,
) -> Rollout:
    """Sample group_size answers to each prompt, which follow each other, and score them with every model (no gradient).

    group_size: the configuration's when not given.
    Each process does so for its part of the prompts, with the seeds of the prompts, and has the whole at the end.
    prompts_of: the prompts of any step; with it a pool of samplers draws, where there is one.
    """
    mine, some = list(distributed.part(asked)), None
    with whole(models.policy.model, models.value and models.value.model):
        if mine:
            some = _collect(models, mine, config, seed, step, group_size or config.group_size, prompts_of)
    return Rollout.joined(distributed.gather(some))


def _collect(
    models: Models,
    asked: list[Prompt],
    config: PPOConfig | GroupConfig,
    seed: int,
    step: int,
    group_size: int,
    prompts_of: Callable[[int], list[Prompt]] | None,
) -> Rollout:
    policy, reference, reward, value = models.policy, models.reference, models.reward, models.value
    params = SamplingParams(config.max_new_tokens, 0, config.temperature)
    pool = samplers.current() if prompts_of else None
    if pool is None or prompts_of is None:
        drawn = draw(policy, asked, group_size, params, step_seed(seed, "rollout", step), config.max_length)
    else:

        def request(step: int, prompts: list[Prompt]) -> samplers.Request:
            return samplers.Request(prompts, group_size, params, step_seed(seed, "rollout", step), config.max_length)

        more = pool.off_policy and step < (config.max_steps or step)
        drawn = pool.draw(policy, request(step, asked), request(step + 1, prompts_of(step + 1)) if more else None)
    samples = [one for row in drawn for one in row]
    asked = [prompt for prompt in asked for _ in range(group_size)]
    prompt_ids = [render_prompt(policy.tokenizer, p.messages) for p in asked]
    sequences = [ids + one.tokens for ids, one in zip(prompt_ids, samples, strict=True)]
    starts = [len(ids) for ids in prompt_ids]
    _, offsets = response_indices(sequences, starts)

    logprobs, reference_logprobs, values, entropy = (torch.zeros(int(offsets[-1])) for _ in range(4))
    with torch.no_grad():
        for micro in token_budget_batches([len(s) for s in sequences], config.micro_tokens):
            packed = pack([sequences[i] for i in micro], share=True)
            targets, _ = response_indices([sequences[i] for i in micro], [starts[i] for i in micro])
            where = torch.cat([torch.arange(int(offsets[i]), int(offsets[i + 1])) for i in micro])
            logprobs[where], entropy[where] = policy.logprobs(packed, targets, params.temperature)
            reference_logprobs[where], _ = reference.logprobs(packed, targets, params.temperature)
            if value is not None:
                values[where] = value.per_token(packed)[targets - 1]
    if isinstance(reward, StepModel):
        raw, step_rewards = process_rewards(reward, policy, asked, samples, config.max_length)
    else:
        raw = score_answers(reward, policy, asked, samples, config.max_length, config.micro_tokens)
        step_rewards = torch.zeros(int(offsets[-1]))
    ended = torch.tensor([one.finish == "stop" for one in samples])
    scores = terminal_scores(raw, ended, config.missing_eos_penalty)
    sampled = torch.cat([torch.tensor(one.logprobs) for one in samples])
    weights = torch.ones_like(sampled)
    if pool is not None and pool.off_policy:
        weights = truncated_importance_weights(logprobs, sampled, pool.cluster.max_importance_weight)
    tokens = (logprobs, reference_logprobs, values, entropy, sampled, weights, step_rewards)
    return Rollout(asked, samples, sequences, starts, offsets, scores, raw, ended, *tokens)


@torch.no_grad()
def score_answers(
    reward: ScalarModel,
    policy: Policy,
    asked: list[Prompt],
    samples: list[Sample],
    max_length: int,
    micro_tokens: int,
) -> Tensor:
    """[N] reward of each answer, rendered anew from its text with the reward model's own template and tokenizer."""
    rendered: list[Rendered] = [
        render_completion(reward.tokenizer, p.messages, text_of(policy, s)) for p, s in zip(asked, samples, strict=True)
    ]
    sequences = [r.input_ids[-max_length:] for r in rendered]
    scores = torch.zeros(len(sequences))
    for micro in token_budget_batches([len(s) for s in sequences], micro_tokens):
        scores[micro] = reward.scores(pack([sequences[i] for i in micro], share=True))
    return scores


def check_first_rollout(rollout: Rollout, policy: Policy) -> list[str]:
    """The step-0 invariants of PPO; returns what is broken, in plain words."""
    broken = []
    kl = float((rollout.logprobs - rollout.reference_logprobs).abs().max())
    if kl > 0.05:
        broken.append(
            f"policy and reference differ before training (largest log-prob difference {kl:.3g}): are they the same checkpoint?"
        )
    gap = float((rollout.sampled_logprobs - rollout.logprobs).abs().mean())
    if gap > 0.1:
        broken.append(
            f"sampler and trainer disagree on log-probs (mean {gap:.3g} nats): temperature or template differ"
        )
    end = end_token_id(policy.tokenizer)
    if not any(s.tokens[-1] == end for s in rollout.samples):
        broken.append("no answer ended with the end token: was it trained in SFT? is --max-new-tokens too small?")
    if float(rollout.raw_scores.std()) == 0:
        broken.append("the reward model gives every answer the same score")
    return broken
