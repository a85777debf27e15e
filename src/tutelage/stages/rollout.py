"""One iteration's experience: answers to a batch of prompts, with everything that the update needs.

Suffixes: _T response tokens of all episodes end to end, _N episodes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tutelage.algorithms.importance import answer_importance_weights, truncated_importance_weights
from tutelage.algorithms.rewards import terminal_scores
from tutelage.cluster import samplers
from tutelage.configs import GroupConfig, GRPOConfig, PPOConfig
from tutelage.data.batches import step_seed
from tutelage.data.templates import end_token_id, render_prompts
from tutelage.engine import distributed
from tutelage.engine.packing import offsets_of
from tutelage.engine.sampling import Sample, SamplingParams
from tutelage.engine.sharding import whole
from tutelage.models import Policy, ScalarModel, StepModel
from tutelage.processes import world_size
from tutelage.records import Prompt
from tutelage.stages.passes import Pass, passes_of, response_indices, reward_passes
from tutelage.stages.sample import draw, text_of
from tutelage.stages.step_scores import process_rewards

if TYPE_CHECKING:
    from tutelage.cluster.scorers import Scorers

FRESH_PART = (
    4  # graphs are kept of answers that have at most this part of a micro-batch's tokens: two are half of its memory
)
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
    weights: Tensor  # [T] of answers that older weights or vLLM drew; ones otherwise
    step_rewards: Tensor  # [T] of a process reward model, summing to 0 over each answer; zeros without one
    fresh: "Fresh | None" = None  # what the first update may start from

    @classmethod
    def joined(cls, parts: "Sequence[Rollout | None]") -> "Rollout":
        """The processes' rollouts end to end; a process without a prompt has None."""
        some = [one for one in parts if one is not None]
        if len(some) == 1:
            return some[0]
        lists: dict[str, Any] = {name: [x for one in some for x in getattr(one, name)] for name in LISTS}
        offsets = offsets_of(torch.cat([one.offsets.diff() for one in some]))
        tensors: dict[str, Any] = {name: torch.cat([getattr(one, name) for one in some]) for name in TENSORS}
        return cls(**lists, **tensors, offsets=offsets)

    def part(self, episodes: list[int]) -> tuple[list[list[int]], list[int], Tensor]:
        """Sequences and starts of some episodes, and the indices of their response tokens on the [T] axis."""
        spans = [torch.arange(int(self.offsets[i]), int(self.offsets[i + 1])) for i in episodes]
        return [self.sequences[i] for i in episodes], [self.starts[i] for i in episodes], torch.cat(spans)


@dataclass
class Fresh:
    """What the policy and the value model said in the rollout, with the graphs that gradients go back through.

    They hold until the first update changes the weights. [T] each; values are zeros without a critic.
    """

    logprobs: Tensor
    entropy: Tensor
    values: Tensor


@dataclass
class Models:
    """The four models of PPO, three without a critic; the reference and the reward model are frozen.

    scorers: workers that hold the frozen ones, which are then not here.
    """

    policy: Policy
    reference: Policy | None
    reward: ScalarModel | StepModel | None
    value: ScalarModel | None
    scorers: "Scorers | None" = None


def rollout_params(config: PPOConfig | GroupConfig) -> SamplingParams:
    """How answers are drawn: nothing is left out, so that log-probabilities are of the whole distribution."""
    return SamplingParams(config.max_new_tokens, 0, config.temperature)


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
    """Sample group_size answers to each prompt, which follow each other, and score them with every model.

    group_size: the configuration's when not given.
    Each process does so for its part of the prompts, with the seeds of the prompts, and has the whole at the end.
    prompts_of: the prompts of any step, given where the answers are trained on; then a pool of samplers draws for all
    processes, where there is one, and of few answers the rollout's passes forward are also those of the first update.
    """
    policy, mine, some = models.policy, list(distributed.part(asked)), None
    count, pool = group_size or config.group_size, samplers.current() if prompts_of else None

    def request(step: int, prompts: list[Prompt]) -> samplers.Request:
        return samplers.Request(
            prompts, count, rollout_params(config), step_seed(seed, "rollout", step), config.max_length
        )

    with whole(policy.model, models.value and models.value.model):
        if pool is not None and prompts_of is not None:
            more = pool.off_policy and step < (config.max_steps or 500)
            ahead = request(step + 1, prompts_of(step + 1)) if more else None
            every = distributed.from_main(partial(pool.draw, policy, request(step, asked), ahead))
            drawn = list(distributed.part(every))
        elif mine:
            own = request(step, mine)
            drawn = draw(policy, mine, count, own.params, own.seed, own.max_length)
        if mine:
            some = _collect(models, mine, drawn, config, pool, prompts_of is not None)
    return Rollout.joined(distributed.gather(some))


