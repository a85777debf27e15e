"""Attention in blocks of queries equals the definition, forward and backward, at lengths around a block's."""

import pytest
import torch

from tutelage.engine import native
from tutelage.engine.attention import BLOCK, PackedLayout
from tutelage.engine.packing import pack

LENGTHS = (1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 30)


def by_definition(query, key, value, scale):
    """Causal attention of one sequence in float64, [L, h, d]."""
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    scores = scale * torch.einsum("qhd,khd->hqk", query, key)
    later = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(later, float("-inf")).softmax(-1), value)


@pytest.mark.parametrize("key_heads", [4, 2, 1])
# At 60 the scores reach hundreds, where `exp` of what a query may not see overflows, and rounding shows.
@pytest.mark.parametrize(("spread", "tolerance"), [(1.0, 1e-5), (60.0, 5e-3)])
def test_equals_the_definition(way, key_heads, spread, tolerance):
    torch.manual_seed(0)
    parts = [torch.randn(sum(LENGTHS), heads, 8, requires_grad=True) for heads in (4, key_heads, key_heads)]
    upstream = torch.randn(sum(LENGTHS), 4, 8)
    ours = PackedLayout(pack([[0] * length for length in LENGTHS])).attend(*parts, 0.3 * spread)
    exact = [part.detach().double().requires_grad_() for part in parts]
    sequences = zip(*(x.split(LENGTHS) for x in exact), strict=True)
    wanted = torch.cat([by_definition(*one, 0.3 * spread) for one in sequences])
    assert float((ours - wanted).detach().abs().max()) < tolerance
    gradients = torch.autograd.grad((ours * upstream).sum(), parts)
    for a, b in zip(gradients, torch.autograd.grad((wanted * upstream).sum(), exact), strict=True):
        assert float((a - b).abs().max()) < tolerance


def test_in_bfloat16_both_ways_differ_by_roundings_alone(monkeypatch):
    if native.compiler() is None:
        pytest.skip("needs a C compiler")
    torch.manual_seed(0)
    parts = [torch.randn(200, heads, 16).bfloat16().requires_grad_() for heads in (6, 2, 2)]
    upstream = torch.randn(200, 6, 16)
    found = []
    for _ in ("in C", "by torch"):
        out = PackedLayout(pack([[0] * 150, [0] * 50])).attend(*parts, 0.25)
        found.append([out.detach(), *torch.autograd.grad((out * upstream).sum(), parts)])
        monkeypatch.setattr(native, "kernels", lambda dtype: None)
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 2**-7 * b.abs().max()
        assert (a != b).float().mean() < 0.05


def test_what_is_no_number_spreads_to_all_that_see_it(way):
    query, key, value = (torch.randn(5, 1, 8, requires_grad=True) for _ in range(3))
    key.data[2] = float("nan")
    out = PackedLayout(pack([[0] * 5])).attend(query, key, value, 0.3)
    assert out[2:].isnan().all()
    assert torch.autograd.grad(out.sum(), query)[0][2:].isnan().all()
