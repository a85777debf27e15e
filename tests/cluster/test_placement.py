"""The `cluster:` block: what it asks for, what is refused, and what --dry-run shows."""

import pytest
import yaml

from tutelage.cli import recipes
from tutelage.cluster.placement import bundles
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
    assert bundles(cluster) == [{"CPU": 1.0, "GPU": 1}, {"CPU": 2}, {"CPU": 2}]


def test_dry_run_prints_the_placement(tmp_path, capsys):
    path = recipe(tmp_path, {"samplers": 3, "sampler_gpus": 1, "mode": "one-step-off"})
    recipes.main("run", [str(path), "--dry-run"])
    shown = capsys.readouterr().out.split("# placement\n")[1].splitlines()
    assert "# ppo: 1 trainer and the samplers" in shown and "# sft: this process" in shown
    assert "# sampler 3: 1 CPU + 1 GPU" in shown and shown[-1] == "# in all: 4 CPU + 3 GPU"
    assert "one-step-off" in shown[0]


@pytest.mark.parametrize(
    "cluster, stages, said",
    [
        ({"sampler": 2}, STAGES, "did you mean samplers"),
        ({"samplers": 0}, STAGES, "key samplers"),
        ({"mode": "async"}, STAGES, "one-step-off"),
        ([2], STAGES, "no mapping"),
        ({}, [{"sft": {}}], "no stage samples"),
        ({"mode": "one-step-off"}, [*STAGES[:-1], {"rloo": {}}], "importance weights"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, cluster, stages, said):
    with pytest.raises(UserError, match=said):
        load_recipe(recipe(tmp_path, cluster, stages))


def test_torchrun_and_ray_do_not_mix(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun"):
        run_placed("ppo", PPOConfig(), ClusterConfig())
