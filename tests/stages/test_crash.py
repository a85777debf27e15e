"""A stage that was killed at any moment and resumed has the numbers and the weights of the one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.configs import LabelConfig, PPOConfig, PretrainConfig, RewardConfig, SampleConfig, SFTConfig
from tutelage.recipe import load_recipe
from tutelage.runs import finished
from tutelage.runs.metrics import registered
from tutelage.stages.recipe_run import run_recipe
from tutelage.verbs import stage_function

TIMES = {"seconds", "wall_seconds", "time/rollout", "time/update", "peak_rss_bytes", "created", "command", "out"}
COMMON = {"seed": 3, "max_length": 96, "dtype": "float32", "learning_rate": 1e-3}
CHANGES = ("mkdir", "rename", "replace", "unlink", "rmdir", "symlink", "fsync")


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def kill_before(monkeypatch):
    """kill_before(n): the n-th change of the disk, and every one after it, does not happen. Counts them all."""
    seen = {"changes": 0, "last": 0}

    def dying(original, skip):
        def change(*args, **kwargs):
            seen["changes"] += 1
            if seen["last"] and seen["changes"] >= seen["last"]:
                raise Killed
            return None if skip else original(*args, **kwargs)

        return change

    for name in CHANGES:
        monkeypatch.setattr(os, name, dying(getattr(os, name), skip=name == "fsync"))

    def arm(n):
        before, seen["changes"], seen["last"] = seen["changes"], 0, n
        return before

    return arm


def timeless(value):
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def facts(run: Path):
    """What must not depend on whether the run was killed."""
    made = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        assert ".tmp" not in name, "a half-written file stayed"
        if path.suffix == ".safetensors":
            made[name] = path.read_bytes()
        elif path.suffix == ".jsonl":
            made[name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name in ("summary.json", "report.json", "eval.json"):
            made[name] = json.loads(path.read_text().replace(str(run), "RUN"))
            made[name] = timeless(made[name])
        elif path.is_file() or path.is_symlink():
            made[name] = None
    return made


def killed_and_resumed(kill_before, run, out, points):
    """Killed once at each of the points (changes of the disk), and then left alone."""
    for n in points:
        kill_before(n)
        try:
            run(out, resume=out.exists())
        except Killed:
            continue
        finally:
            kill_before(0)
    run(out, resume=True)
    return facts(out)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"prompt": f"Say {i}", "chosen": f"It is {i}.", "rejected": "No" * (i % 3 + 1)} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def rewarded(nano, pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("rewarded") / "reward"
    config = RewardConfig(model=str(nano), data=str(pairs), out=str(out), max_steps=2, batch_size=8, **COMMON)
    stage_function("reward")(config)
    return out


def stage_config(verb, nano, pairs, rewarded, out, resume):
    training = {"out": str(out), "resume": resume, "save_every": 2, "max_steps": 3, "model": str(nano), **COMMON}
    if verb == "pretrain":
        return PretrainConfig(tokens=9000, batch_size=4, **training)
    if verb == "sft":
        return SFTConfig(data=str(pairs), batch_size=4, dropout=0.1, **training)
    if verb == "reward":
        return RewardConfig(data=str(pairs), batch_size=4, eval_every=2, **training)
    return PPOConfig(
        data=str(pairs), reward_model=str(rewarded), force=True, batch_size=8, minibatch_size=4, max_new_tokens=6,
        eval_every=1, eval_prompts=4, ema=0.5, **training,
    )  # fmt: skip


@pytest.mark.parametrize("verb", ["pretrain", "sft", "reward", "ppo"])
def test_training_killed_between_changes_of_the_disk(verb, nano, pairs, rewarded, tmp_path, kill_before):
    def run(out, resume):
        return stage_function(verb)(stage_config(verb, nano, pairs, rewarded, out, resume))

    run(tmp_path / "whole", resume=False)
    changes = kill_before(0)
    whole = facts(tmp_path / "whole")
    logged = {name for row in whole["metrics.jsonl"] for name in row} | TIMES
    assert set(registered(verb)) - logged <= {"loss/ptx", "ptx/grad_ratio"}, "registered, but never logged"
    # Within the first checkpoint, within the last, and before the summary, each in a resumption of the one before.
    points = (random.Random(verb).randint(5, changes // 2), changes // 3, 9)
    killed = killed_and_resumed(kill_before, run, tmp_path / "killed", points)
    assert killed == whole
    almost = tmp_path / "almost"
    assert killed_and_resumed(kill_before, run, almost, (changes - 1,)) == whole
    before = finished(almost)
    assert run(almost, resume=True) == before, "a finished run stays as it is"


def test_sampling_and_labeling_write_whole_files_or_none(nano, tmp_path, kill_before):
    drawn, ranked = tmp_path / "completions.jsonl", tmp_path / "comparisons.jsonl"
    common = {"prompts": 12, "samples": 2, "max_new_tokens": 6, "max_length": 96, "dtype": "float32"}
    stages = [
        ("sample", SampleConfig(model=str(nano), out=str(drawn), **common), drawn),
        ("label", LabelConfig(data=str(drawn), out=str(ranked)), ranked),
    ]
    for verb, config, path in stages:
        kill_before(0)
        stage_function(verb)(config)
        changes, content = kill_before(0), path.read_bytes()
        path.unlink()
        for n in range(1, changes + 1):
            kill_before(n)
            with pytest.raises(Killed):
                stage_function(verb)(config)
            kill_before(0)
            assert not path.exists() or path.read_bytes() == content
        stage_function(verb)(config)
        assert path.read_bytes() == content


RECIPE = """
stages:
  - sft: {max_steps: 2, batch_size: 4, learning_rate: 1.0e-3, max_length: 96, dtype: float32}
  - reward: {max_steps: 2, batch_size: 4, learning_rate: 1.0e-3, max_length: 96, dtype: float32}
  - ppo: {max_steps: 2, batch_size: 8, minibatch_size: 4, max_new_tokens: 6, eval_prompts: 4, max_length: 96,
          dtype: float32, force: true}
  - eval: {prompts: 4, max_new_tokens: 6, max_length: 96, dtype: float32}
