"""Several trainers behind a pretended Ray: the main one's samplers draw for all, and the numbers are those of one trainer."""

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch

from forked import run_on
from pretended_ray import Actor, Ray
from resumed import rows
from tutelage.cluster import samplers, scorers
from tutelage.cluster.trainer import _first
from tutelage.configs import PPOConfig
from tutelage.configs.cluster import ClusterConfig
from tutelage.errors import UserError
from tutelage.models import load_policy, load_scalar, resolve, save_model
from tutelage.processes import rank
from tutelage.verbs import stage_function

COMPARED = (
    *("objective/scores", "objective/kl", "objective/entropy", "response_length/mean", "grad_norm", "loss"),
    *("sampling/sampling_logp_difference/mean", "sampling/importance_sampling_ratio/mean"),
)


@pytest.fixture(scope="module")
def config(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    torch.manual_seed(1)
    save_model(folder, load_scalar(nano, "float32", trained=False), {"role": "reward"}, verify=False)
    common = {"model": str(nano), "reward_model": str(folder), "dtype": "float32", "seed": 3, "force": True}
    common |= {"max_length": 96, "max_new_tokens": 8, "max_steps": 2, "batch_size": 8, "minibatch_size": 8}
    common |= {"learning_rate": 1e-3, "warmup_steps": 0, "eval_prompts": 2, "micro_tokens": 300}
    return PPOConfig(**common)


def train(config, cluster: ClusterConfig) -> tuple[int, int]:
    """(samplers, scorers) that this trainer started."""
    calls, begun = itertools.count(), []
    load = partial(load_policy, config.model, "float32", device="cpu")

    def sampler(seat):
        begun.append("sampler")
        return Actor(samplers.Sampler(load, 1), calls)

    def scorer(seat):
        assert seat % cluster.trainers == rank()
        begun.append("scorer")
        return Actor(scorers.Scorer(config.model, config.reward_model, "float32", "cpu", 1), calls)

    apart = scorers.Scorers(Ray(2), scorer, cluster, resolve(config.reward_model)) if cluster.scorers else None
    with samplers.using(samplers.Pool(Ray(1), sampler, cluster)), scorers.using(apart):
        stage_function(config.verb)(config)
    return begun.count("sampler"), begun.count("scorer")


def test_two_trainers_train_as_one(config, tmp_path):
    """Sharded models, three scorers, answers of the weights before."""
    block = {"samplers": 2, "mode": "one-step-off", "scorers": 3}
    train(replace(config, out=str(tmp_path / "one")), ClusterConfig(**block))
    sharded = replace(config, out=str(tmp_path / "two"), parallel="fsdp")
    begun = run_on(2, tmp_path, train, sharded, ClusterConfig(**block, trainers=2))
    assert begun == [(2, 2), (0, 1)]
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row["step"] for row in two] == [1, 2]
    for alone, together in zip(one, two, strict=True):
        for name in COMPARED:
            assert together[name] == pytest.approx(alone[name], rel=1e-4, abs=1e-5), (name, alone["step"])
    assert one[1]["sampling/importance_sampling_ratio/mean"] != 1.0


def test_a_mistake_on_the_main_trainer_is_told_by_all(config, tmp_path):
    """What a sampler cannot mend reaches each trainer: none waits for the others."""

    def work(config):
        def broken(seat):
            class Worker:
                def ready(self):
                    raise UserError("vLLM is not installed", mend="install it")

            return Actor(Worker(), itertools.count())

        try:
            with samplers.using(samplers.Pool(Ray(1), broken, ClusterConfig(trainers=2))):
                stage_function(config.verb)(config)
        except UserError as error:
            return error.what

    assert run_on(2, tmp_path, work, replace(config, out=str(tmp_path / "run"))) == ["vLLM is not installed"] * 2


class Errors:
    class RayActorError(Exception): ...

    class GetTimeoutError(Exception): ...

    class RayTaskError(Exception):
        cause: BaseException | None = None


class Runs:
    """Of Ray what `_first` uses; a run is what it ends with."""

    exceptions = Errors

    def __init__(self):
        self.asked = []

    def wait(self, left, num_returns):
        return [left[0]], list(left[1:])

    def get(self, run, timeout=None):
        self.asked.append(run)
        if isinstance(run, BaseException):
            raise run
        return run


def test_a_lost_connection_is_the_death_of_the_other_trainer():
    lost, died = Errors.RayTaskError("connection closed by peer"), Errors.RayActorError("killed")
    with pytest.raises(Errors.RayActorError):
        _first(Runs(), [lost, died])
    with pytest.raises(Errors.RayTaskError, match="closed"):
        _first(Runs(), [lost, {"checkpoint": "b"}])
    assert _first(Runs(), [{"checkpoint": "a"}, {"checkpoint": "b"}]) == {"checkpoint": "a"}
    mistake = Errors.RayTaskError("the user's")
    mistake.cause = UserError("no room")
    runs = Runs()
    with pytest.raises(Errors.RayTaskError):
        _first(runs, [mistake, died])
    assert runs.asked == [mistake]  # said at once
