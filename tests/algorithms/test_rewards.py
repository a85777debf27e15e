"""Token rewards against the paper's objective, worked by hand and in slow loops."""

import pytest
import torch

from tutelage.algorithms.kl import k1, sequence_kl
from tutelage.algorithms.rewards import gain_and_bias, terminal_scores, token_rewards

from .checks import close, f64, holds_and_rejects, ints, offsets_of, random_lengths

LOGPROBS, REFERENCE = f64(-1, -2, -0.5), f64(-1.2, -1.5, -0.6)


def rewards_in_slow_loops(logprobs, reference, scores, offsets, kl_coef):
    rewards = []
    for n in range(len(scores)):
        start, end = int(offsets[n]), int(offsets[n + 1])
        for t in range(start, end):
            reward = -kl_coef * (float(logprobs[t]) - float(reference[t]))
            rewards.append(reward + float(scores[n]) if t == end - 1 else reward)
    return f64(*rewards)


def test_by_hand():
    def check(candidate):
        rewards = candidate(LOGPROBS, REFERENCE, f64(1.5), ints(0, 3), 0.02)
        close(rewards, [-0.004, 0.01, 1.498])
        close(rewards.sum(), 1.504)

    holds_and_rejects(
        check,
        token_rewards,
        {
            "sign of the penalty": lambda lp, ref, r, o, b: token_rewards(ref, lp, r, o, b),
            "score on the first token": lambda lp, ref, r, o, b: (-b * (lp - ref)).index_add(0, o[:-1], r),
            "score on every token": lambda lp, ref, r, o, b: -b * (lp - ref) + r,
            "no coefficient": lambda lp, ref, r, o, b: token_rewards(lp, ref, r, o, 1.0),
        },
    )


def test_against_slow_loops_and_the_sequence_objective():
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        offsets = offsets_of(random_lengths(generator, 6))
        logprobs = -torch.rand(int(offsets[-1]), generator=generator, dtype=torch.float64)
        reference = -torch.rand(int(offsets[-1]), generator=generator, dtype=torch.float64)
        scores = torch.randn(6, generator=generator, dtype=torch.float64)
        rewards = token_rewards(logprobs, reference, scores, offsets, 0.3)
        torch.testing.assert_close(rewards, rewards_in_slow_loops(logprobs, reference, scores, offsets, 0.3))
        # Summed over a sequence it is r(x, y) - beta log(pi/pi_ref)(y | x).
        expected = scores - 0.3 * sequence_kl(k1(logprobs, reference), offsets)
        torch.testing.assert_close(sequence_kl(rewards, offsets), expected)


def test_without_a_penalty_only_last_tokens_are_rewarded():
    rewards = token_rewards(f64(-1, -2, -3), f64(-9, -9, -9), f64(2, 5), ints(0, 1, 3), 0.0)
    close(rewards, [2, 0, 5])


def test_float32_scores_do_not_narrow_float64_rewards():
    assert token_rewards(LOGPROBS, REFERENCE, torch.tensor([1.5]), ints(0, 3), 0.02).dtype == torch.float64


def test_truncated_answers_lose_the_penalty():
    scores, ended = f64(1.5, 1.5, -2.0), torch.tensor([True, False, False])

    def check(candidate):
        close(candidate(scores, ended, 1.0), [1.5, 0.5, -3.0])

    holds_and_rejects(
        check,
        terminal_scores,
        {
            "mask inverted": lambda s, e, p: terminal_scores(s, ~e, p),
            "sign": lambda s, e, p: torch.where(e, s, s + p),
            "fixed": lambda s, e, p: torch.where(e, s, torch.full_like(s, -p)),
        },
    )
    close(terminal_scores(scores, ended, 0.0), scores)


def test_gain_and_bias_by_hand():
    scores = f64(1, 2, 4)

    def check(candidate):
        gain, bias = candidate(scores)
        close(gain, 0.801784)
        close(bias, -1.870829)

    sample_gain = 1 / scores.std()
    holds_and_rejects(
        check,
        gain_and_bias,
        {
            "sample variance": lambda s: (sample_gain, -sample_gain * s.mean()),
            "bias before gain": lambda s: (gain_and_bias(s)[0], -s.mean()),
        },
    )
    gain, bias = gain_and_bias(scores, mean=0.5, std=2.0)
    scaled = gain * scores + bias
    close(scaled.mean(), 0.5)
    close(scaled.std(correction=0), 2.0)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="reference_logprobs_T is"):
        token_rewards(LOGPROBS, REFERENCE[:2], f64(1.5), ints(0, 3), 0.02)
    with pytest.raises(ValueError, match="offsets hold 1 sequences"):
        token_rewards(LOGPROBS, REFERENCE, f64(1.5, 1.0), ints(0, 3), 0.02)
    with pytest.raises(ValueError, match="sequence 1 is empty"):
        token_rewards(LOGPROBS, REFERENCE, f64(1.5, 1.0), ints(0, 3, 3), 0.02)
    with pytest.raises(ValueError, match="bool"):
        terminal_scores(f64(1.0), ints(1), 1.0)
    with pytest.raises(ValueError, match="reward truncation"):
        terminal_scores(f64(1.0), torch.tensor([True]), -1.0)
    with pytest.raises(ValueError, match="equal"):
        gain_and_bias(f64(1.0, 1.0))