"""


def test_a_recipe_killed_in_every_stage(nano, pairs, tmp_path, kill_before):
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def run(out, resume):
        options = {"model": str(nano), "data": str(pairs), "out": str(out), "resume": resume}
        return run_recipe(load_recipe(tmp_path / "recipe.yaml", **options), "command")

    sft, reward, ppo, _ = run(tmp_path / "whole", resume=False)["stages"]
    assert sft["demonstrations"] > 0 and reward["comparisons"] > 0 and ppo["episodes"] == 2 * 8
    changes = kill_before(0)
    points = [changes // 6] * 5
    killed = killed_and_resumed(kill_before, run, tmp_path / "killed", points)
    assert killed == facts(tmp_path / "whole")


def killed_from_outside(run, out, rows, pause):
    """A process of its own (forked, for want of seconds to load everything anew), killed after some rows and a while."""
    child = os.fork()
    if child == 0:
        try:
            run(out, resume=False)
        finally:
            os._exit(0)
    log = out / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and log.read_bytes().count(b"\n") >= rows):
        time.sleep(0.001)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("verb", ["sft", "reward", "ppo"])
def test_killed_from_outside_at_a_random_moment(verb, nano, pairs, rewarded, tmp_path):
    def run(out, resume):
        config = stage_config(verb, nano, pairs, rewarded, out, resume)
        return stage_function(verb)(replace(config, max_steps=10))

    chance = random.Random()
    rows, pause = chance.randint(1, 8), chance.random() * 0.05
    killed_from_outside(run, tmp_path / "killed", rows, pause)
    for out in ("killed", "whole"):
        run(tmp_path / out, resume=True)
    assert facts(tmp_path / "killed") == facts(tmp_path / "whole"), f"killed {pause} s after row {rows}"


def test_ctrl_c_saves_and_says_how_to_go_on(nano, tmp_path):
    out = tmp_path / "stopped"
    words = ["sft", "--model", str(nano), "--out", str(out), "--max-steps", "5000", "--save-every", "5000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tutelage", *words, "--demonstrations", "20", "--batch-size", "4"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / "metrics.jsonl").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130 and "Traceback" not in said
    step = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert os.readlink(out / "checkpoints" / "latest") == f"step-{step}/model"
    assert f"stopped at step {step} of {out}; go on with:\n  tutelage sft --model {nano}" in said
    assert said.endswith("--resume\n")
