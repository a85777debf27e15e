import math

import pytest
import torch

from tutelage.algorithms.uncertainty import preference_variance


def test_by_hand():
    # two models, one pair: chances σ(log 3) = 3/4 and 1/4, so the variance is 1/16
    scores = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(3.0)]])
    assert preference_variance(scores) == pytest.approx(1 / 16)
    # a third completion that both put last by a wide margin adds two pairs of no variance
    assert preference_variance(torch.cat([scores, torch.full((2, 1), -50.0)], dim=1)) == pytest.approx(1 / 48)


def test_what_it_does_not_depend_on():
    scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    value = preference_variance(scores)
    assert preference_variance(scores + torch.randn(4, 1)) == pytest.approx(float(value), abs=1e-6)  # a model's zero
    assert preference_variance(scores[:, torch.randperm(5)]) == pytest.approx(float(value), abs=1e-6)
    assert preference_variance(scores[:1]) == 0 and preference_variance(scores[:1].repeat(3, 1)) < 1e-12
    assert 0 < value <= 0.25
    with pytest.raises(ValueError, match="two completions"):
        preference_variance(scores[:, :1])
