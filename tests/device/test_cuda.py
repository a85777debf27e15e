"""`on_device` on a real GPU, and what only a real one has: its kernels, its memory, its random numbers."""

import pytest
import torch
from on_device import *  # noqa: F403
from on_device import PREFIX, PROMPTS, load_policy

from tutelage.data.templates import Rendered
from tutelage.engine.attention import PackedLayout
from tutelage.engine.memory import PeakMemory, peak_gpu_bytes
from tutelage.engine.packing import pack
from tutelage.engine.varlen import fits
from tutelage.planning.machine import facts
from tutelage.stages.language_modeling import token_logprobs

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU: `pytest -m cuda` needs one"),
]
LENGTHS = (1, 7, 64, 130, 33)


@pytest.fixture
def gpu():
    return torch.device("cuda", 0)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("limits", [{}, {"window": 9}])
@pytest.mark.parametrize("key_heads", [4, 1])
def test_flash_attention_equals_the_host_in_float32(gpu, key_heads, limits, share):
    """To the rounding of bfloat16, forward and backward; with and without a shared beginning."""
    torch.manual_seed(0)
    sequences = [[*PREFIX * 4, *range(20, 20 + n)] for n in LENGTHS] if share else [[0] * n for n in LENGTHS]
    packed = pack(sequences, share=share)
    assert (packed.shared is not None) == share
    count = len(packed.computed[0])
    rounded = [torch.randn(count, heads, 32).bfloat16() for heads in (4, key_heads, key_heads)]
    upstream = torch.randn(count, 4, 32).bfloat16()
    found = []
    for device, dtype in ((torch.device("cpu"), torch.float32), (gpu, torch.bfloat16)):
        parts = [x.to(device, dtype).requires_grad_() for x in rounded]
        assert fits(parts[0], parts[2], limits) == (device == gpu)
        out = PackedLayout(packed).attend(*parts, 0.2, **limits)
        gradients = torch.autograd.grad((out * upstream.to(device, dtype)).sum(), parts)
        found.append([x.float().cpu() for x in (out, *gradients)])
    for host, flash in zip(*found, strict=True):
        assert float((host - flash).detach().abs().max()) < 0.03 * float(host.detach().abs().max())


def test_bfloat16_on_the_gpu_is_near_float32_on_the_host(nano):
    packed, targets = pack(PROMPTS, share=True), torch.tensor([2, 6, 12])
    with torch.no_grad():
        host, _ = load_policy(nano, "float32", device="cpu").logprobs(packed, targets)
        gpu, _ = load_policy(nano, "auto", device="cuda").logprobs(packed, targets)
    torch.testing.assert_close(gpu, host, atol=0.1, rtol=0.02)


def test_memory_of_the_gpu_is_measured(nano):
    with PeakMemory() as peak:
        policy = load_policy(nano, "float32", device="cuda")
        rows = [Rendered(list(range(5, 60)), [True] * 55)] * 8
        token_logprobs(policy, rows)[0].sum().backward()
    assert peak.gpu_bytes == peak_gpu_bytes() > 2 * sum(p.numel() * 4 for p in policy.model.parameters())


def test_doctor_measures_the_gpu():
    found = facts(0.5)["gpu"]
    assert found["device"] == "cuda:0" and found["memory_bytes"] > 2**30
    assert found["gemm_flops"]["bfloat16"] > 1e12 or not found["native_bfloat16"]
