"""Scorers behind a pretended Ray: they give a run the numbers of one without them, whoever of them dies."""

import itertools
import random
from dataclasses import replace

import pytest
import torch

from pretended_ray import Actor, Ray
from resumed import rows
from tutelage.cluster import scorers
from tutelage.configs import PPOConfig, RLOOConfig
from tutelage.configs.cluster import ClusterConfig
from tutelage.models import is_step_model, load_scalar, load_step_model, resolve, save_model
from tutelage.stages import group_policy, loading, ppo

TIMES = ("seconds", "time/rollout", "time/update", "tokens_per_second")
RUNS = {"ppo": ppo.run, "rloo": group_policy.run, "steps": ppo.run}


@pytest.fixture(scope="module")
def configs(nano, tmp_path_factory):
    """PPO and RLOO against a fresh outcome reward model, and PPO against a fresh process reward model."""
    folder = tmp_path_factory.mktemp("rewards")
    torch.manual_seed(1)
    save_model(folder / "whole", load_scalar(nano, "float32", trained=False), {"role": "reward"}, verify=False)
    save_model(folder / "steps", load_step_model(nano, "float32", trained=False), {"role": "reward"}, verify=False)
    common = {"model": str(nano), "dtype": "float32", "seed": 3, "force": True, "batch_size": 8, "micro_tokens": 300}
    common |= {"max_length": 96, "max_new_tokens": 8, "max_steps": 2, "minibatch_size": 8, "learning_rate": 1e-3}
    common |= {"eval_prompts": 2, "reward_model": str(folder / "whole")}
    whole = PPOConfig(**common)
    steps = replace(whole, reward_model=str(folder / "steps"))
    return {"ppo": whole, "steps": steps, "rloo": RLOOConfig(**common, group_size=2)}


def pretended(config, deaths, seed=5):
    """Two scorers, and how many were started."""
    started, calls = itertools.count(), itertools.count(1)

    def start(seat):
        next(started)
        options = (str(config.model), str(config.reward_model), config.dtype, "cpu", 1)
        return Actor(scorers.Scorer(*options), calls, deaths)

    return scorers.Scorers(Ray(seed), start, ClusterConfig(scorers=2), resolve(config.reward_model)), started


def numbers(folder):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows(folder)]


@pytest.mark.parametrize("kind", ["ppo", "rloo", "steps"])
def test_a_run_with_scorers_that_die_has_the_numbers_of_one_without(configs, tmp_path, kind):
    config, run = configs[kind], RUNS[kind]
    assert is_step_model(config.reward_model) == (kind == "steps")
    torch.manual_seed(7)  # of the value model's head
    run(replace(config, out=str(tmp_path / "alone")))
    pool, started = pretended(config, frozenset(random.Random(kind).sample(range(1, 25), 6)))
    with scorers.using(pool):
        torch.manual_seed(7)
        run(replace(config, out=str(tmp_path / "apart")))
    assert next(started) > 2 and not pool.workers.busy  # others took the places of those that died
    for one, other in zip(numbers(tmp_path / "alone"), numbers(tmp_path / "apart"), strict=True):
        if kind == "steps":  # the process reward model's passes are others
            assert other == pytest.approx(one, rel=1e-4, abs=1e-5)
        else:
            assert other == one  # to the last bit


def test_the_trainer_holds_no_frozen_model(configs):
    config = configs["ppo"]
    pool, _ = pretended(config, ())
    with scorers.using(pool):
        models = loading.on_policy_models(config, resolve(config.model), resolve(config.reward_model))
    assert models.reference is None and models.reward is None
    assert models.value is not None and models.scorers is pool
