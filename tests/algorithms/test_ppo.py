"""PPO's losses by hand in every region of the clip, their gradients, and the ptx gradient by finite differences."""

import pytest
import torch

from tutelage.algorithms.kl import k2
from tutelage.algorithms.ppo import (
    approximate_kl,
    clip_fraction,
    clipped_policy_loss,
    clipped_value_loss,
    ptx_objective,
    ratio_statistics,
)
from tutelage.algorithms.supervised import token_nll

from .checks import close, f64, holds_and_rejects, numerical_gradient

RATIOS, ADVANTAGES = f64(1.5, 0.5, 1.5, 0.5), f64(1, 1, -1, -1)


def policy_loss_with(*, sign=1.0, choose=torch.maximum, clip_to=None):
    def loss(logprobs, old_logprobs, advantages, clip):
        ratio = (logprobs - old_logprobs).exp()
        low, high = clip_to or (1 - clip, 1 + clip)
        return choose(-sign * advantages * ratio, -sign * advantages * ratio.clamp(low, high))

    return loss


def test_policy_loss_by_hand():
    def check(candidate):
        close(candidate(RATIOS.log() - 3, f64(-3, -3, -3, -3), ADVANTAGES, 0.2), [-1.2, -0.5, 1.5, 0.8])

    holds_and_rejects(
        check,
        clipped_policy_loss,
        {
            "sign": policy_loss_with(sign=-1.0),
            "minimum of the losses": policy_loss_with(choose=torch.minimum),
            "always clipped": policy_loss_with(choose=lambda free, clipped: clipped),
            "never clipped": policy_loss_with(choose=lambda free, clipped: free),
            "clipped above only": policy_loss_with(clip_to=(0.0, 1.2)),
            "ratio upside down": lambda lp, old, a, c: clipped_policy_loss(old, lp, a, c),
        },
    )


def test_policy_gradient_stops_where_the_clip_binds():
    """d loss / d log pi = -A ratio where free (second and third), 0 where clipped (first and fourth)."""
    logprobs = RATIOS.log().requires_grad_()
    loss = clipped_policy_loss(logprobs, torch.zeros_like(RATIOS), ADVANTAGES, 0.2)
    close(torch.autograd.grad(loss.sum(), logprobs)[0], [0.0, -0.5, 1.5, 0.0])


def test_at_the_sampling_policy_it_is_the_policy_gradient():
    logprobs, advantages = f64(-1, -2, -3).requires_grad_(), f64(0.5, -1.5, 2.0)
    loss = clipped_policy_loss(logprobs, logprobs.detach(), advantages, 0.2)
    close(loss, -advantages)
    close(torch.autograd.grad(loss.sum(), logprobs)[0], -advantages)


def value_loss_with(*, half=0.5, choose=torch.maximum, around_returns=False):
    def loss(values, old_values, returns, clip):
        center = returns if around_returns else old_values
        clipped = center + (values - center).clamp(-clip, clip)
        return half * choose((values - returns).square(), (clipped - returns).square())

    return loss


def test_value_loss_by_hand():
    def check(candidate):
        close(candidate(f64(1.5, 0.5, 1.1, 0.5), f64(1, 1, 1, 1), f64(2, 2, 2, 0), 0.2), [0.32, 1.125, 0.405, 0.32])

    holds_and_rejects(
        check,
        clipped_value_loss,
        {
            "no half": value_loss_with(half=1.0),
            "minimum": value_loss_with(choose=torch.minimum),
            "never clipped": value_loss_with(choose=lambda free, clipped: free),
            "clipped around the returns": value_loss_with(around_returns=True),
        },
    )


def test_value_loss_without_movement_is_half_the_squared_error():
    values, returns = f64(1, -2, 0.5), f64(2, 2, 2)
    close(clipped_value_loss(values, values, returns, 0.2), 0.5 * (values - returns).square())


def test_value_gradient_stops_where_the_clip_binds():
    values = f64(1.5, 0.5).requires_grad_()
    loss = clipped_value_loss(values, f64(1, 1), f64(2, 2), 0.2)
    close(torch.autograd.grad(loss.sum(), values)[0], [0.0, -1.5])


