"""Drawing from logits: frequencies match the probabilities, and each filter leaves what its definition says."""

import pytest
import torch

from tutelage.engine import choosing
from tutelage.engine.choosing import SamplingParams, choose


@pytest.mark.parametrize(
    ("params", "shares"),
    [
        ({}, [0.5, 0.3, 0.2]),
        ({"top_p": 0.75}, [0.625, 0.375, 0]),
        ({"top_k": 1}, [1, 0, 0]),
        ({"min_p": 0.5}, [0.625, 0.375, 0]),
        ({"top_k": 2, "top_p": 0.6}, [1, 0, 0]),  # of what top-k left, 0.5 / 0.8 > 0.6
    ],
)
def test_filters_by_hand(params, shares):
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(10_000, -1).contiguous()
    uniform = torch.linspace(0, 1, 10_001)[:-1]
    tokens, logprobs = choose(logits, uniform, SamplingParams(**params))
    torch.testing.assert_close(
        torch.bincount(tokens, minlength=3) / 10_000, torch.tensor(shares, dtype=torch.float32), atol=2e-3, rtol=0
    )
    torch.testing.assert_close(logprobs[0], torch.tensor(0.5).log())  # of the whole distribution


def test_frequencies_pass_a_chi_square_test_over_many_blocks():
    torch.manual_seed(1)
    logits = torch.randn(1, 1000) * 2  # not a multiple of the block
    tokens, _ = choose(logits.expand(40_000, -1), torch.rand(40_000), SamplingParams())
    seen = torch.bincount(tokens, minlength=1000).float()
    expected = logits.softmax(-1)[0] * 40_000
    often = expected > 5
    statistic = float(((seen - expected).square() / expected)[often].sum()) / int(often.sum())
    assert 0.8 < statistic < 1.25
    assert len(tokens) == int(seen.sum())


def test_a_token_without_weight_is_never_drawn():
    logits = torch.full((3, 600), float("-inf"))
    logits[:, [0, 255, 256, 511]] = 0.0  # the borders of the blocks
    tokens, _ = choose(logits, torch.tensor([0.0, 0.5, 1 - 2**-24]), SamplingParams())
    assert tokens.tolist() == [0, 256, 511]


def test_flat_rows_are_sorted_whole(monkeypatch):
    weights = torch.randn(4, 900).softmax(-1)
    monkeypatch.setattr(choosing, "LIKELY", 16)
    some = choosing._kept(weights, SamplingParams(top_p=0.9))
    monkeypatch.setattr(choosing, "LIKELY", 900)
    assert torch.equal(some, choosing._kept(weights, SamplingParams(top_p=0.9)))
    share = some.sum(-1)
    assert bool((share >= 0.9 - 1e-6).all()) and bool((share - some.masked_fill(some == 0, 1).amin(-1) < 0.9).all())


def test_many_rows_keep_their_order():
    logits = 50 * torch.eye(2000)  # more rows than are made at once; row i is all but sure of token i
    tokens, logprobs = choose(logits, torch.full((2000,), 0.5), SamplingParams())
    assert tokens.tolist() == list(range(2000)) and float(logprobs.min()) > -1e-3
