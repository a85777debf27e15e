"""Schedules at the points the paper fixes."""

import math

import pytest

from tutelage.algorithms.schedules import constant_after_warmup, cosine_to_fraction, linear_to_fraction

from .checks import close, holds_and_rejects


def test_cosine_to_ten_percent():
    def check(candidate):
        for step, expected in [(0, 1.0), (25, 0.868198), (50, 0.55), (75, 0.231802), (100, 0.1), (530, 0.1)]:
            close(candidate(step, 100), expected)

    holds_and_rejects(
        check,
        cosine_to_fraction,
        {
            "to zero": lambda step, total: cosine_to_fraction(step, total, final_fraction=0.0),
            "linear": lambda step, total: linear_to_fraction(step, total, final_fraction=0.1),
            "rises again": lambda step, total: 0.55 + 0.45 * math.cos(math.pi * step / total),
            "scaled, not shifted": lambda step, total: max(0.1, cosine_to_fraction(step, total, final_fraction=0.0)),
        },
    )


def test_linear_to_zero():
    def check(candidate):
        for step, expected in [(0, 1.0), (25, 0.75), (50, 0.5), (100, 0.0), (150, 0.0)]:
            close(candidate(step, 100), expected)
        close(candidate(50, 100, final_fraction=0.2), 0.6)

    holds_and_rejects(
        check,
        linear_to_fraction,
        {
            "never ends": lambda step, total, **options: 1 - step / total,
            "to ten percent": lambda step, total, **options: linear_to_fraction(step, total, final_fraction=0.1),
        },
    )


@pytest.mark.parametrize("schedule", [cosine_to_fraction, linear_to_fraction])
def test_warmup_then_the_schedule_from_its_peak(schedule):
    rates = [schedule(step, 104, warmup=4) for step in range(105)]
    close(rates[:5], [0.25, 0.5, 0.75, 1.0, 1.0])
    close(rates[4:], [schedule(step, 100) for step in range(101)])


def test_constant_after_warmup_from_a_tenth():
    def check(candidate):
        for step, expected in [(0, 0.1), (5, 0.55), (9, 0.91), (10, 1.0), (400, 1.0)]:
            close(candidate(step, 10), expected)

    holds_and_rejects(
        check,
        constant_after_warmup,
        {
            "from zero": lambda step, warmup: constant_after_warmup(step, warmup, start_fraction=0.0),
            "keeps rising": lambda step, warmup: 0.1 + 0.9 * step / warmup,
            "no warm-up": lambda step, warmup: 1.0,
        },
    )


def test_degenerate_lengths():
    assert constant_after_warmup(0, 0) == 1.0
    assert constant_after_warmup(0, 1) == pytest.approx(0.1)
    assert cosine_to_fraction(0, 1) == 1.0
    assert cosine_to_fraction(1, 1) == pytest.approx(0.1)
    assert cosine_to_fraction(3, 3, warmup=3) == 1.0
    assert linear_to_fraction(0, 0) == 1.0