def test_ratio_statistics_by_hand():
    ratios = f64(1.5, 0.5, 1.1, 0.9)

    def check(candidate):
        statistics = candidate(ratios.log() - 2, torch.full_like(ratios, -2.0), 0.2)
        close(statistics.clip_fraction, 0.5)
        close(statistics.approximate_kl, 0.5 * ratios.log().square().mean())
        close(statistics.ratio_mean, 1.0)
        close(statistics.ratio_variance, (0.25 + 0.25 + 0.01 + 0.01) / 4)

    def replaced(**changes):
        return lambda lp, old, clip: ratio_statistics(lp, old, clip)._replace(**changes)

    holds_and_rejects(
        check,
        ratio_statistics,
        {
            "clipped above only": replaced(clip_fraction=f64(0.25)[0]),
            "no half": replaced(approximate_kl=ratios.log().square().mean()),
            "sample variance": replaced(ratio_variance=ratios.var()),
            "log ratio's mean": replaced(ratio_mean=ratios.log().mean()),
        },
    )


def test_statistics_are_zero_before_the_first_update_and_carry_no_gradient():
    logprobs = f64(-1, -2).requires_grad_()
    statistics = ratio_statistics(logprobs, logprobs.detach(), 0.2)
    close(torch.stack(list(statistics)), [0, 0, 1, 0])
    assert not any(value.requires_grad for value in statistics)
    assert not approximate_kl(logprobs, logprobs.detach()).requires_grad
    assert not clip_fraction(logprobs, logprobs.detach(), 0.2).requires_grad


def test_approximate_kl_is_k2():
    logprobs, old = f64(-1, -2, -0.5), f64(-1.2, -1.5, -0.6)
    torch.testing.assert_close(approximate_kl(logprobs, old), k2(logprobs, old))


class Softmax:
    """A policy with one logit per token: small enough for finite differences on every parameter."""

    old = f64(0.1, -0.4, 0.3, 0.2).log_softmax(0)
    sampled, advantages = torch.tensor([0, 1, 1, 3]), f64(1.0, -0.5, 0.8, -1.2)
    pretraining = torch.tensor([2, 2, 0])

    def policy_loss(self, logits):
        logprobs = logits.log_softmax(0)
        return clipped_policy_loss(logprobs[self.sampled], self.old[self.sampled], self.advantages, 0.2).mean()

    def pretraining_loss(self, logits):
        return token_nll(logits.log_softmax(0)[self.pretraining]).mean()


def test_ptx_gradient_by_finite_differences():
    model, logits, gamma = Softmax(), f64(0.0, -0.2, 0.5, 0.1), 27.8

    def check(candidate):
        parameters = logits.clone().requires_grad_()
        loss = candidate(model.policy_loss(parameters), model.pretraining_loss(parameters), gamma)
        gradient = torch.autograd.grad(loss, parameters)[0]
        expected = numerical_gradient(lambda at: model.policy_loss(at) + gamma * model.pretraining_loss(at), logits)
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6)

    holds_and_rejects(
        check,
        ptx_objective,
        {
            "sign": lambda policy, pretraining, g: policy - g * pretraining,
            "gamma on the policy": lambda policy, pretraining, g: g * policy + pretraining,
            "no gamma": lambda policy, pretraining, g: policy + pretraining,
            "pretraining detached": lambda policy, pretraining, g: policy + g * pretraining.detach(),
        },
    )


def test_ptx_gradient_is_the_sum_of_two_backward_passes():
    model, logits, gamma = Softmax(), f64(0.0, -0.2, 0.5, 0.1), 27.8
    together = logits.clone().requires_grad_()
    ptx_objective(model.policy_loss(together), model.pretraining_loss(together), gamma).backward()
    in_turn = logits.clone().requires_grad_()
    model.policy_loss(in_turn).backward()
    (gamma * model.pretraining_loss(in_turn)).backward()
    torch.testing.assert_close(together.grad, in_turn.grad)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"advantages_T \[1\]"):
        clipped_policy_loss(f64(1, 2), f64(1, 2), f64(1), 0.2)
    with pytest.raises(ValueError, match="shapes differ"):
        clipped_value_loss(f64(1, 2), f64(1, 2), f64(1), 0.2)
    with pytest.raises(ValueError, match="shapes differ"):
        ratio_statistics(f64(1, 2), f64(1), 0.2)
    with pytest.raises(ValueError, match="reduced"):
        ptx_objective(f64(1, 2), f64(1, 2), 1.0)
