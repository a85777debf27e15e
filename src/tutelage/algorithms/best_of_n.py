"""Best-of-n: the unbiased estimate of its value from N samples, and the bound on its KL."""

from math import comb, log

from torch import Tensor


def best_of_n(proxy_N: Tensor, values_N: Tensor, n: int) -> float:
    """E[value of the best of n by proxy] from N ≥ n samples (Nakano et al. 2021, appendix).

    Sorted by proxy, Σ_{i=n}^{N} C(i−1, n−1)/C(N, n) · v_(i).
    """
    count = len(proxy_N)
    if not 1 <= n <= count:
        raise ValueError(f"n is {n}; there are {count} samples")
    ordered = values_N[proxy_N.argsort(stable=True)].tolist()
    return sum(comb(i, n - 1) * value for i, value in enumerate(ordered) if i >= n - 1) / comb(count, n)


def kl_upper_bound(n: int) -> float:
    """log n − (n−1)/n: an upper bound of best-of-n's KL (Beirami et al. 2024), reached only without ties."""
    return log(n) - (n - 1) / n
