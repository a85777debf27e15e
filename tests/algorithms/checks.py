"""A formula's check must hold for the formula and fail for its broken variants."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def close(actual: Any, expected: Any, digits: int = 6) -> None:
    """Equal to the printed digits: hand-worked values have six decimals."""
    actual = torch.as_tensor(actual, dtype=torch.float64)
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.detach(), expected, rtol=0, atol=0.51 * 10**-digits)


def holds_and_rejects(check: Callable[[Any], None], formula: Any, mutants: dict[str, Any]) -> None:
    """`check` passes on the formula and raises AssertionError, and nothing else, on every mutant."""
    check(formula)
    for name, mutant in mutants.items():
        try:
            check(mutant)
        except AssertionError:
            continue
        pytest.fail(f"the check accepts the broken variant: {name}")


def numerical_gradient(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of a scalar function, one entry at a time."""
    gradient = torch.zeros_like(at)
    for i in range(at.numel()):
        move = torch.zeros_like(at).reshape(-1)
        move[i] = step
        move = move.reshape(at.shape)
        gradient.view(-1)[i] = (function(at + move) - function(at - move)) / (2 * step)
    return gradient


def random_lengths(generator: torch.Generator, count: int, longest: int = 7) -> Tensor:
    return torch.randint(1, longest + 1, (count,), generator=generator)


def offsets_of(lengths: Iterable[int] | Tensor) -> Tensor:
    lengths = torch.as_tensor(list(lengths), dtype=torch.int64)
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
