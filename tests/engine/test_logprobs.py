"""The fused log-probabilities equal log_softmax, forward and backward, at any chunk size."""

import pytest
import torch

from tutelage.engine import logprobs, native


# Elements at once: everything in one; chunks within the group that is kept; several groups, of which one is kept.
@pytest.mark.parametrize(("chunk", "group"), [(2**23, 2**26), (30, 2**26), (30, 50)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_log_softmax(way, monkeypatch, chunk, group, temperature):
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(logprobs, "PRODUCT_BYTES", 4 * chunk)
    monkeypatch.setattr(logprobs, "COLUMNS", 4)
    monkeypatch.setattr(logprobs, "GRADIENT_ELEMENTS", group)
    torch.manual_seed(0)
    hidden, weight = torch.randn(11, 6, requires_grad=True), torch.randn(9, 6, requires_grad=True)
    targets, upstream = torch.randint(0, 9, (11,)), torch.randn(11)
    ours, entropy = logprobs.fused_logprobs(hidden, weight, targets, temperature)
    ours_grads = torch.autograd.grad((ours * upstream).sum(), (hidden, weight))
    full = (hidden @ weight.t() / temperature).log_softmax(-1)
    plain = full[torch.arange(11), targets]
    plain_grads = torch.autograd.grad((plain * upstream).sum(), (hidden, weight))
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, -(full.exp() * full).sum(-1).detach(), atol=1e-5, rtol=1e-5)
    for a, b in zip(ours_grads, plain_grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("group", [2**26, 50])
def test_equals_log_softmax_of_a_scaled_capped_head_with_a_bias(way, monkeypatch, group):
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", 30)
    monkeypatch.setattr(logprobs, "GRADIENT_ELEMENTS", group)
    torch.manual_seed(0)
    parts = [torch.randn(*shape, requires_grad=True) for shape in ((11, 6), (9, 6), (9,))]
    hidden, weight, bias = parts
    targets, upstream = torch.randint(0, 9, (11,)), torch.randn(11)
    head = logprobs.Head(weight, bias, scale=1.5, softcap=2.0)
    ours, _ = logprobs.fused_logprobs(hidden, head, targets, 0.7)
    capped = 2.0 * torch.tanh((1.5 * hidden @ weight.t() + bias) / 2.0)
    plain = (capped / 0.7).log_softmax(-1)[torch.arange(11), targets]
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    found, wanted = (torch.autograd.grad((x * upstream).sum(), parts) for x in (ours, plain))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_without_a_gradient_nothing_is_kept(monkeypatch):
    made = []
    monkeypatch.setattr(logprobs, "_unit_gradient", lambda *parts: made.append(parts))
    with torch.no_grad():
        logprobs.fused_logprobs(torch.randn(5, 6), torch.randn(9, 6, requires_grad=True), torch.randint(0, 9, (5,)))
    assert not made


def test_in_bfloat16_both_ways_differ_by_roundings_alone(monkeypatch):
    if native.compiler() is None:
        pytest.skip("needs a C compiler")
    torch.manual_seed(0)
    hidden, weight = (torch.randn(*shape).bfloat16().requires_grad_() for shape in ((11, 6), (300, 6)))
    targets, found = torch.randint(0, 300, (11,)), []
    for _ in ("in C", "by torch"):
        ours, entropy = logprobs.fused_logprobs(hidden, weight, targets, 0.7)
        found.append([ours.detach(), entropy, *torch.autograd.grad(ours.sum(), (hidden, weight))])
        monkeypatch.setattr(native, "kernels", lambda dtype: None)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=2**-7, atol=2**-7 * float(b.abs().max()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)


def test_a_logit_of_minus_infinity_has_no_part_in_the_entropy():
    """In C; torch's 0 times infinity is no number."""
    if native.compiler() is None:
        pytest.skip("needs a C compiler")
    hidden, weight = torch.ones(1, 1), torch.tensor([[0.0], [0.0], [float("-inf")]])
    ours, entropy = logprobs.fused_logprobs(hidden, weight, torch.tensor([0]))
    assert ours.tolist() == entropy.neg().tolist() == pytest.approx([-0.693147])
