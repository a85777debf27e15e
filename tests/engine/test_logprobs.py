"""The fused log-probabilities equal log_softmax, forward and backward, at any chunk size."""

import pytest
import torch

from tutelage.engine import logprobs


@pytest.mark.parametrize("chunk", [2**23, 30])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_log_softmax(monkeypatch, chunk, temperature):
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", chunk)
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
