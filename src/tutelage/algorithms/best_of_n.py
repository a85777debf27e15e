"""Best-of-n: the unbiased estimate of its value from N samples, and the bound on its KL."""

import math

import torch
from torch import Tensor

from tutelage.algorithms.shapes import require_same_shape


def best_of_n(proxy_N: Tensor, values_N: Tensor, n: int) -> float:
    """E[value of the best of n by proxy] from N ≥ n samples (Nakano et al. 2021, appendix).

    Sorted by proxy, Σ_{i=n}^{N} C(i−1, n−1)/C(N, n) · v_(i): the mean over all subsets of n. Equal proxies are
    broken at random, in expectation: each has the mean value of its group. Values may be gold scores or the proxy.
    """
    require_same_shape(proxy_N=proxy_N, values_N=values_N)
    if proxy_N.dim() != 1:
        raise ValueError(f"expected [N] samples of one prompt, got {list(proxy_N.shape)}")
    count = len(proxy_N)
    if not 1 <= n <= count:
        raise ValueError(f"n is {n}, but there are {count} samples")
    _, group_N, size = proxy_N.unique(return_inverse=True, return_counts=True)
    group_mean = torch.zeros(len(size), dtype=torch.float64).index_add(0, group_N.cpu(), values_N.cpu().double())
    group_mean /= size.cpu()
    ordered_N = group_mean.repeat_interleave(size.cpu())
    # w_N = n/N and w_{i−1} = w_i·(i − n)/(i − 1): no factorial, so that N may be any size.
    i = torch.arange(count, 1, -1, dtype=torch.float64)
    falling = torch.cat([torch.tensor([n / count], dtype=torch.float64), (i - n).clamp(min=0) / (i - 1)]).cumprod(0)
    return float((falling.flip(0) * ordered_N).sum())


def kl_upper_bound(n: int) -> float:
    """log n − (n − 1)/n nats: an upper bound of KL(best-of-n ‖ base) (Stiennon et al. 2020; Beirami et al. 2024).

    It is the KL itself only where scores are continuous and no answer has probability above 0.
    """
    if n < 1:
        raise ValueError(f"n is {n}; best-of-n starts at 1")
    return math.log(n) - (n - 1) / n
