"""Our RMS norm equals the one of transformers, forward and backward, and a copied model keeps it."""

import copy

import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tutelage.engine.norms import rms_norm, use_own_norms


def test_equals_transformers_forward_and_backward():
    torch.manual_seed(0)
    plain = LlamaRMSNorm(24, eps=1e-5)
    torch.nn.init.normal_(plain.weight)
    x, upstream = torch.randn(1, 7, 24, requires_grad=True), torch.randn(1, 7, 24)
    want = plain(x)
    expected = torch.autograd.grad((want * upstream).sum(), (x, plain.weight))
    ours = rms_norm(x, plain.weight, 1e-5)
    got = torch.autograd.grad((ours * upstream).sum(), (x, plain.weight))
    for a, b in zip((ours, *got), (want, *expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    low = x.detach().bfloat16()
    low_plain = copy.deepcopy(plain).bfloat16()
    assert torch.equal(rms_norm(low, low_plain.weight, 1e-5), low_plain(low))  # the same roundings


def test_a_copy_keeps_its_own_weights():
    model = torch.nn.Sequential(LlamaRMSNorm(8))
    use_own_norms(model)
    other = copy.deepcopy(model)
    other[0].weight.data.fill_(2.0)
    x = torch.randn(3, 8)
    assert "_RMSNorm" in type(model(x.requires_grad_()).grad_fn).__name__
    torch.testing.assert_close(other(x), 2 * model(x))
