"""The `cluster:` block: what it asks for, what is refused, and what --dry-run shows."""

import sys
from types import ModuleType

import pytest
import yaml

from tutelage.cli import recipes
from tutelage.cluster.placement import bundles, reserved
from tutelage.cluster.trainer import run_placed
from tutelage.configs import PPOConfig
from tutelage.configs.cluster import ClusterConfig
from tutelage.errors import UserError
from tutelage.recipe import load_recipe

STAGES = [{"sft": {}}, {"sample": {}}, {"label": {}}, {"reward": {}}, {"ppo": {}}]


def recipe(folder, cluster, stages=STAGES):
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "cluster": cluster, "stages": stages}))
    return path


def test_the_trainer_comes_first_and_what_is_zero_is_not_asked_for():
    cluster = ClusterConfig(samplers=2, sampler_cpus=2, trainer_gpus=1)
    assert bundles(cluster) == reserved(cluster) == [{"CPU": 1.0, "GPU": 1}, {"CPU": 2}, {"CPU": 2}]


def test_samplers_that_may_join_have_no_place_kept(tmp_path, capsys):
    assert reserved(ClusterConfig(samplers=3, least_samplers=1)) == [{"CPU": 1.0}, {"CPU": 1.0}]
    recipes.main("run", [str(recipe(tmp_path, {"samplers": 2, "least_samplers": 1})), "--dry-run"])
    shown = capsys.readouterr().out
    assert "# sampler 1: 1 CPU\n" in shown and "# sampler 2: 1 CPU, when there is room\n" in shown


def test_scorers_stand_between_trainer_and_samplers_and_keep_their_places(tmp_path, capsys):
    block = {"samplers": 2, "least_samplers": 1, "scorers": 2, "scorer_cpus": 3, "scorer_gpus": 1}
    each = {"CPU": 3, "GPU": 1}
    assert bundles(ClusterConfig(**block)) == [{"CPU": 1.0}, each, each, {"CPU": 1.0}, {"CPU": 1.0}]
    assert reserved(ClusterConfig(**block)) == [{"CPU": 1.0}, each, each, {"CPU": 1.0}]
    recipes.main("run", [str(recipe(tmp_path, block)), "--dry-run"])
    shown = capsys.readouterr().out.split("# placement\n")[1].splitlines()
    assert "# ppo: 1 trainer, the scorers and the samplers" in shown and "# scorer 2: 3 CPU + 1 GPU" in shown
    assert shown[-2:] == ["# sampler 2: 1 CPU, when there is room", "# in all: 9 CPU + 2 GPU"]


def test_several_trainers_come_first_each_with_its_own(tmp_path, capsys):
    block = {"trainers": 2, "trainer_gpus": 1, "samplers": 1}
    assert bundles(ClusterConfig(**block)) == [{"CPU": 1.0, "GPU": 1}, {"CPU": 1.0, "GPU": 1}, {"CPU": 1.0}]
    assert reserved(ClusterConfig(**block)) == bundles(ClusterConfig(**block))
    recipes.main("run", [str(recipe(tmp_path, block)), "--dry-run"])
    shown = capsys.readouterr().out.split("# placement\n")[1].splitlines()
    assert "# ppo: 2 trainers and the samplers" in shown and shown[-1] == "# in all: 3 CPU + 2 GPU"
    assert "# trainer 2: 1 CPU + 1 GPU; begun anew at most 3 times" in shown


def test_dry_run_prints_the_placement(tmp_path, capsys):
    path = recipe(tmp_path, {"samplers": 3, "sampler_gpus": 1, "mode": "one-step-off", "backend": "vllm"})
    recipes.main("run", [str(path), "--dry-run"])
    shown = capsys.readouterr().out.split("# placement\n")[1].splitlines()
    assert "# ppo: 1 trainer and the samplers" in shown and "# sft: this process" in shown
    assert "# sampler 3: 1 CPU + 1 GPU" in shown and shown[-1] == "# in all: 4 CPU + 3 GPU"
    assert "one-step-off" in shown[0] and shown[1] == "# samplers use vLLM"


