"""A run that was killed before any change of the disk and resumed is the run that was left alone."""

import os
import random
import signal

import pytest

from .training import facts, train

# Every way in which the run folder changes what is on disk.
CHANGES = ("mkdir", "rename", "replace", "unlink", "rmdir", "symlink", "fsync", "truncate")


def killed_before_change(n, out):
    """Train in a child that kills itself (-9) before its n-th change of the disk; whether it got that far."""
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
            train(out)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"killed before change {n}: training failed"
    return os.WIFSIGNALED(status)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    train(out)
    return facts(out)


@pytest.fixture(autouse=True)
def without_fsync(monkeypatch):
    """A killed process loses nothing that it wrote: only a power failure needs fsync, and it takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_killed_before_every_single_change_of_the_disk(whole, tmp_path):
    n = 1
    while killed_before_change(n, tmp_path / str(n)):
        train(tmp_path / str(n))
        assert facts(tmp_path / str(n)) == whole, f"killed before change {n}"
        n += 1
    assert n > 80, "the disk is changed more often than this"


def test_killed_again_and_again_while_resuming(whole, tmp_path):
    out = tmp_path / "run"
    chance = random.Random(1)
    kills = sum(killed_before_change(chance.randint(1, 60), out) for _ in range(20))
    assert kills > 3
    train(out)
    assert facts(out) == whole
