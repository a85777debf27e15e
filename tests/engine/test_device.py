"""Where models compute: the choice, and every stage on a GPU that is pretended, for want of one."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from tutelage.configs import SFTConfig
from tutelage.engine import device
from tutelage.engine.packing import pack
from tutelage.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def unchosen(monkeypatch):
    monkeypatch.setattr(device, "_chosen", None)


def gpus(monkeypatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_auto_is_the_local_ranks_gpu_or_the_cpu(monkeypatch):
    gpus(monkeypatch, 0)
    assert device.resolve("auto") == device.resolve("cpu") == torch.device("cpu")
    gpus(monkeypatch, 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device.resolve("auto") == device.resolve("cuda") == torch.device("cuda", 3)
    assert device.resolve("cuda:1") == torch.device("cuda", 1) and device.resolve("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="4 GPUs"):
        device.resolve("cuda:4")
    gpus(monkeypatch, 0)
    with pytest.raises(UserError, match="no GPU"):
        device.resolve("cuda")


def test_a_device_that_is_none_is_refused():
    with pytest.raises(UserError, match="cuda:N"):
        SFTConfig(device="gpu")


def test_each_thread_makes_tensors_where_the_process_computes(monkeypatch):
    monkeypatch.setattr(device, "resolve", lambda name: torch.device("meta"))  # a device that every torch has
    found = []
    with device.computing("auto"):
        found.append(torch.zeros(2).device.type)
        thread = threading.Thread(target=device.on_device(lambda: found.append(torch.zeros(2).device.type)))
        thread.start()
        thread.join()
        with device.from_disk():
            found.append(torch.zeros(2).device.type)
    assert found == ["meta", "meta", "cpu"] and torch.zeros(2).device.type == "cpu"


def start(where: str, out: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "tests.engine.every_stage", where, str(out)]
    path = os.pathsep.join([str(ROOT), *sys.path])
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "TUTELAGE_QUIET": "1"}, **options)


def test_every_stage_computes_on_a_gpu_what_it_does_on_the_cpu(tmp_path):
    running = {where: start(where, tmp_path / where) for where in ("cpu", "gpu")}
    said = {where: process.communicate() for where, process in running.items()}
    assert all(process.returncode == 0 for process in running.values()), said["gpu"][1][-2000:]
    cpu, gpu = ({k: v for line in out.splitlines() for k, v in json.loads(line).items()} for out, _ in said.values())
    assert cpu.keys() == gpu.keys() and len(cpu) == 9
    assert cpu["serve"][:2] == gpu["serve"][:2] and cpu["serve"][2] == pytest.approx(gpu["serve"][2], abs=2e-3)
    for name in ("sft", "adapter", "reward", "dpo", "ppo", "grpo"):
        for step, (ours, theirs) in enumerate(zip(cpu[name], gpu[name], strict=True)):
            # From the second step on Adam makes much of rounding: gradients near zero have a sign only.
            assert ours == pytest.approx(theirs, rel=1e-4 if step == 0 else 5e-3, abs=1e-5 if step == 0 else 2e-3), name
    rows = [(tmp_path / where / "answers.jsonl").read_text().splitlines() for where in running]
    cpus, gpus_ = ([one["text"] for row in some if "text" in (one := json.loads(row))] for some in rows)
    assert cpus == gpus_ and len(cpus) > 20  # a prompt's seed draws the same tokens on every device


def test_a_tensor_that_stays_behind_is_found(tmp_path):
    process = start("mutant", tmp_path)
    _, said = process.communicate()
    assert process.returncode == 1 and "a tensor of the GPU and one of the CPU" in said


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_packed_log_probabilities_on_a_gpu_are_the_cpus(nano):
    from tutelage.models import load_policy

    rows, targets = [[5, 6, 7, 8], [5, 6, 9], [7, 8, 5, 6, 9, 3]], [1, 3, 5, 6, 8, 12]
    found = []
    for name in ("cpu", "cuda"):
        with device.computing(name), torch.no_grad():
            found.append(
                load_policy(nano, "float32").logprobs(pack(rows, share=True), torch.tensor(targets))[0].tolist()
            )
    assert found[0] == pytest.approx(found[1], abs=1e-4)
