"""Truncated importance weights, by hand."""

import math

import pytest
import torch

from tutelage.algorithms.importance import truncated_importance_weights

from .checks import holds_and_rejects


def test_ratios_are_cut_at_the_cap():
    logprobs = torch.tensor([-1.0, -1.0, -2.0], requires_grad=True)
    sampled = torch.tensor([-1.0, -3.0, -1.0])

    def check(weights_of):
        weights = weights_of(logprobs, sampled, 2.0)
        assert weights.tolist() == pytest.approx([1.0, 2.0, math.exp(-1)])  # e^2 is above the cap
        assert not weights.requires_grad

    holds_and_rejects(
        check,
        truncated_importance_weights,
        {
            "upside down": lambda p, q, cap: (q - p).exp().clamp(max=cap).detach(),
            "not truncated": lambda p, q, cap: (p - q).exp().detach(),
        },
    )


def test_axes_must_agree():
    with pytest.raises(ValueError, match=r"\[T\]"):
        truncated_importance_weights(torch.zeros(3), torch.zeros(2), 2.0)
