"""A damaged checkpoint is thrown away for the one before it; where none is whole, that is said."""

import json

import pytest

from tutelage.errors import UserError
from tutelage.runs import Run
from tutelage.runs.manifest import damage


def write_model(folder):
    (folder / "model.safetensors").write_bytes(bytes(range(200)))


def open_run(path, resume=True):
    return Run.open(path, stage="sft", config={"seed": 1}, resume=resume)


@pytest.fixture
def out(tmp_path):
    run = open_run(tmp_path / "run", resume=False)
    for step in (1, 2, 3):
        run.log({"step": step, "loss": 1.0})
        run.save(step, write_model, lambda folder: (folder / "state.pt").write_bytes(b"state"))
    run.release()
    return run.path


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")


@pytest.mark.parametrize(
    "harm, name, said",
    [
        (cut, "model/model.safetensors", "199 bytes instead of 200"),
        (flip, "model/model.safetensors", "other contents"),
        (lambda path: path.unlink(), "state/state.pt", "state.pt is missing"),
        (cut, "state/state.pt", "4 bytes instead of 5"),
        (lambda path: path.write_text("{"), "state/manifest.json", "cut off"),
    ],
)
def test_the_one_before_it_is_taken(out, harm, name, said, capsys):
    newest = out / "checkpoints/step-3"
    assert damage(newest) is None
    harm(newest / name)
    run = open_run(out)
    assert (
        run.start_step == 2 and (out / "checkpoints/latest").resolve() == (out / "checkpoints/step-2/model").resolve()
    )
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert said in capsys.readouterr().err and not newest.exists()


def test_where_none_is_whole_nothing_is_touched(out):
    for step in (2, 3):
        cut(out / f"checkpoints/step-{step}/model/model.safetensors")
    with pytest.raises(UserError, match="no checkpoint is whole"):
        open_run(out)
    assert (out / "checkpoints/step-3").exists() and len((out / "metrics.jsonl").read_text().splitlines()) == 3
