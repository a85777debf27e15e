"""RLOO, GRPO and Dr. GRPO: hand-worked advantages, the three normalizations of length, gradients."""

import pytest
import torch

from tutelage.algorithms.grpo import centered_advantages, dr_grpo_loss, group_advantages, grpo_loss
from tutelage.algorithms.importance import truncated_importance_weights
from tutelage.algorithms.kl import k3
from tutelage.algorithms.rloo import leave_one_out_advantages, penalized_rewards, reinforce_loss

from .checks import close, f64, holds_and_rejects, ints, numerical_gradient

REWARDS = f64(1, 0, 0, 2)[None]


def test_leave_one_out_by_hand():
    def check(candidate):
        close(candidate(REWARDS), [[0.333333, -1.0, -1.0, 1.666667]])

    holds_and_rejects(
        check,
        leave_one_out_advantages,
        {"mean of all": centered_advantages, "standardized": group_advantages, "sign": lambda r: -r},
    )


def test_leave_one_out_is_the_literal_definition_prompt_by_prompt():
    rewards = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slow = [[row[i] - (row.sum() - row[i]) / 3 for i in range(4)] for row in rewards]
    close(leave_one_out_advantages(rewards), slow, digits=9)


def test_group_advantages_by_hand():
    def check(candidate):
        close(candidate(REWARDS, 0.0), [[0.301511, -0.904534, -0.904534, 1.507557]])

    holds_and_rejects(
        check,
        group_advantages,
        {
            "sample deviation": lambda r, eps: (r - r.mean()) / r.std(),
            "variance": lambda r, eps: (r - r.mean()) / r.var(correction=0),
            "not divided": lambda r, eps: centered_advantages(r),
            "over the batch": lambda r, eps: (r - 1) / r.std(correction=0),
        },
    )
    close(group_advantages(f64(2, 2, 2)[None]), [[0.0, 0.0, 0.0]])
    close(group_advantages(torch.cat([REWARDS, 10 + REWARDS]), 0.0)[0], group_advantages(REWARDS, 0.0)[0])


def test_centered_advantages_by_hand():
    close(centered_advantages(REWARDS), [[0.25, -0.75, -0.75, 1.25]])


def test_penalized_rewards_by_hand():
    def check(candidate):
        close(candidate(f64(1.5, 0.0), f64(-0.2, 3.0), 0.02), [1.504, -0.06])

    holds_and_rejects(
        check,
        penalized_rewards,
        {"sign": lambda r, k, b: r + b * k, "no coefficient": lambda r, k, b: r - k, "no penalty": lambda r, k, b: r},
    )


def test_reinforce_gradient_is_minus_the_advantage():
    logprobs, advantages = f64(-3, -7).requires_grad_(), f64(0.5, -1.0).requires_grad_()
    loss = reinforce_loss(logprobs, advantages)
    close(loss, [1.5, -7.0])
    loss.sum().backward()
    close(logprobs.grad, [-0.5, 1.0])
    assert advantages.grad is None


OFFSETS, ADVANTAGES = ints(0, 2, 6), f64(1, -1)
SAME = torch.zeros(6, dtype=torch.float64)


def test_length_terms_by_hand():
    """Lengths 2 and 4, advantages 1 and -1, ratio 1: means of answers cancel, sums over a constant do not."""

    def check(candidate):
        close(candidate(SAME, SAME, SAME, ADVANTAGES, OFFSETS, 0.2, 0.0), [-1.0, 1.0])

    def divided_by_all(lp, old, ref, a, offsets, clip, beta):
        return dr_grpo_loss(lp, old, ref, a, offsets, clip, beta, 3)

    holds_and_rejects(check, grpo_loss, {"mean over the batch's tokens": divided_by_all})
    corrected = dr_grpo_loss(SAME, SAME, SAME, ADVANTAGES, OFFSETS, 0.2, 0.0, 10)
    close(corrected, [-0.2, 0.4])
    close(corrected.mean(), 0.1)