@pytest.mark.parametrize(
    "cluster, stages, said",
    [
        ({"sampler": 2}, STAGES, "did you mean samplers"),
        ({"samplers": 0}, STAGES, "key samplers"),
        ({"scorers": -1}, STAGES, "key scorers"),
        ({"trainers": 0}, STAGES, "key trainers"),
        ({"trainers": 3, "scorers": 2}, STAGES, "give 3 or more"),
        ({"samplers": 2, "least_samplers": 3}, STAGES, "from 1 to 2"),
        ({"mode": "async"}, STAGES, "one-step-off"),
        ({"backend": "hf"}, STAGES, "vllm"),
        ([2], STAGES, "no mapping"),
        ({}, [{"sft": {}}], "no stage samples"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, cluster, stages, said):
    with pytest.raises(UserError, match=said):
        load_recipe(recipe(tmp_path, cluster, stages))


@pytest.mark.parametrize("stage", ["ppo", "rloo", "grpo", "online-dpo"])
def test_every_on_policy_stage_may_be_one_step_off(tmp_path, stage):
    found = load_recipe(recipe(tmp_path, {"mode": "one-step-off"}, [*STAGES[:-1], {stage: {}}]))
    assert found.cluster == ClusterConfig(mode="one-step-off")


def test_what_is_typed_stands_on_top_of_the_block(tmp_path):
    path = recipe(tmp_path, {"samplers": 3, "trainer-cpus": 2})
    typed = {"cluster": {"samplers": "5", "trainer_cpus": "4"}}
    assert load_recipe(path, stage_options=typed).cluster == ClusterConfig(samplers=5, trainer_cpus=4)
    with pytest.raises(UserError, match="did you mean samplers"):
        load_recipe(path, stage_options={"cluster": {"sampler": "5"}})


class Reached(Exception):
    """Ray was started or joined, and the test needs no more of it."""


def joined_with(monkeypatch, cluster, environment) -> dict:
    """What `run_placed` gives ray.init: a stand-in with the rule of ray.init in Ray 2 (python/ray/_private/worker.py).

    None or auto: RAY_ADDRESS, or a cluster that runs on this machine; `local`: a new one. What is joined has its
    resources already, and refuses to be given any.
    """
    given = {}

    def init(address=None, num_cpus=None, num_gpus=None, include_dashboard=None, log_to_driver=True):
        found = environment or "10.0.0.7:6379" if address in (None, "auto") else address
        if found != "local" and (num_cpus is not None or num_gpus is not None):
            raise ValueError("When connecting to an existing cluster, num_cpus and num_gpus must not be provided.")
        given.update(joined=found, num_cpus=num_cpus)
        raise Reached

    stand_in = ModuleType("ray")
    stand_in.init, stand_in.is_initialized = init, lambda: False
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    if environment:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    else:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(Reached):
        run_placed("ppo", PPOConfig(), cluster)
    return given


def test_a_cluster_that_runs_is_joined_without_resources_of_our_own(monkeypatch):
    block = ClusterConfig(samplers=3, trainer_cpus=2)
    assert joined_with(monkeypatch, block, None) == {"joined": "local", "num_cpus": 5}
    assert joined_with(monkeypatch, block, "head:6379") == {"joined": "head:6379", "num_cpus": None}
    auto = ClusterConfig(address="auto")
    assert joined_with(monkeypatch, auto, None) == {"joined": "10.0.0.7:6379", "num_cpus": None}
    assert joined_with(monkeypatch, auto, "head:6379") == {"joined": "head:6379", "num_cpus": None}
    named = ClusterConfig(address="ray://head:10001")
    assert joined_with(monkeypatch, named, "other:6379")["joined"] == "ray://head:10001"


def test_torchrun_and_ray_do_not_mix(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun"):
        run_placed("ppo", PPOConfig(), ClusterConfig())
