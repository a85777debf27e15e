"""A full disk fails with one line and leaves the last checkpoint good."""

import errno
import os
import shutil
import subprocess
from functools import partial

import pytest

from tutelage.runs import DiskFullError, Run, is_disk_full, write_json, write_text

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_model(folder):
    (folder / "config.json").write_text("{}")


def open_run(path, resume=False):
    return Run.open(path, stage="sft", config={"seed": 1}, resume=resume)


@pytest.fixture
def run(tmp_path):
    run = open_run(tmp_path / "run")
    run.log({"step": 1, "loss": 1.0})
    run.save(1, write_model, None)
    return run


@pytest.fixture
def tiny(tmp_path):
    """A real file system of 512 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place):
    with open(place / "fill", "wb", buffering=0) as file:
        try:
            while file.write(b"0" * 512):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


def is_good(run):
    """The checkpoint of step 1 is there, whole, and nothing half-written is beside it."""
    names = sorted(path.name for path in run.checkpoints.iterdir())
    return names == ["latest", "step-1"] and open_run(run.path, resume=True).start_step == 1


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0"),
    ],
)
def test_the_model_does_not_fit(run, error):
    def fail(folder):
        (folder / "half").write_text("half")
        raise error

    with pytest.raises(DiskFullError, match=r"the disk is full: .*checkpoints/step-2 could not be written"):
        run.save(2, fail, None)
    assert is_good(run)


def test_another_failure_is_not_called_a_full_disk(run):
    def fail(folder):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ") as caught:
        run.save(2, fail, None)
    assert not is_disk_full(caught.value) and is_disk_full(DiskFullError())


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
def test_whichever_call_fails_in_a_save(run, monkeypatch, call):
    def fail(*args, **kwargs):
        raise FULL

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(DiskFullError):
        run.save(2, write_model, None)
    monkeypatch.undo()
    assert is_good(run)


@pytest.mark.parametrize("write", [lambda p: write_text(p, "new"), lambda p: write_json(p, {"new": 1})])
def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path, monkeypatch, write):
    (tmp_path / "file").write_text("old")

    def fail(descriptor):
        raise FULL

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskFullError):
        write(tmp_path / "file")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


def test_on_a_real_full_file_system(tiny):
    run = open_run(tiny / "run")
    run.log({"step": 1, "loss": 1.0})
    run.save(1, write_model, None)
    with pytest.raises(DiskFullError, match="checkpoints/step-2"):
        run.save(2, lambda folder: (folder / "weights").write_bytes(b"0" * 600_000), None)
    assert is_good(run)
    fill(tiny)
    with pytest.raises(DiskFullError, match=r"metrics\.jsonl"):
        for _ in range(1000):
            run.log({"step": 2, "loss": 1.0})
    assert (run.path / "metrics.jsonl").read_bytes().endswith(b"}\n")
    with pytest.raises(DiskFullError, match=r"summary\.json"):
        run.finish({"text": "x" * 10_000})
    assert not (run.path / "summary.json").exists()
    (tiny / "fill").unlink()
    assert is_good(run)
    run.save(2, write_model, None)


def test_torch_and_safetensors_on_a_real_full_file_system(tiny):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from tutelage.engine.sharding import read_state, write_state

    run = open_run(tiny / "run")
    run.save(1, write_model, partial(write_state, {"step": 1}))
    big = {"weights": torch.zeros(200_000)}
    with pytest.raises(DiskFullError):
        run.save(2, write_model, partial(write_state, big))
    assert is_good(run)
    with pytest.raises(DiskFullError):
        run.save(2, lambda folder: save_file(big, folder / "model.safetensors"), None)
    assert is_good(run)
    saved = open_run(run.path, resume=True).resume_state()
    assert saved is not None and read_state(saved) == {"step": 1}
