"""Truncated importance weights, by hand."""

import math

import pytest
import torch

from tutelage.algorithms.importance import answer_importance_weights, truncated_importance_weights

from .checks import holds_and_rejects, ints


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


def test_answers_are_weighted_by_the_product_over_their_tokens():
    logprobs = torch.tensor([-1.0, -1.0, -2.0, -1.0, -3.0], requires_grad=True)
    sampled = torch.tensor([-1.5, -1.2, -1.0, -1.5, -1.5])

    def check(weights_of):
        weights = weights_of(logprobs, sampled, ints(0, 2, 3, 5), 2.0)
        # e^(.5 + .2) = 2.01 is above the cap; e^-1; e^(.5 - 1.5)
        assert weights.tolist() == pytest.approx([2.0, 2.0, math.exp(-1), math.exp(-1), math.exp(-1)])
        assert not weights.requires_grad

    by_token = truncated_importance_weights(logprobs, sampled, 2.0)
    holds_and_rejects(
        check,
        answer_importance_weights,
        {
            "token by token": lambda p, q, offsets, cap: by_token,
            "cut before the product": lambda p, q, offsets, cap: torch.tensor(
                [by_token[0] * by_token[1], by_token[0] * by_token[1], by_token[2], *[by_token[3] * by_token[4]] * 2]
            ),
            "not truncated": lambda p, q, offsets, cap: answer_importance_weights(p, q, offsets, 9.0),
        },
    )


def test_axes_must_agree():
    with pytest.raises(ValueError, match=r"\[T\]"):
        truncated_importance_weights(torch.zeros(3), torch.zeros(2), 2.0)
    with pytest.raises(ValueError, match="offsets end at 4"):
        answer_importance_weights(torch.zeros(3), torch.zeros(3), ints(0, 4), 2.0)