def test_terms_are_the_clipped_loss_and_k3():
    generator = torch.Generator().manual_seed(1)
    logprobs, old, reference = -torch.rand(3, 6, dtype=torch.float64, generator=generator)

    def slow(lp, old, reference, advantages, offsets, clip, beta):
        out = []
        for n in range(2):
            terms = []
            for t in range(int(offsets[n]), int(offsets[n + 1])):
                ratio, a = (lp[t] - old[t]).exp(), advantages[n]
                free, bound = -a * ratio, -a * ratio.clamp(1 - clip, 1 + clip)
                terms.append(torch.maximum(free, bound) + beta * k3(lp[t : t + 1], reference[t : t + 1])[0])
            out.append(torch.stack(terms).mean())
        return torch.stack(out)

    def check(candidate):
        close(
            candidate(logprobs, old, reference, ADVANTAGES, OFFSETS, 0.2, 0.04),
            slow(logprobs, old, reference, ADVANTAGES, OFFSETS, 0.2, 0.04),
            digits=9,
        )

    def with_(**changes):
        def loss(lp, old, ref, a, offsets, clip, beta):
            given = {"lp": lp, "old": old, "ref": ref, "a": a, "clip": clip, "beta": beta} | changes
            return grpo_loss(*(given[k] for k in ("lp", "old", "ref", "a")), offsets, given["clip"], given["beta"])

        return loss

    holds_and_rejects(
        check,
        grpo_loss,
        {
            "no clip": with_(clip=1e9),
            "no penalty": with_(beta=0.0),
            "sign of the penalty": with_(beta=-0.04),
            "sign of the advantage": with_(a=-ADVANTAGES),
            "penalty against the sampler": lambda lp, old, ref, a, o, c, b: grpo_loss(lp, old, old, a, o, c, b),
        },
    )

    def total(x):
        return grpo_loss(x, old, reference, ADVANTAGES, OFFSETS, 0.2, 0.04).sum()

    x = logprobs.clone().requires_grad_()
    torch.testing.assert_close(
        torch.autograd.grad(total(x), x)[0], numerical_gradient(total, logprobs), rtol=1e-6, atol=1e-8
    )


def test_wrong_input_is_refused():
    for advantages in (leave_one_out_advantages, group_advantages, centered_advantages):
        with pytest.raises(ValueError, match="K >= 2"):
            advantages(f64(1.0)[None])
    with pytest.raises(ValueError, match="advantages_N"):
        grpo_loss(SAME, SAME, SAME, f64(1, 2, 3), OFFSETS, 0.2, 0.0)


def test_importance_weights_multiply_the_advantage_and_not_the_penalty():
    weights, reference = f64(1.0, 0.5, 2.0, 2.0, 0.0, 1.0), f64(0, 0.1, 0, 0, 0, 0)
    penalty = 0.3 * float(k3(SAME, reference)[1])

    def check(candidate):
        found = candidate(SAME, SAME, reference, ADVANTAGES, OFFSETS, 0.2, 0.3, weights)
        close(found, [-0.75 + penalty / 2, 1.25])  # -(1 + .5) / 2 and (2 + 2 + 0 + 1) / 4

    holds_and_rejects(
        check,
        grpo_loss,
        {
            "left out": lambda *words: grpo_loss(*words[:-1]),
            "of the penalty too": lambda *_: f64(-0.75 + 0.5 * penalty / 2, 1.25),
        },
    )
    close(dr_grpo_loss(SAME, SAME, SAME, ADVANTAGES, OFFSETS, 0.2, 0.3, 4, weights), [-1.5 / 4, 5 / 4])
    with pytest.raises(ValueError, match="weights_T"):
        grpo_loss(SAME, SAME, SAME, ADVANTAGES, OFFSETS, 0.2, 0.3, weights[1:])


def test_weighted_reinforce_is_unbiased_under_the_policy_that_drew():
    """Two answers, drawn by mu with (.8, .2): weighted by pi/mu the mean gradient is that of pi's own draws."""
    logits = f64(0.3, -0.4).requires_grad_()
    policy, drew, rewards = logits.log_softmax(0), f64(0.8, 0.2).log(), f64(1.0, 3.0)
    weights = truncated_importance_weights(policy, drew, 9.0)
    (drew.exp() * reinforce_loss(policy, rewards * weights)).sum().backward()
    wanted = torch.autograd.grad(-(logits.softmax(0) * rewards).sum(), logits)[0]
    close(logits.grad, wanted, digits=9)
