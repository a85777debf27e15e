"""What a soft label does to each preference loss, by hand and against the same comparison in both orders."""

import math

import pytest
import torch

from tutelage.configs import DPOConfig, IPOConfig, ORPOConfig, PreferenceConfig, SimPOConfig
from tutelage.stages.preference_losses import Answers, preference_loss

LOSSES: list[PreferenceConfig] = [
    DPOConfig(),
    DPOConfig(loss="cdpo", label_smoothing=0.1),
    DPOConfig(loss="plackett-luce"),
    DPOConfig(nll_coef=0.2),
    IPOConfig(),
    ORPOConfig(),
    SimPOConfig(),
]


def answers(ranks: list[int], right: list[float] | None) -> Answers:
    """Comparisons of two answers; the log-probabilities need gradients."""
    torch.manual_seed(0)
    logprobs_N = (-5 - 5 * torch.rand(2)).repeat(len(ranks) // 2).requires_grad_()
    chances = None if right is None else torch.tensor(right)
    offsets = torch.arange(0, len(ranks) + 1, 2)
    tokens_N = torch.tensor([7, 5]).repeat(len(ranks) // 2)
    return Answers(logprobs_N, logprobs_N.detach() - 0.3, tokens_N, torch.tensor(ranks), offsets, right_P=chances)


@pytest.mark.parametrize(
    "config", LOSSES, ids=lambda c: f"{c.verb}-{getattr(c, 'loss', '')}-{getattr(c, 'nll_coef', '')}"
)
def test_a_soft_label_is_both_orders_by_their_chances(config):
    soft = answers([2, 1], [0.7])
    loss = preference_loss(config, soft).sum()
    loss.backward()
    both = answers([2, 1, 1, 2], None)
    each_P = preference_loss(config, both)
    expected = 0.7 * each_P[0] + 0.3 * each_P[1]
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    gradient_N = both.logprobs_N.grad.reshape(2, 2).sum(0)
    assert torch.allclose(soft.logprobs_N.grad, gradient_N, rtol=1e-5)


def test_dpo_with_a_soft_label_is_the_cross_entropy_with_it():
    one = Answers(
        torch.tensor([-3.0, -4.0]), torch.zeros(2), torch.ones(2), torch.tensor([1, 2]), torch.tensor([0, 2]),
        right_P=torch.tensor([0.6]),
    )  # fmt: skip
    z = 0.1 * (-3.0 + 4.0)
    wanted = 0.6 * math.log1p(math.exp(-z)) + 0.4 * math.log1p(math.exp(z))
    assert preference_loss(DPOConfig(beta=0.1), one).item() == pytest.approx(wanted, rel=1e-6)


def test_longer_rankings_beside_soft_pairs_keep_their_loss():
    values = torch.tensor([-3.0, -4.0, -5.0, -2.0, -6.0])
    offsets, ranks = torch.tensor([0, 3, 5]), torch.tensor([1, 2, 3, 1, 2])
    for loss in ("sigmoid", "plackett-luce"):
        config = DPOConfig(loss=loss)
        sure = preference_loss(config, Answers(values, torch.zeros(5), torch.ones(5), ranks, offsets))
        chances = torch.tensor([1.0, 0.8])
        some = preference_loss(config, Answers(values, torch.zeros(5), torch.ones(5), ranks, offsets, right_P=chances))
        assert some[0] == sure[0] and some[1] > sure[1]
