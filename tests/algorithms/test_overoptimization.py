"""Gao et al.'s forms by hand; their peaks against a fine grid."""

import math

import pytest

from tutelage.algorithms.overoptimization import best_of_n_form, best_of_n_peak, rl_form, rl_peak

from .checks import close, holds_and_rejects


def test_best_of_n_form_by_hand():
    def check(candidate):
        close(candidate(2.0, 0.6, 0.1), 0.8)
        close(candidate(0.0, 0.6, 0.1), 0.0)

    holds_and_rejects(
        check,
        best_of_n_form,
        {"sign": lambda d, a, b: d * (a + b * d), "logarithm": rl_form, "not times d": lambda d, a, b: a - b * d},
    )


def test_rl_form_by_hand():
    def check(candidate):
        close(candidate(3.0, 0.35, 0.12), 0.6545)
        close(candidate(math.exp(0.35 / 0.12), 0.35, 0.12), 0.0)
        close(math.exp(0.35 / 0.12), 18.479586)
        close(candidate(0.0, 0.35, 0.12), 0.0)
        close(candidate(0.5, 0.35, 0.12), 0.5 * (0.35 + 0.12 * 0.693147))

    holds_and_rejects(
        check,
        rl_form,
        {"sign": lambda d, a, b: rl_form(d, a, -b), "no logarithm": best_of_n_form},
    )


@pytest.mark.parametrize(
    ("peak", "form", "coefficients", "expected"),
    [
        (best_of_n_peak, best_of_n_form, (0.6, 0.1), (3.0, 0.9)),
        (rl_peak, rl_form, (0.35, 0.12), (6.798260, 0.815791)),
    ],
)
def test_peaks_by_hand_and_on_a_grid(peak, form, coefficients, expected):
    def check(candidate):
        d, score = candidate(*coefficients)
        close([d, score], expected)
        close(form(d, *coefficients), score, digits=9)
        grid = [form(0.01 * i, *coefficients) for i in range(1, 2000)]
        assert max(grid) <= score + 1e-12 and max(grid) > score - 1e-5

    holds_and_rejects(
        check,
        peak,
        {
            "the zero, not the peak": lambda a, b: (2 * peak(a, b)[0], peak(a, b)[1]),
            "score missing": lambda a, b: (peak(a, b)[0], 0.0),
        },
    )


def test_wrong_input_is_refused():
    for form in (best_of_n_form, rl_form):
        with pytest.raises(ValueError, match="root of a KL"):
            form(-1.0, 0.6, 0.1)
    for peak in (best_of_n_peak, rl_peak):
        with pytest.raises(ValueError, match="no peak"):
            peak(0.6, 0.0)
