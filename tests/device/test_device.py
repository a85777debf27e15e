"""Which device a name means; and the flash kernel's layout, with the kernel by its definition in its place."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tutelage.configs import LabelConfig, SFTConfig
from tutelage.engine import device, varlen
from tutelage.engine.attention import PackedLayout
from tutelage.engine.device import CPU, resolve_device
from tutelage.engine.packing import pack
from tutelage.engine.varlen import Varlen, fits
from tutelage.errors import UserError
from tutelage.models.checkpoint import compute_dtype

PREFIX = list(range(9))
SEQUENCES = [[*PREFIX, 20, 21, 22], [*PREFIX, 30], [40, 41, 42, 43, 44, 45, 46, 47], [50]]


@pytest.fixture
def two_gpus(monkeypatch):
    """As if torch found two GPUs, the second too old for bfloat16."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda one: ((9, 0), (7, 5))[one.index])
    device.multiplies_bfloat16.cache_clear()
    yield chosen
    device.multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("name", "local", "index"), [("auto", 0, 0), ("auto", 1, 1), ("cuda", 1, 1), ("cuda:1", 0, 1), ("cuda:0", 0, 0)]
)
def test_each_process_takes_the_gpu_of_its_number(two_gpus, monkeypatch, name, local, index):
    monkeypatch.setenv("LOCAL_RANK", str(local))
    assert resolve_device(name) == torch.device("cuda", index) and two_gpus == [index]
    assert resolve_device("cpu") == CPU


def test_a_gpu_that_is_not_there_is_the_users_to_mend(two_gpus, monkeypatch):
    with pytest.raises(UserError, match=r"no GPU 2: torch finds 2[\s\S]*cuda:0 to cuda:1"):
        resolve_device("cuda:2")
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(UserError, match="at most 2 processes on each machine"):
        resolve_device("auto")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="a GPU of its own"):
        resolve_device("cuda:0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    assert resolve_device("auto") == CPU
    with pytest.raises(UserError, match=r"option --device \(device\): cuda: torch finds no GPU"):
        resolve_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "mps", "CUDA", ""])
def test_names_that_mean_nothing(name):
    for make in (SFTConfig, LabelConfig):
        with pytest.raises(UserError, match=r"--device[\s\S]*auto, cpu, cuda"):
            make(device=name)


def test_bfloat16_where_the_gpu_multiplies_it(two_gpus):
    assert compute_dtype("auto", torch.device("cuda", 0)) == torch.bfloat16
    assert compute_dtype("auto", torch.device("cuda", 1)) == torch.float32
    assert compute_dtype("bfloat16", torch.device("cuda", 1)) == torch.bfloat16


def kernel(query, key, value, bounds_q, bounds_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """What torch says of `varlen_attn`: each sequence by itself, of keys so many before the query's and none after."""
    before, after = window_size
    assert torch.equal(bounds_q, bounds_k) and bounds_q.dtype == torch.int32 and after == 0
    assert max_q == max_k == int(bounds_q.diff().max()) and enable_gqa == (query.shape[1] != key.shape[1])
    outcomes = []
    for q, k, v in zip(*(x.split(bounds_q.diff().tolist()) for x in (query, key, value)), strict=True):
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        distance = torch.arange(len(q))[:, None] - torch.arange(len(q))
        hidden = (distance < 0) | ((distance > before) if before >= 0 else torch.zeros_like(distance).bool())
        scores = scale * torch.einsum("qhd,khd->hqk", q, k)
        outcomes.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v))
    return torch.cat(outcomes)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("limits", [{}, {"window": 4}])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_what_the_flash_kernel_is_asked_for_is_the_hosts_attention(monkeypatch, share, limits, key_heads):
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    torch.manual_seed(0)
    packed = pack(SEQUENCES, share=share)
    assert (packed.shared is not None) == share
    count = len(packed.computed[0])
    parts = [torch.randn(count, heads, 8, requires_grad=True) for heads in (4, key_heads, key_heads)]
    upstream = torch.randn(count, 4, 8)
    host = PackedLayout(packed).attend(*parts, 0.3, **limits)
    flash = Varlen(packed, CPU).attend(*parts, 0.3, **limits)
    torch.testing.assert_close(flash, host, atol=1e-5, rtol=1e-5)
    gradients = (torch.autograd.grad((out * upstream).sum(), parts) for out in (flash, host))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def fake(shape, where="cuda", dtype=torch.bfloat16):
    return torch.empty(shape, device=where, dtype=dtype)


def test_where_the_flash_kernel_fits(two_gpus):
    with FakeTensorMode():
        assert fits(fake((5, 4, 64)), fake((5, 2, 64)), {}) and fits(fake((5, 4, 64)), fake((5, 2, 64)), {"window": 3})
        assert not fits(fake((5, 4, 64)), fake((5, 2, 64)), {"softcap": 5.0})
        assert not fits(fake((5, 4, 64), dtype=torch.float32), fake((5, 4, 64), dtype=torch.float32), {})
        assert not fits(fake((5, 4, 64), "cpu"), fake((5, 4, 64), "cpu"), {})
        assert not fits(fake((5, 4, 64), "cuda:1"), fake((5, 4, 64), "cuda:1"), {})
        for sizes in ((264, 264), (12, 12), (64, 32)):
            assert not fits(fake((5, 4, sizes[0])), fake((5, 4, sizes[1])), {})


@pytest.mark.skipif(not varlen.KNOWN, reason="torch's varlen_attn knows no groups of heads")
@pytest.mark.parametrize("share", [False, True])
def test_torchs_kernel_takes_what_it_is_given(share):
    """Its own check of arguments, on tensors of "cuda" without numbers."""
    packed = pack(SEQUENCES, share=share)
    layout, count = Varlen(packed, CPU), len(packed.computed[0])
    with FakeTensorMode(), torch.no_grad():
        for name in ("bounds", "place", "kept"):
            held = getattr(layout, name)
            setattr(layout, name, None if held is None else fake(held.shape, dtype=held.dtype))
        out = layout.attend(fake((count, 4, 64)), fake((count, 2, 64)), fake((count, 2, 64)), 0.1, 7)
        assert out.shape == (count, 4, 64) and out.device.type == "cuda" and out.dtype == torch.bfloat16
