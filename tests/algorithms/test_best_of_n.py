"""The estimator against every subset of n samples; the bound against exact divergences."""

from itertools import combinations
from math import comb, log

import pytest
import torch

from tutelage.algorithms.best_of_n import best_of_n, kl_upper_bound

from .checks import close, f64, holds_and_rejects

PROXY, GOLD = f64(0.1, 0.9, 0.5, 0.3), f64(1, -1, 2, 0)


def over_all_subsets(proxy, values, n):
    """The definition: the mean over all subsets of n of the value of the best by proxy, equal proxies halved."""
    total, subsets = 0.0, 0
    for subset in combinations(range(len(proxy)), n):
        top = max(float(proxy[i]) for i in subset)
        best = [float(values[i]) for i in subset if float(proxy[i]) == top]
        total, subsets = total + sum(best) / len(best), subsets + 1
    return total / subsets


def sorted_by_value(proxy, values, n):
    return best_of_n(values, values, n)


def with_replacement(proxy, values, n):
    ordered, count = values[proxy.argsort()], len(values)
    share = (torch.arange(count + 1, dtype=torch.float64) / count) ** n
    return float((share.diff() * ordered).sum())


MUTANTS = {
    "worst of n": lambda proxy, values, n: best_of_n(-proxy, values, n),
    "best of one": lambda proxy, values, n: best_of_n(proxy, values, 1),
    "with replacement": with_replacement,
}


def test_by_hand():
    values = f64(0, 0, 1, 2)

    def check(candidate):
        close([candidate(values, values, n) for n in (1, 2, 3, 4)], [0.75, 1.333333, 1.75, 2.0])

    holds_and_rejects(check, best_of_n, MUTANTS)


def test_gold_value_of_the_best_by_proxy():
    def check(candidate):
        close(candidate(PROXY, GOLD, 2), 0.166667)
        close(candidate(PROXY, GOLD, 1), GOLD.mean())
        close(candidate(PROXY, GOLD, 4), -1.0)

    holds_and_rejects(check, best_of_n, {**MUTANTS, "sorted by value": sorted_by_value})


def test_against_every_subset():
    generator = torch.Generator().manual_seed(0)
    proxy, values = torch.randn(2, 8, generator=generator, dtype=torch.float64)

    def check(candidate):
        for n in range(1, 9):
            close(candidate(proxy, values, n), over_all_subsets(proxy, values, n), digits=9)

    holds_and_rejects(check, best_of_n, {**MUTANTS, "sorted by value": sorted_by_value})


def test_equal_proxies_are_broken_at_random_in_expectation():
    proxy, values = f64(1, 1, 0, 2, 1), f64(5, -1, 3, 7, 2)
    for n in range(1, 6):
        expected = over_all_subsets(proxy, values, n)
        close(best_of_n(proxy, values, n), expected, digits=9)
        for order in ([4, 3, 2, 1, 0], [1, 0, 4, 2, 3], [3, 4, 0, 1, 2]):
            close(best_of_n(proxy[order], values[order], n), expected, digits=9)


def test_pass_at_k_is_the_binary_case():
    """1 - C(N-c, k)/C(N, k): 3 of 10 right, k = 5."""
    right = f64(*[1] * 3, *[0] * 7)
    close(best_of_n(right, right, 5), 0.916667)
    close(best_of_n(right, right, 5), 1 - comb(7, 5) / comb(10, 5), digits=9)


def test_a_million_samples_neither_overflow_nor_take_long():
    proxy = torch.arange(1_000_000, dtype=torch.float64)
    for n in (1, 1000, 1_000_000):
        # The expected largest rank of n out of N (counted from 0) is n (N + 1)/(n + 1) - 1.
        assert best_of_n(proxy, proxy, n) == pytest.approx(n * 1_000_001 / (n + 1) - 1, rel=1e-9)


def test_kl_bound_by_hand():
    def check(candidate):
        expected = [0.0, 0.193147, 0.636294, 1.204442, 1.835089, 3.174508, 5.240278]
        close([candidate(n) for n in (1, 2, 4, 8, 16, 64, 512)], expected)

    holds_and_rejects(check, kl_upper_bound, {"log n": log, "plus": lambda n: log(n) + (n - 1) / n})


def test_kl_bound_is_above_the_exact_kl_of_two_equal_outputs():
    """Best of 2 of two equally likely outputs is (1/4, 3/4): 0.130812 nats."""
    exact = 0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5)
    close(exact, 0.130812)
    assert exact < kl_upper_bound(2)


def test_kl_bound_is_the_limit_of_many_outputs():
    atoms = 100_000
    share = (torch.arange(atoms + 1, dtype=torch.float64) / atoms) ** 4
    chosen = share.diff()
    close((chosen * (chosen * atoms).log()).sum(), kl_upper_bound(4), digits=4)


def test_wrong_input_is_refused():
    for n in (0, 5):
        with pytest.raises(ValueError, match=f"n is {n}"):
            best_of_n(PROXY, GOLD, n)
    with pytest.raises(ValueError, match="shapes differ"):
        best_of_n(PROXY, GOLD[:3], 2)
    with pytest.raises(ValueError, match="n is 0"):
        kl_upper_bound(0)
