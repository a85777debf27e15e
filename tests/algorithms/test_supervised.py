"""Token losses against torch's cross-entropy; the average of weights by its half-life."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from tutelage.algorithms.averaging import ema_half_life, ema_update
from tutelage.algorithms.supervised import token_nll

from .checks import close, f64, holds_and_rejects


def test_token_nll_is_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 7, (5,), generator=generator)
    logprobs = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]

    def check(candidate):
        torch.testing.assert_close(candidate(logprobs), cross_entropy(logits, targets, reduction="none"))

    holds_and_rejects(check, token_nll, {"sign": lambda lp: lp, "reduced": lambda lp: token_nll(lp).mean()})
    with pytest.raises(ValueError, match="packed"):
        token_nll(logits)


def test_ema_by_hand():
    def check(candidate):
        averages, weights = [f64(1.0), f64(2.0, 4.0)], [f64(3.0), f64(0.0, 4.0)]
        candidate(averages, weights, 0.75)
        close(averages[0], [1.5])
        close(averages[1], [1.5, 4.0])
        close(weights[0], [3.0])

    def keeps_nothing(averages, weights, decay):
        for average, weight in zip(averages, weights, strict=True):
            average.copy_(weight)

    holds_and_rejects(
        check,
        ema_update,
        {
            "decay on the weights": lambda a, w, d: ema_update(a, w, 1 - d),
            "first tensor only": lambda a, w, d: ema_update(a[:1], w[:1], d),
            "keeps nothing": keeps_nothing,
            "into the weights": lambda a, w, d: ema_update(w, a, d),
        },
    )


def test_without_decay_the_average_is_the_last_weights():
    averages = [f64(1.0, 2.0)]
    ema_update(averages, [f64(3.0, 4.0)], 0.0)
    close(averages[0], [3.0, 4.0])


def test_ema_half_life():
    def check(candidate):
        close(candidate(0.992), 86.296360)
        close(candidate(0.5), 1.0)

    holds_and_rejects(check, ema_half_life, {"of 1/e": lambda d: ema_half_life(d) / 0.6931471805599453})
    averages = [f64(1.0)]
    for _ in range(86):
        ema_update(averages, [f64(0.0)], 0.992)
    assert averages[0] > 0.5
    ema_update(averages, [f64(0.0)], 0.992)
    assert averages[0] < 0.5


def test_ema_of_bfloat16_weights_stays_float32():
    averages, weights = [torch.ones(1)], [torch.zeros(1, dtype=torch.bfloat16).requires_grad_()]
    ema_update(averages, weights, 0.992)
    assert averages[0].dtype == torch.float32 and averages[0] == pytest.approx(0.992)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="2 averages"):
        ema_update([f64(1), f64(1)], [f64(1)], 0.9)
    with pytest.raises(ValueError, match="shapes differ"):
        ema_update([f64(1)], [f64(1, 2)], 0.9)
    with pytest.raises(ValueError, match="decay"):
        ema_update([f64(1)], [f64(1)], 1.0)