def _collect(
    models: Models,
    asked: list[Prompt],
    drawn: list[list[Sample]],
    config: PPOConfig | GroupConfig,
    pool: samplers.Pool | None,
    trained_on: bool,
) -> Rollout:
    """What every model says of the answers that were drawn to each prompt."""
    policy, temperature = models.policy, config.temperature
    samples = [one for row in drawn for one in row]
    asked = [prompt for prompt, row in zip(asked, drawn, strict=True) for _ in row]
    prompt_ids = render_prompts(policy.tokenizer, [p.messages for p in asked])
    sequences = [ids + one.tokens for ids, one in zip(prompt_ids, samples, strict=True)]
    starts = [len(ids) for ids in prompt_ids]
    _, offsets = response_indices(sequences, starts)

    passes = passes_of(sequences, starts, offsets, config.micro_tokens)
    finish = _begin_frozen(models, passes, asked, samples, config)
    # The first update must be on all of them; roles on shared weights take turns, which a graph must not outlive.
    small = sum(map(len, sequences)) * FRESH_PART <= config.micro_tokens
    at_once = (config.minibatch_size or config.batch_size) >= len(samples) and world_size() == 1
    keep = trained_on and small and at_once and policy.lora is None
    (logprobs, entropy, values), fresh = _own(models, passes, int(offsets[-1]), temperature, keep)
    reference_logprobs, raw, step_rewards = finish()
    ended = torch.tensor([one.finish == "stop" for one in samples])
    scores = terminal_scores(raw, ended, config.missing_eos_penalty)
    sampled = torch.cat([torch.tensor(one.logprobs) for one in samples])
    weights = torch.ones_like(sampled)
    if pool is not None and pool.corrected:
        cap = pool.cluster.max_importance_weight
        if isinstance(config, PPOConfig | GRPOConfig):
            weights = truncated_importance_weights(logprobs, sampled, cap)
        else:  # RLOO and online DPO: the action is the whole answer
            weights = answer_importance_weights(logprobs, sampled, offsets, cap)
    tokens = (logprobs, reference_logprobs, values, entropy, sampled, weights, step_rewards)
    return Rollout(asked, samples, sequences, starts, offsets, scores, raw, ended, *tokens, fresh)


def _own(
    models: Models, passes: list[Pass], total: int, temperature: float, keep: bool
) -> tuple[list[Tensor], Fresh | None]:
    """Log-probs, entropies and values [T] of the models that are trained; with `keep`, of one pass, their graphs too."""
    found, fresh = [torch.zeros(total) for _ in range(3)], None
    for one in passes:
        with torch.set_grad_enabled(keep):
            said = [*models.policy.logprobs(one.packed, one.targets, temperature), torch.zeros(len(one.targets))]
            if models.value is not None:
                said[2] = models.value.per_token(one.packed)[one.targets - 1]
        for into, new in zip(found, said, strict=True):
            into[one.where] = new.detach()
        if keep:
            order = one.where.argsort()
            fresh = Fresh(*(new[order] for new in said))
    return found, fresh


def _begin_frozen(
    models: Models, passes: list[Pass], asked: list[Prompt], samples: list[Sample], config: PPOConfig | GroupConfig
) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
    """Ask what the frozen models say of all episodes: the reference's log-probs [T], scores [N], step rewards [T].

    What is returned waits for it; scorers compute it in the meantime, and without them it is computed then.
    """
    policy, lengths = models.policy, (config.max_length, config.micro_tokens)
    reference_logprobs, step_rewards = (torch.zeros(sum(len(one.tokens) for one in samples)) for _ in range(2))
    if models.scorers is not None:
        scorers, raw = models.scorers, torch.zeros(len(samples))
        texts = [text_of(policy, one) for one in samples]
        more: Any = dict(zip(("max_length", "micro_tokens"), lengths, strict=True))
        scorers.begin(passes, asked, samples, texts, temperature=config.temperature, **more)

        def finish() -> tuple[Tensor, Tensor, Tensor]:
            scorers.finish(reference_logprobs, raw, step_rewards)
            return reference_logprobs, raw, step_rewards

        return finish

    @torch.no_grad()
    def compute() -> tuple[Tensor, Tensor, Tensor]:
        assert models.reference is not None and models.reward is not None
        for one in passes:
            found, _ = models.reference.logprobs(one.packed, one.targets, config.temperature)
            reference_logprobs[one.where] = found
        if isinstance(models.reward, StepModel):
            scored = process_rewards(models.reward, policy, asked, samples, config.max_length)
            return reference_logprobs, *scored
        return reference_logprobs, score_answers(models.reward, policy, asked, samples, *lengths), step_rewards

    return compute


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
    texts = [text_of(policy, one) for one in samples]
    scores = torch.zeros(len(samples))
    for micro, packed in reward_passes(reward.tokenizer, asked, texts, max_length, micro_tokens):
        scores[micro] = reward.scores(packed)
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
