"""Our norm and feed-forward layer equal those of transformers, forward and backward, and a copied model keeps them."""

import copy

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm, LlamaRotaryEmbedding

from tutelage.engine.attention import PackedLayout, attending
from tutelage.engine.layers import rms_norm, use_own_layers
from tutelage.engine.packing import pack


def test_norm_equals_transformers_forward_and_backward(way):
    """Also of more tokens than are summed together for the weight's gradient."""
    torch.manual_seed(0)
    plain = LlamaRMSNorm(24, eps=1e-5)
    torch.nn.init.normal_(plain.weight)
    x, upstream = torch.randn(3, 50, 24, requires_grad=True), torch.randn(3, 50, 24)
    want = plain(x)
    expected = torch.autograd.grad((want * upstream).sum(), (x, plain.weight))
    ours = rms_norm(x, plain.weight, 1e-5)
    got = torch.autograd.grad((ours * upstream).sum(), (x, plain.weight))
    for a, b in zip((ours, *got), (want, *expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    low = x.detach().bfloat16()
    low_plain = copy.deepcopy(plain).bfloat16()
    a, b = rms_norm(low, low_plain.weight, 1e-5), low_plain(low)  # the same roundings
    assert torch.equal(a, b) if way == "by torch" else (a != b).float().mean() < 0.01


def test_norm_of_a_view_and_of_a_gradient_that_is_one(way):
    weight = torch.ones(8, requires_grad=True)
    wide = torch.randn(4, 16, requires_grad=True)
    found = [
        norm(wide[:, ::2]).T
        for norm in (lambda x: rms_norm(x, weight, 1e-5), lambda x: torch.rms_norm(x, (8,), weight, 1e-5))
    ]
    ours, theirs = (torch.autograd.grad((x * torch.arange(32).view(8, 4)).sum(), (wide, weight)) for x in found)
    torch.testing.assert_close(ours, theirs)


def test_a_copy_keeps_its_own_weights():
    model = torch.nn.Sequential(LlamaRMSNorm(8))
    use_own_layers(model)
    other = copy.deepcopy(model)
    other[0].weight.data.fill_(2.0)
    x = torch.randn(3, 8)
    assert "_RMSNorm" in type(model(x.requires_grad_()).grad_fn).__name__
    torch.testing.assert_close(other(x), 2 * model(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frozen", [False, True])
def test_feed_forward_equals_transformers_and_keeps_two_tensors(way, dtype, frozen):
    """Bit by bit where torch's functions compute it."""
    torch.manual_seed(0)
    plain = LlamaMLP(LlamaConfig(hidden_size=24, intermediate_size=40, num_attention_heads=4)).to(dtype)
    plain.down_proj.weight.requires_grad_(not frozen)
    ours = copy.deepcopy(plain)
    use_own_layers(ours)
    found, kept = [], []
    for model in (plain, ours):
        x = torch.randn(1, 7, 24, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        saved: list[torch.Size] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.shape) or t, lambda t: t):
            y = model(x)
        (y.float() ** 2).sum().backward()
        found.append([y, x.grad, *(p.grad for p in model.parameters() if p.requires_grad)])
        kept.append(sum(shape[-1] == 40 and shape[:-1].numel() == 7 for shape in saved))
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2**-6, "atol": 1e-4}
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, **(close if way == "in C" else {"rtol": 0, "atol": 0}))
    assert kept[1] == 2 and kept[0] > 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_equals_transformers_forward_and_backward(way, dtype):
    """What is turned in one pass is what transformers turns, and its gradient."""
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=48, num_attention_heads=6, num_key_value_heads=2, attn_implementation="tutelage")
    plain = LlamaAttention(config, 0).to(dtype)
    ours = copy.deepcopy(plain)
    use_own_layers(ours)
    packed = pack([[0] * 70, [0] * 30])
    turns = LlamaRotaryEmbedding(config)(torch.zeros(1, dtype=dtype), packed.position_ids[None])
    upstream, found = torch.randn(1, 100, 48).to(dtype), []
    for layer in (plain, ours):
        x = torch.randn(1, 100, 48, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        with attending(PackedLayout(packed)):
            y, _ = layer(hidden_states=x, position_embeddings=turns, attention_mask=None)
        found.append([y.detach(), *torch.autograd.grad((y * upstream).sum(), (x, *layer.parameters()))])
    assert type(ours).forward is not LlamaAttention.forward
    for a, b in zip(*found, strict=True):
        tolerance = 1e-5 if dtype == torch.float32 else 2**-7
        assert (a - b).abs().max() <= tolerance * b.abs().max()


def test_feed_forward_with_an_adapter_beside_its_last_product():
    model = LlamaMLP(LlamaConfig(hidden_size=8, intermediate_size=12, num_attention_heads=2))
    use_own_layers(model)
    model.down_proj = torch.nn.Sequential(model.down_proj, torch.nn.Tanh())
    x = torch.randn(3, 8)
    want = torch.tanh(model.down_proj[0](model.act_fn(model.gate_proj(x)) * model.up_proj(x)))
    torch.testing.assert_close(model(x), want)
