"""What a run's folder holds, what --resume accepts, and what it refuses."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml

from tutelage.errors import UserError
from tutelage.runs import NotFiniteError, Run, finished

CONFIG = {"model": "world", "learning_rate": 1e-5, "max_steps": 10, "resume": False, "sizes": (1, 2)}


def new(out, /, **changes):
    return Run.open(out, stage="sft", config={**CONFIG, **changes}, resume=False)


def again(out, /, **changes):
    return Run.open(out, stage="sft", config={**CONFIG, "resume": True, **changes}, resume=True)


def write_model(folder):
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights" * 100)


def steps_of(out, name="metrics.jsonl"):
    return [json.loads(line)["step"] for line in (out / name).read_text().splitlines()]


def names_in(out):
    return sorted(path.name for path in (out / "checkpoints").iterdir())


@pytest.fixture
def out(tmp_path):
    """A run with rows up to step 6 and checkpoints of steps 2 and 4."""
    run = new(tmp_path / "run")
    for step in range(1, 7):
        run.log({"step": step, "loss": 1.0 / step, "num_tokens": 10 * step})
        run.add_samples([{"step": step, "text": "a"}, {"step": step, "text": "b"}])
        if step in (2, 4):
            run.save(step, write_model, None, keep=2)
    return run.path


class TestNew:
    def test_writes_every_value_of_the_config_and_the_stage(self, tmp_path):
        run = new(tmp_path / "a" / "b")
        text = (run.path / "config.yaml").read_text()
        assert text.startswith("# stage: sft\n")
        assert yaml.safe_load(text) == {**CONFIG, "sizes": [1, 2]}
        assert (run.start_step, run.load_state(), run.resume_model(), run.best(), run.latest()) == (0,) + (None,) * 4
        assert not run.finished

    def test_an_empty_folder_is_free(self, tmp_path):
        (tmp_path / "checkpoints").mkdir()
        assert new(tmp_path).start_step == 0

    @pytest.mark.parametrize("left", ["config.yaml", "metrics.jsonl", "checkpoints/step-1"])
    def test_a_folder_with_a_run_is_refused_and_not_touched(self, tmp_path, left):
        (tmp_path / left).parent.mkdir(exist_ok=True)
        (tmp_path / left).write_text("before")
        with pytest.raises(UserError, match="holds a run already") as caught:
            new(tmp_path)
        assert "--resume" in caught.value.mend
        assert "another --out" in caught.value.mend
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / left]

    def test_resume_with_nothing_there_is_a_new_run(self, tmp_path):
        assert again(tmp_path / "nothing").start_step == 0
        assert (tmp_path / "nothing" / "config.yaml").exists()

    @pytest.mark.parametrize("where", ["file", "file/below"])
    def test_a_place_that_cannot_be_written_is_the_users_to_mend(self, tmp_path, where):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="cannot be written"):
            new(tmp_path / where)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_without_permission_is_the_users_to_mend(self, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(UserError, match="cannot be written"):
            new(tmp_path / "run")


class TestResume:
    def test_goes_on_after_the_newest_checkpoint_and_drops_what_came_later(self, out):
        run = again(out)
        assert run.start_step == 4
        assert run.resume_model() == out / "checkpoints" / "step-4" / "model"
        assert steps_of(out) == [1, 2, 3, 4]
        assert steps_of(out, "samples.jsonl") == [1, 1, 2, 2, 3, 3, 4, 4]

    def test_before_the_first_checkpoint_it_starts_over(self, tmp_path):
        new(tmp_path / "run").log({"step": 1, "loss": 1.0})
        run = again(tmp_path / "run")
        assert run.start_step == 0
        assert steps_of(run.path) == []

    def test_keeps_the_bytes_of_the_rows_it_keeps(self, out):
        before = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        again(out)
        assert (out / "metrics.jsonl").read_bytes() == b"".join(before[:4])

    @pytest.mark.parametrize("tail", [b'{"step": 7, "lo', b'{"step": 7, "text": "\xc3', b"{", b'{"step": 5}'])
    def test_a_half_written_last_line_is_dropped(self, out, tail):
        with open(out / "metrics.jsonl", "ab") as file:
            file.write(tail)
        again(out)
        assert steps_of(out) == [1, 2, 3, 4]
        assert (out / "metrics.jsonl").read_bytes().endswith(b"\n")

    def test_a_damaged_line_in_the_middle_is_not_passed_over(self, out):
        lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
        (out / "metrics.jsonl").write_text("".join([*lines[:2], "{broken\n", *lines[2:]]))
        with pytest.raises(UserError, match=r"metrics\.jsonl, row 3: is not JSON"):
            again(out)

    def test_seconds_go_on_from_the_last_row_kept(self, out):
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        lines[3]["seconds"], lines[5]["seconds"] = 1000.0, 2000.0
        (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        run = again(out)
        assert 1000 <= run.elapsed() < 1030
        run.log({"step": 5, "loss": 1.0})
        assert 1000 <= json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["seconds"] < 1030

    def test_clears_what_a_killed_process_left(self, out):
        (out / "checkpoints" / ".tmp-step-6" / "model").mkdir(parents=True)
        (out / "checkpoints" / ".latest.tmp").symlink_to("nowhere")
        (out / ".config.yaml.tmp").write_text("half")
        again(out)
        assert names_in(out) == ["latest", "step-2", "step-4"]
        assert not (out / ".config.yaml.tmp").exists()

    @pytest.mark.parametrize("damage", ["short", "missing", "no manifest"])
    def test_a_damaged_newest_checkpoint_is_passed_over_and_removed(self, out, damage):
        weights = out / "checkpoints" / "step-4" / "model" / "model.safetensors"
        if damage == "short":
            weights.write_bytes(b"half")
        elif damage == "missing":
            weights.unlink()
        else:
            (out / "checkpoints" / "step-4" / "state" / "manifest.json").unlink()
        run = again(out)
        assert run.start_step == 2
        assert names_in(out) == ["latest", "step-2"]
        assert run.latest() == out / "checkpoints" / "step-2" / "model"
        assert steps_of(out) == [1, 2]

    def test_with_every_checkpoint_damaged_it_stops_and_keeps_all(self, out):
        for step in (2, 4):
            (out / "checkpoints" / f"step-{step}" / "model" / "model.safetensors").write_bytes(b"half")
        with pytest.raises(UserError, match=r"step-4: .*model/model.safetensors has 4 bytes instead of 700"):
            again(out)
        assert steps_of(out) == [1, 2, 3, 4, 5, 6]
        assert names_in(out) == ["latest", "step-2", "step-4"]

    def test_other_options_are_refused_by_name_and_nothing_changes(self, out):
        before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
        with pytest.raises(UserError) as caught:
            again(out, learning_rate=2e-5, model="other", extra=1)
        for part in ("learning_rate: 1e-05 then, 2e-05 now", "model: 'world' then, 'other' now", "extra: absent then"):
            assert part in caught.value.message
        assert "sizes" not in caught.value.message
        assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before

    def test_options_that_change_no_number_may_differ(self, out):
        run = again(out, max_steps=20, json=True, save_every=3, out="elsewhere")
        assert run.start_step == 4
        assert yaml.safe_load((out / "config.yaml").read_text())["max_steps"] == 20

    def test_fewer_steps_than_are_done_are_refused(self, out):
        with pytest.raises(UserError, match="4 steps are done already, more than --max-steps 3"):
            again(out, max_steps=3)

    def test_a_run_of_another_stage_is_refused(self, out):
        with pytest.raises(UserError, match="holds a run of sft, not of ppo"):
            Run.open(out, stage="ppo", config=CONFIG, resume=True)

    @pytest.mark.parametrize("content", [None, "a: [", b"\xff\xfe", "", "just text"])
    def test_a_config_that_cannot_be_read_is_refused(self, out, content):
        path = out / "config.yaml"
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError):
            again(out)
        assert steps_of(out) == [1, 2, 3, 4, 5, 6]

    def test_can_be_resumed_twice_in_one_process(self, out):
        assert again(out).start_step == again(out).start_step == 4


class TestLog:
    def test_a_row_is_in_the_file_at_once_with_step_and_seconds(self, tmp_path):
        run = new(tmp_path)
        time.sleep(0.01)
        run.log({"loss": 2.5, "step": 1})
        row = json.loads((tmp_path / "metrics.jsonl").read_text())
        assert list(row) == ["step", "seconds", "loss"]
        assert 0.01 <= row["seconds"] < 30

    def test_seconds_that_are_given_stay(self, tmp_path):
        new(tmp_path).log({"step": 1, "seconds": 7.0})
        assert json.loads((tmp_path / "metrics.jsonl").read_text())["seconds"] == 7.0

    @pytest.mark.parametrize("row", [{"loss": 1.0}, {"step": 1.5}, {"step": None}])
    def test_a_row_without_a_step_is_an_error(self, tmp_path, row):
        with pytest.raises(ValueError, match="integer step"):
            new(tmp_path).log(row)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_nan_and_infinity_stop_the_run_with_metric_and_step_before_anything_is_written(self, tmp_path, value):
        run = new(tmp_path)
        run.log({"step": 1, "loss": 1.0})
        with pytest.raises(NotFiniteError, match=f"sft, step 2: grad_norm is {value}"):
            run.log({"step": 2, "loss": 1.0, "grad_norm": value})
        assert steps_of(tmp_path) == [1]

    def test_numbers_of_numpy_are_numbers(self, tmp_path):
        np = pytest.importorskip("numpy")
        new(tmp_path).log({"step": np.int64(3), "loss": np.float32(0.5)})
        row = json.loads((tmp_path / "metrics.jsonl").read_text())
        assert (row["step"], row["loss"]) == (3, 0.5)

    def test_an_unregistered_metric_is_an_error_where_names_are_checked(self, tmp_path):
        with pytest.raises(ValueError, match=r"'objektive/kl'.*did you mean objective/kl"):
            new(tmp_path).log({"step": 1, "objektive/kl": 0.0})

    def test_samples_need_a_step(self, tmp_path):
        run = new(tmp_path)
        with pytest.raises(ValueError, match="integer step"):
            run.add_samples([{"step": 1, "text": "a"}, {"text": "b"}])
        assert not (tmp_path / "samples.jsonl").exists()


class TestSave:
    def test_writes_model_and_state_and_points_latest_at_the_model(self, tmp_path):
        run = new(tmp_path)
        model = run.save(3, write_model, None)
        assert model == tmp_path / "checkpoints" / "step-3" / "model"
        assert os.readlink(tmp_path / "checkpoints" / "latest") == "step-3/model"
        assert sorted(p.name for p in (tmp_path / "checkpoints" / "step-3").iterdir()) == ["model", "state"]
        assert (run.latest() / "config.json").exists()

    def test_links_survive_a_move_of_the_run(self, out, tmp_path):
        out.rename(tmp_path / "moved")
        assert (tmp_path / "moved" / "checkpoints" / "latest" / "config.json").exists()

    @pytest.mark.parametrize(("keep", "left"), [(1, [5]), (2, [4, 5]), (9, [1, 2, 3, 4, 5])])
    def test_keeps_the_newest(self, tmp_path, keep, left):
        run = new(tmp_path)
        for step in range(1, 6):
            run.save(step, write_model, None, keep=keep)
        assert names_in(tmp_path) == ["latest", *(f"step-{step}" for step in left)]

    @pytest.mark.parametrize("how", ["mark_best", "save"])
    def test_never_drops_the_best(self, tmp_path, how):
        run = new(tmp_path)
        for step in range(1, 6):
            run.save(step, write_model, None, best=how == "save" and step == 2)
            if how == "mark_best" and step == 2:
                run.mark_best(2)
        assert names_in(tmp_path) == ["best", "latest", "step-2", "step-5"]
        assert run.best() == tmp_path / "checkpoints" / "step-2" / "model"
        assert again(tmp_path).best() == run.best()

    def test_steps_are_ordered_as_numbers(self, tmp_path):
        run = new(tmp_path)
        for step in (9, 10):
            run.save(step, write_model, None)
        assert names_in(tmp_path) == ["latest", "step-10"]
        assert again(tmp_path).start_step == 10

    def test_the_same_step_may_be_written_again(self, tmp_path):
        run = new(tmp_path)
        run.save(1, write_model, None)
        run.save(1, lambda folder: (folder / "config.json").write_text("second"), None)
        assert (run.latest() / "config.json").read_text() == "second"
        assert names_in(tmp_path) == ["latest", "step-1"]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_a_failing_save_leaves_the_checkpoint_before(self, tmp_path, error):
        run = new(tmp_path)
        run.save(1, write_model, None)

        def fail(folder):
            write_model(folder)
            raise error("midway")

        for step in (1, 2):
            with pytest.raises(error, match="midway"):
                run.save(step, fail, None)
            assert names_in(tmp_path) == ["latest", "step-1"]
            assert again(tmp_path).start_step == 1

    def test_the_best_must_be_there(self, tmp_path):
        with pytest.raises(ValueError, match="no checkpoint of step 7"):
            new(tmp_path).mark_best(7)

    def test_a_best_that_was_pruned_by_damage_is_forgotten(self, out):
        run = again(out)
        run.mark_best(4)
        (out / "checkpoints" / "step-4" / "model" / "model.safetensors").unlink()
        assert again(out).best() is None


class TestFinish:
    def test_fills_in_what_the_run_knows(self, out):
        run = again(out)
        run.finish({"loss": 0.5})
        assert finished(out) == run.summary() == json.loads((out / "summary.json").read_text())
        summary = run.summary()
        assert summary.pop("seconds") >= 0
        checkpoint = "checkpoints/step-4/model"
        assert summary == {"stage": "sft", "steps": 4, "tokens": 40, "checkpoint": checkpoint, "loss": 0.5}

    def test_what_is_given_wins(self, tmp_path):
        run = new(tmp_path)
        assert run.finish({"steps": 5, "seconds": 1.0, "tokens": 6, "checkpoint": "best"})["checkpoint"] == "best"
        assert (run.summary()["steps"], run.summary()["tokens"]) == (5, 6)

    def test_a_finished_run_stays_finished_with_the_same_steps(self, out):
        again(out).finish({})
        assert again(out).finished

    def test_and_is_unfinished_with_more(self, out):
        again(out).finish({})
        assert not again(out, max_steps=11).finished


def test_nothing_here_imports_torch_or_rich():
    modules = "folder, metrics, progress, signals, lineage, checkpoints, files"
    code = f"import sys; from tutelage.runs import {modules}; print({{'torch', 'rich', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
