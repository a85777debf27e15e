"""A full disk fails with one line and leaves the last checkpoint good."""

import builtins
import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tutelage.runs import DiskFullError, Run, atomic_write_json, atomic_write_text
from tutelage.runs import files as files_module

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_model(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def open_run(path: Path, resume: bool = False) -> Run:
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
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> None:
    with open(place / "fill", "wb", buffering=0) as file:
        try:
            while file.write(b"0" * 512):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


def is_good(run: Run) -> bool:
    """The checkpoint of step 1 is there, whole, and nothing half-written is beside it."""
    names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    return names == ["latest", "step-1"] and open_run(run.path, resume=True).start_step == 1


def one_line(run: Run, name: str) -> str:
    model = run.path / "checkpoints" / "step-1" / "model"
    return f"the disk is full: {run.path / name}; the last good checkpoint is {model}"


def test_the_model_does_not_fit(run):
    def fail(folder):
        (folder / "half").write_text("half")
        raise FULL

    with pytest.raises(DiskFullError) as caught:
        run.save(2, fail, None)
    assert caught.value.message == str(caught.value) == one_line(run, "checkpoints/step-2")
    assert is_good(run)


@pytest.mark.parametrize(
    "text",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0: file write failed",
    ],
)
def test_the_libraries_say_it_in_words(run, text):
    def fail(folder):
        raise RuntimeError(text)

    with pytest.raises(DiskFullError):
        run.save(2, fail, None)
    assert is_good(run)


def test_another_failure_is_not_called_a_full_disk(run):
    def fail(folder):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ") as caught:
        run.save(2, fail, None)
    assert not isinstance(caught.value, DiskFullError)


@pytest.mark.parametrize("call", ["fsync", "rename", "replace", "symlink", "mkdir"])
def test_whichever_call_fails_in_a_save(run, monkeypatch, call):
    def fail(*args, **kwargs):
        raise FULL

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(DiskFullError):
        run.save(1, write_model, None)
    monkeypatch.undo()
    assert is_good(run)


def test_a_row_that_does_not_fit_leaves_no_half_row(run, monkeypatch):
    before = (run.path / "metrics.jsonl").read_bytes()

    class Full:
        """Takes ten bytes and then no more, as a disk does."""

        def __init__(self, file):
            self.file, self.written = file, 0

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            if self.written:
                raise FULL
            self.written = 10
            return self.file.write(data[:10])

    def open_full(*args, **kwargs):
        return Full(builtins.open(*args, **kwargs))

    monkeypatch.setattr(files_module, "open", open_full, raising=False)
    with pytest.raises(DiskFullError) as caught:
        run.log({"step": 2, "loss": 1.0})
    assert caught.value.message == one_line(run, "metrics.jsonl")
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_without_a_checkpoint_it_says_so(tmp_path, monkeypatch):
    run = open_run(tmp_path / "run")
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match=r"the disk is full: .*metrics\.jsonl; there is no checkpoint yet"):
        run.log({"step": 1, "loss": 1.0})


@pytest.mark.parametrize("write", [lambda p: atomic_write_text(p, "new"), lambda p: atomic_write_json(p, {"new": 1})])
def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path, monkeypatch, write):
    (tmp_path / "file").write_text("old")

    def fail(descriptor):
        raise FULL

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskFullError):
        write(tmp_path / "file")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


def test_opening_a_run_on_a_full_disk(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise FULL

    monkeypatch.setattr(os, "mkdir", fail)
    with pytest.raises(DiskFullError):
        open_run(tmp_path / "run")


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
    assert not run.finished
    with pytest.raises(DiskFullError, match=r"the last good checkpoint is .*step-1/model"):
        open_run(run.path, resume=True)
    (tiny / "fill").unlink()
    assert is_good(run)
    run.save(2, write_model, None)
    assert run.finish({})["checkpoint"] == "checkpoints/step-2/model"


def test_torch_and_safetensors_on_a_real_full_file_system(tiny):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    run = open_run(tiny / "run")
    run.save(1, write_model, {"step": 1})
    big = {"weights": torch.zeros(200_000)}
    with pytest.raises(DiskFullError):
        run.save(2, write_model, big)
    assert is_good(run)
    with pytest.raises(DiskFullError):
        run.save(2, lambda folder: save_file(big, folder / "model.safetensors"), None)
    assert is_good(run)
    assert run.load_state() is None, "the run was new when it was opened"
    assert open_run(run.path, resume=True).load_state() == {"step": 1}
