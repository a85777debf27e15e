"""What a run's folder holds, what --resume accepts, and what it refuses."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from tutelage.errors import UserError
from tutelage.runs import Run, finished, write_text
from tutelage.runs.folder import check_out

CONFIG = {"model": "world", "learning_rate": 1e-5, "max_steps": 10, "resume": False, "sizes": (1, 2)}


def new(out, /, **changes):
    return Run.open(out, stage="sft", config={**CONFIG, **changes}, resume=False)


def again(out, /, total=None, **changes):
    return Run.open(out, stage="sft", config={**CONFIG, "resume": True, **changes}, resume=True, total=total)


def write_model(folder):
    (folder / "model.safetensors").write_bytes(b"weights" * 100)


def steps_of(out, name="metrics.jsonl"):
    return [json.loads(line)["step"] for line in (out / name).read_text().splitlines()]


def names_in(out):
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def contents(out):
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture
def out(tmp_path):
    """A run with rows up to step 6 and checkpoints up to step 4, the best of which is step 2."""
    run = new(tmp_path / "run")
    for step in range(1, 7):
        run.add_samples([{"step": step, "text": "a"}, {"step": step, "text": "b"}])
        run.log({"step": step, "loss": 1.0 / step})
        if step < 5:
            run.save(step, write_model, lambda folder: (folder / "x").write_text(str(step)), best=step == 2)
    return run.path


def test_a_new_run_has_every_value_of_its_config(tmp_path):
    run = new(tmp_path / "a" / "b")
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == {"stage": "sft", **CONFIG, "sizes": [1, 2]}
    assert (run.start_step, run.resume_state(), run.resume_model(), run.best()) == (0, None, None, None)
    assert finished(run.path) is None


def test_only_the_last_two_and_the_best_checkpoint_stay(out):
    assert names_in(out) == ["best", "latest", "step-2", "step-3", "step-4"]
    assert os.readlink(out / "checkpoints" / "latest") == "step-4/model"
    assert os.readlink(out / "checkpoints" / "best") == "step-2/model"


def test_links_survive_a_move_of_the_run(out, tmp_path):
    out.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "checkpoints" / "latest" / "model.safetensors").exists()


def test_resume_goes_on_after_the_newest_checkpoint_and_drops_what_came_later(out):
    before = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    run = again(out)
    assert run.start_step == 4 and (run.resume_state() / "x").read_text() == "4"
    assert run.resume_model() == out / "checkpoints" / "step-4" / "model"
    assert (out / "metrics.jsonl").read_bytes() == b"".join(before[:4])
    assert steps_of(out, "samples.jsonl") == [1, 1, 2, 2, 3, 3, 4, 4]
    assert run.last_row["step"] == 4
    assert again(tmp := out.parent / "nothing").start_step == 0 and (tmp / "config.yaml").exists()


def test_before_the_first_checkpoint_it_starts_over(tmp_path):
    new(tmp_path / "run").log({"step": 1, "loss": 1.0})
    assert again(tmp_path / "run").start_step == 0
    assert steps_of(tmp_path / "run") == []


@pytest.mark.parametrize("tail", [b'{"step": 7, "lo', b'{"step": 7, "text": "\xc3', b"{", b'{"step": 3}'])
def test_a_half_written_last_line_is_dropped(out, tail):
    with open(out / "metrics.jsonl", "ab") as file:
        file.write(tail)
    again(out)
    assert steps_of(out) == [1, 2, 3, 4]


def test_a_damaged_line_in_the_middle_is_not_passed_over(out):
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    write_text(out / "metrics.jsonl", "".join([*lines[:2], "{broken\n", *lines[2:]]))
    with pytest.raises(UserError, match=r"metrics\.jsonl, row 3: is no row of a log"):
        again(out)


def test_seconds_go_on_from_the_last_row_kept(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    lines[3]["seconds"], lines[5]["seconds"] = 1000.0, 2000.0
    write_text(out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert 1000 <= again(out).elapsed() < 1100


def test_what_a_killed_process_left_is_cleared(out):
    (out / "checkpoints" / ".tmp-step-6" / "model").mkdir(parents=True)
    (out / "checkpoints" / "latest").unlink()
    again(out)
    assert names_in(out) == ["best", "latest", "step-2", "step-3", "step-4"]


def test_a_folder_with_a_run_or_a_model_is_refused_and_not_touched(out, tmp_path):
    before = contents(out)
    with pytest.raises(UserError, match="holds a run already") as caught:
        new(out)
    assert "--resume" in caught.value.mend and contents(out) == before
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is a model's folder"):
        new(tmp_path)


def test_other_options_are_refused_by_name_and_nothing_changes(out):
    before = contents(out)
    with pytest.raises(UserError) as caught:
        again(out, learning_rate=2e-5, model="other", extra=1)
    for part in ("learning_rate: 1e-05 then, 2e-05 now", "model: 'world' then, 'other' now", "extra: None then, 1 now"):
        assert part in caught.value.message
    assert "sizes" not in caught.value.message
    with pytest.raises(UserError, match="holds a run of sft, not of ppo"):
        Run.open(out, stage="ppo", config=CONFIG, resume=True)
    assert contents(out) == before


def test_options_that_change_no_number_may_differ(out):
    assert again(out, max_steps=20, json=True, save_every=3, micro_tokens=512).start_step == 4
    assert yaml.safe_load((out / "config.yaml").read_text())["max_steps"] == 20


def test_more_steps_make_a_finished_run_unfinished_and_fewer_are_refused(out):
    again(out, total=4).finish({"steps": 4})
    again(out, total=4)
    assert finished(out)["steps"] == 4
    with pytest.raises(UserError, match="has done 4 steps already, more than the 3"):
        again(out, total=3)
    again(out, total=9)
    assert finished(out) is None


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe", b"", b"just text"])
def test_a_config_that_cannot_be_read_is_refused(out, content):
    (out / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read|something else"):
        again(out)
    assert steps_of(out) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("where", ["file", "file/below", "file/below/deep"])
def test_a_place_that_cannot_be_written_is_the_users_to_mend(tmp_path, where):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder"):
        check_out(tmp_path / where, stage="sft", config=CONFIG, resume=False)


def test_a_run_that_came_to_no_step_leaves_nothing(tmp_path):
    new(tmp_path / "run").abandon()
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    new(tmp_path / "mine").abandon()
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    run = new(tmp_path / "run")
    run.log({"step": 1, "loss": 1.0})
    run.abandon()
    assert steps_of(run.path) == [1]


def test_nan_stops_the_run_with_metric_and_step_before_anything_is_written(tmp_path):
    run = new(tmp_path / "run")
    run.log({"step": 1, "loss": 1.0})
    for value in (float("nan"), float("inf")):
        with pytest.raises(FloatingPointError, match=f"sft, step 2: grad_norm is {value}"):
            run.log({"step": 2, "loss": 1.0, "grad_norm": value})
    assert steps_of(run.path) == [1]


def test_a_failing_save_leaves_the_checkpoint_before(out):
    def fail(folder):
        write_model(folder)
        raise KeyboardInterrupt

    run = again(out)
    with pytest.raises(KeyboardInterrupt):
        run.save(5, fail, None, best=True)
    assert names_in(out) == ["best", "latest", "step-2", "step-3", "step-4"]


HOLDER = """
import sys
from tutelage.runs import Run
run = Run.open(sys.argv[1], stage="sft", config={}, resume=True)
print("open", flush=True)
sys.stdin.read()
"""


def test_a_run_that_another_process_writes_is_left_alone(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(UserError, match="another process is writing this run"):
            Run.open(tmp_path / "run", stage="sft", config={}, resume=True)
        process.kill()
    Run.open(tmp_path / "run", stage="sft", config={}, resume=True)
