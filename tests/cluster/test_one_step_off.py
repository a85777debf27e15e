"""Training on answers of the weights before the last update: which weights drew them, and how they are weighted."""

import itertools
import math
from functools import partial
from pathlib import Path

import pytest
import torch

from pretended_ray import Actor, Ray
from resumed import rows
from tutelage.algorithms.importance import answer_importance_weights, truncated_importance_weights
from tutelage.cluster import samplers
from tutelage.configs import GRPOConfig, OnlineDPOConfig, PPOConfig, RLOOConfig
from tutelage.configs.cluster import ClusterConfig
from tutelage.engine.packing import pack
from tutelage.models import load_policy, load_scalar, save_model
from tutelage.stages import group_policy, ppo
from tutelage.stages.passes import response_indices

CAP = 1.05  # low, so that some weights are cut there


@pytest.fixture(scope="module")
def config(nano, tmp_path_factory):
    reward = tmp_path_factory.mktemp("reward")
    save_model(reward, load_scalar(nano, "float32", trained=False), {"role": "reward"}, verify=False)
    common = {"model": str(nano), "reward_model": str(reward), "force": True, "dtype": "float32", "seed": 3}
    sizes = {"max_steps": 4, "batch_size": 16, "minibatch_size": 16, "max_new_tokens": 8, "max_length": 96}
    return PPOConfig(**common, **sizes, eval_prompts=2, learning_rate=5e-3, warmup_steps=0, out=str(reward / "run"))


def pool_of(config, cluster):
    calls = itertools.count()
    load = partial(load_policy, config.model, "float32", device="cpu")
    return samplers.Pool(Ray(1), lambda seat: Actor(samplers.Sampler(load, 1), calls), cluster)


def test_each_token_is_weighted_by_how_the_policy_moved_since_it_was_drawn(config, nano, monkeypatch):
    seen, update = [], ppo._update

    def watched(config, models, adam, rollout, advantages_T, *rest):
        newest = {name: p.detach().clone() for name, p in models.policy.model.named_parameters()}
        seen.append((newest, rollout, advantages_T))
        return update(config, models, adam, rollout, advantages_T, *rest)

    monkeypatch.setattr(ppo, "_update", watched)
    cluster = ClusterConfig(mode="one-step-off", max_importance_weight=CAP)
    with samplers.using(pool_of(config, cluster)):
        ppo.run(config)

    older = load_policy(nano, "float32")
    for number, (_, rollout, advantages_T) in enumerate(seen):
        drew = seen[max(0, number - 1)][0]  # the first answers have no weights before
        with torch.no_grad():
            for name, parameter in older.model.named_parameters():
                parameter.copy_(drew[name])
            targets, _ = response_indices(rollout.sequences, rollout.starts)
            logprobs, _ = older.logprobs(pack(rollout.sequences), targets)
        assert torch.allclose(logprobs, rollout.sampled_logprobs, atol=1e-4)
        weights = truncated_importance_weights(rollout.logprobs, rollout.sampled_logprobs, CAP)
        assert torch.equal(rollout.weights, weights) and float(weights.max()) <= CAP
        whitened = advantages_T / rollout.weights
        assert float(whitened.mean()) == pytest.approx(0, abs=1e-4)
        assert float(whitened.std()) == pytest.approx(1, abs=0.01)
    assert float(seen[-1][1].weights.max()) == pytest.approx(CAP) and float(seen[-1][1].weights.min()) < 0.99
    gaps = [row["sampling/sampling_logp_difference/mean"] for row in rows(Path(config.out))]
    ratios = [row["sampling/importance_sampling_ratio/mean"] for row in rows(Path(config.out))]
    assert gaps[0] < 1e-4 < 1e-3 < min(gaps[1:])
    assert ratios == pytest.approx([float(rollout.weights.mean()) for _, rollout, _ in seen], abs=1e-5)


CRITICLESS = [(RLOOConfig, {}), (GRPOConfig, {}), (GRPOConfig, {"loss": "dr-grpo"}), (OnlineDPOConfig, {})]


@pytest.mark.parametrize(("cls", "changes"), CRITICLESS)
def test_the_losses_without_a_critic_are_weighted_too(config, monkeypatch, tmp_path, cls, changes):
    seen, backward = [], group_policy._backward

    def watched(config, policy, optimizer, rollout, groups, advantages_N):
        row = backward(config, policy, optimizer, rollout, groups, advantages_N)
        seen.append((rollout, groups, advantages_N, row["loss"]))
        return row

    monkeypatch.setattr(group_policy, "_backward", watched)
    names = ("model", "reward_model", "force", "dtype", "seed", "batch_size", "max_new_tokens", "max_length")
    same = {name: getattr(config, name) for name in (*names, "eval_prompts", "learning_rate", "warmup_steps")}
    made = cls(**same, group_size=4, max_steps=3, out=str(tmp_path / "run"), **changes)
    with samplers.using(pool_of(config, ClusterConfig(mode="one-step-off", max_importance_weight=CAP))):
        group_policy.run(made)

    for rollout, groups, advantages_N, loss in seen:
        pair = (rollout.logprobs, rollout.sampled_logprobs)
        by_token, by_answer = (
            truncated_importance_weights(*pair, CAP),
            answer_importance_weights(*pair, rollout.offsets, CAP),
        )
        weights_T = by_token if cls is GRPOConfig else by_answer
        assert torch.equal(rollout.weights, weights_T)
        # The policy has not moved when the minibatch begins: the loss by hand, of the log-probs there are.
        answers = [(rollout.logprobs[a:b], rollout.reference_logprobs[a:b], weights_T[a:b]) for a, b in spans(rollout)]
        if cls is OnlineDPOConfig:
            h = lambda one: float((one[0] - one[1]).sum())  # noqa: E731
            pairs = [(answers[best], answers[worst]) for best, worst in groups]
            losses = [float(a[2][0] * b[2][0]) * math.log1p(math.exp(-made.beta * (h(a) - h(b)))) for a, b in pairs]
        elif cls is RLOOConfig:
            losses = [-float(A * w[0] * now.sum()) for A, (now, _, w) in zip(advantages_N, answers, strict=True)]
        else:
            k3 = lambda now, reference: (reference - now).exp() - 1 - (reference - now)  # noqa: E731
            sums = [
                float((-A * w + made.kl_coef * k3(now, reference)).sum())
                for A, (now, reference, w) in zip(advantages_N, answers, strict=True)
            ]
            lengths = [made.max_new_tokens if changes else len(now) for now, _, _ in answers]
            losses = [one / length for one, length in zip(sums, lengths, strict=True)]
        assert loss == pytest.approx(sum(losses) / len(losses), rel=1e-4, abs=1e-5)
    assert len(seen) == 3 and bool((seen[0][0].weights - 1).abs().max() < 1e-3 < (seen[2][0].weights - 1).abs().max())


def spans(rollout):
    return itertools.pairwise(rollout.offsets.tolist())


def test_what_our_sampler_drew_with_the_newest_weights_has_weight_one(config):
    assert not pool_of(config, ClusterConfig()).corrected
    assert pool_of(config, ClusterConfig(mode="one-step-off")).corrected
    assert pool_of(config, ClusterConfig(backend="vllm")).corrected  # another program's rounding
