"""PPO with one trainer and two samplers under Ray; one sampler is killed on the way."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tutelage.configs import PPOConfig
from tutelage.configs.cluster import ClusterConfig
from tutelage.stages import ppo

pytest.importorskip("ray", reason="Ray is not installed: pip install 'tutelage[ray]'")


def samplers() -> list[int]:
    """Processes of the actors that sample; Ray names them after their class."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if words.startswith(b"ray::Sampler"):
                found.append(int(process.name))
    return found


def kill_one(metrics: Path, killed: list[int]) -> None:
    """After the first iteration, kill a sampler."""
    while not metrics.exists() or not metrics.read_text():
        time.sleep(0.05)
    killed.append(samplers()[0])
    os.kill(killed[0], signal.SIGKILL)


def test_a_killed_sampler_changes_nothing(nano, tmp_path):
    from tutelage.cluster.trainer import run_placed
    from tutelage.models import load_scalar, save_model

    reward = load_scalar(nano, "float32", trained=False)
    save_model(tmp_path / "reward", reward, {"role": "reward"}, verify=False)
    options = {"model": str(nano), "reward_model": str(tmp_path / "reward"), "force": True, "dtype": "float32"}
    options |= {"max_steps": 4, "batch_size": 8, "minibatch_size": 8, "max_new_tokens": 8, "max_length": 96}
    options |= {"eval_prompts": 2, "seed": 1, "learning_rate": 1e-3}
    ppo.run(PPOConfig(**options, out=str(tmp_path / "alone")))

    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(tmp_path / "placed/metrics.jsonl", killed), daemon=True)
    killer.start()
    run_placed("ppo", PPOConfig(**options, out=str(tmp_path / "placed")), ClusterConfig(samplers=2))
    assert killed
    alone, placed = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("alone", "placed")
    )
    for one, other in zip(alone, placed, strict=True):
        for name in ("objective/scores", "response_length/mean", "loss/policy_avg", "grad_norm"):
            assert other[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), name
