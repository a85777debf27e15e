"""A run that was killed at any moment and resumed is the run that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tutelage.errors import UserError
from tutelage.runs import Run

from .training import facts, train

TRAINING = Path(__file__).with_name("training.py")
# Every way in which the run folder changes what is on disk.
CHANGES = ("mkdir", "rename", "replace", "unlink", "rmdir", "symlink", "fsync")
FEW = 7  # steps, with checkpoints at 3, 6, 7 and 7 again


def killed_before_change(n: int, out: Path) -> bool:
    """Train in a child that kills itself (-9) before its n-th change to the disk; whether it got that far."""
    child = os.fork()
    if child == 0:
        count = 0

        def dying(original, skip):
            def change(*args, **kwargs):
                nonlocal count
                count += 1
                if count == n:
                    os.kill(os.getpid(), signal.SIGKILL)
                return None if skip else original(*args, **kwargs)

            return change

        for name in CHANGES:
            setattr(os, name, dying(getattr(os, name), skip=name == "fsync"))
        try:
            train(out, steps=FEW)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"killed before change {n}: training failed"
    return os.WIFSIGNALED(status)


@pytest.fixture
def without_fsync(monkeypatch):
    """A killed process loses nothing that it wrote: only a power failure needs fsync, and it takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    train(out, steps=FEW)
    return facts(out)


def test_killed_before_every_single_change_of_the_disk(whole, tmp_path, without_fsync):
    n = 1
    while killed_before_change(n, tmp_path / str(n)):
        train(tmp_path / str(n), steps=FEW)
        assert facts(tmp_path / str(n)) == whole, f"killed before change {n}"
        n += 1
    assert n > 100, "the disk is changed more often than this"


def test_killed_again_and_again_while_resuming(whole, tmp_path, without_fsync):
    out = tmp_path / "run"
    chance = random.Random(1)
    kills = sum(killed_before_change(chance.randint(1, 60), out) for _ in range(30))
    assert kills > 5
    assert facts(out) == whole


def start(out: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, str(TRAINING), str(out), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(out: Path, rows: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_bytes().count(b"\n") >= rows:
            return
        time.sleep(0.002)
    raise AssertionError(f"the stage did not write {rows} rows: {process.communicate()[1]}")


@pytest.mark.parametrize("seed", range(3))
def test_killed_from_outside_at_a_random_moment(tmp_path, seed):
    chance = random.Random(seed)
    for name in ("whole", "killed"):
        out = tmp_path / name
        if name == "killed":
            process = start(out, 0.01)
            wait_for_rows(out, chance.randint(2, 9), process)
            time.sleep(chance.random() * 0.02)
            process.kill()
            process.wait()
        train(out, size=400)
    assert facts(tmp_path / "killed") == facts(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_after_the_step_with_a_checkpoint_and_the_run_goes_on(tmp_path, number):
    process = start(tmp_path / "stopped", 0.05)
    wait_for_rows(tmp_path / "stopped", 4, process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping after this step; press Ctrl-C again to stop at once" in errors
    assert "Traceback" not in errors
    step = int(output.split("stopped at step ")[1].split(";")[0])
    rows = (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] == step
    assert os.readlink(tmp_path / "stopped" / "checkpoints" / "latest") == f"step-{step}/model"
    train(tmp_path / "stopped", size=400)
    train(tmp_path / "whole", size=400)
    stopped, whole = facts(tmp_path / "stopped"), facts(tmp_path / "whole")
    assert stopped["rows"] == whole["rows"]
    assert stopped["latest"] == whole["latest"]


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    process = start(tmp_path / "run", 0.05)
    wait_for_rows(tmp_path / "run", 2, process)
    process.send_signal(signal.SIGSTOP)  # so that both arrive within one step
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    train(tmp_path / "run", size=400)
    train(tmp_path / "whole", size=400)
    assert facts(tmp_path / "run")["rows"] == facts(tmp_path / "whole")["rows"]


def test_a_run_that_another_process_writes_is_left_alone(tmp_path):
    process = start(tmp_path / "run", 0.2)
    wait_for_rows(tmp_path / "run", 1, process)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="another process is writing this run"):
        Run.open(tmp_path / "run", stage="sft", config={"seed": 3, "max_steps": 12, "learning_rate": 1e-5}, resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes().startswith(before)
    process.kill()
    process.communicate()
    train(tmp_path / "run", size=400)
