"""A micro-batch that does not fit is halved; the gradient is that of the whole batch; one line says so. Freed memory is kept."""

import ctypes
import subprocess
import sys

import pytest
import torch

from tutelage.data.templates import Rendered
from tutelage.engine import memory
from tutelage.engine.optimizer import MasterAdam
from tutelage.errors import UserError
from tutelage.models import load_policy
from tutelage.stages import language_modeling

BATCH = [Rendered([5 + i, 6, 7 + i, 8], [False, True, True, True]) for i in range(5)]


def gradients(nano, monkeypatch, fits):
    """Gradients of the batch's loss on a machine that holds `fits` tokens in one pass."""
    policy = load_policy(nano, "float32")
    adam = MasterAdam(policy.model.parameters())
    real = language_modeling.token_logprobs

    def tight(policy, batch):
        logprobs, entropy = real(policy, batch)
        if sum(len(r.input_ids) for r in batch) > fits:
            logprobs.sum().backward()  # what a pass leaves that fails near its end
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")
        return logprobs, entropy

    monkeypatch.setattr(memory, "_limit", None)
    monkeypatch.setattr(language_modeling, "token_logprobs", tight)
    row = language_modeling.backward_mean_nll(policy, BATCH, 1000, adam)
    monkeypatch.setattr(language_modeling, "token_logprobs", real)
    return row, adam.gradients()


def test_halved_until_it_fits_with_the_same_gradient(nano, monkeypatch, capsys):
    whole, expected = gradients(nano, monkeypatch, 1000)
    assert capsys.readouterr().err == ""
    row, got = gradients(nano, monkeypatch, 8)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "memory: 20 tokens in one pass do not fit; going on with at most 10"
    assert len(lines) == 1 and row["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_one_sequence_too_long_is_the_users_to_mend(nano, monkeypatch):
    with pytest.raises(UserError, match="one sequence of 4 tokens"):
        gradients(nano, monkeypatch, 3)


def test_other_failures_pass_through():
    def broken(micro):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        memory.run_fitting([[0]], [1], broken, lambda: None)


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc only")
def test_freed_memory_is_there_for_the_next_tensor():
    """In a process of its own: other threads have other heaps, which give theirs back."""
    script = """
import resource, torch
from tutelage.engine.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
keep_freed_memory()
faults()
print(given_back, min(faults() for _ in range(4)))  # a busy system may take pages back
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert kept < given_back / 2


def test_the_peak_of_one_stage_forgets_the_ones_before():
    torch.ones(2**26).sum()  # 256 MiB, freed again
    with memory.PeakMemory(0.001) as small:
        torch.ones(2**20).sum()
    with memory.PeakMemory(0.001) as large:
        torch.ones(2**26).sum()
    assert large.bytes - small.bytes > 0.7 * 2**28
