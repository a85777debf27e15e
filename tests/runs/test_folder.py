"""The run folder: written whole or not at all, resumed at the last complete checkpoint, clear when the disk is full."""

import errno
import json
import os

import pytest

from tutelage.errors import UserError
from tutelage.runs import DiskFullError, Run, write_text
from tutelage.runs.folder import finished

CONFIG = {"learning_rate": 1e-3, "max_steps": 4}


def model(text):
    def write(folder):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(text)

    return write


def test_resume_drops_what_came_after_the_checkpoint(tmp_path):
    run = Run.open(tmp_path / "r", stage="sft", config=CONFIG, resume=False)
    for step in (1, 2, 3):
        run.log({"step": step, "loss": 1.0 / step})
        if step == 2:
            run.save(2, model("two"), {"x": 2})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # killed in the middle of a line
    (run.path / "checkpoints" / ".tmp-step-4").mkdir()
    again = Run.open(tmp_path / "r", stage="sft", config=CONFIG, resume=True)
    assert again.start_step == 2 and again.load_state() == {"x": 2}
    assert [json.loads(line)["step"] for line in (again.path / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert not list((again.path / "checkpoints").glob(".tmp*"))


def test_only_the_last_and_the_best_checkpoint_stay(tmp_path):
    run = Run.open(tmp_path / "r", stage="sft", config=CONFIG, resume=False)
    for step in (1, 2, 3):
        run.save(step, model(str(step)), None)
        if step == 1:
            run.mark_best(1)
    assert sorted(p.name for p in (run.path / "checkpoints").glob("step-*")) == ["step-1", "step-3"]
    assert (run.path / "checkpoints/latest/model.safetensors").read_text() == "3"
    assert (run.path / "checkpoints/best/model.safetensors").read_text() == "1"


def test_refusals(tmp_path):
    Run.open(tmp_path / "r", stage="sft", config=CONFIG, resume=False)
    with pytest.raises(UserError, match="--resume"):
        Run.open(tmp_path / "r", stage="sft", config=CONFIG, resume=False)
    with pytest.raises(UserError, match="learning_rate"):
        Run.open(tmp_path / "r", stage="sft", config={**CONFIG, "learning_rate": 1.0}, resume=True)
    with pytest.raises(FloatingPointError, match="loss"):
        Run.open(tmp_path / "n", stage="sft", config=CONFIG, resume=False).log({"step": 1, "loss": float("nan")})


def test_a_full_disk_leaves_the_last_checkpoint_and_the_old_file(tmp_path, monkeypatch):
    run = Run.open(tmp_path / "r", stage="sft", config=CONFIG, resume=False)
    run.save(1, model("good"), {"x": 1})
    write_text(tmp_path / "file", "old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="full"):
        run.save(2, model("bad"), {"x": 2})
    with pytest.raises(DiskFullError, match="full"):
        write_text(tmp_path / "file", "new")
    assert (run.path / "checkpoints/latest/model.safetensors").read_text() == "good"
    assert (tmp_path / "file").read_text() == "old" and not list(run.path.rglob(".tmp*"))


def test_summary_says_finished(tmp_path):
    run = Run.open(tmp_path / "r", stage="sft", config=CONFIG, resume=False)
    assert finished(run.path) is None
    run.finish({"steps": 4})
    assert finished(run.path)["steps"] == 4
