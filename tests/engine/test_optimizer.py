"""float32 masters: small steps are not lost in bfloat16, and a reloaded optimizer goes on with the same numbers."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from tutelage.engine.native import kernels
from tutelage.engine.optimizer import MasterAdam


def steps(parameter, optimizer, count):
    for _ in range(count):
        parameter.grad = torch.ones_like(parameter)
        optimizer.collect()
        optimizer.step(1e-4, None)


def test_small_steps_add_up_in_bfloat16():
    parameter = torch.nn.Parameter(torch.full((4, 4), 1.0, dtype=torch.bfloat16))
    optimizer = MasterAdam([parameter])
    steps(parameter, optimizer, 100)  # each step is far below bfloat16's 1/128 at 1.0
    torch.testing.assert_close(optimizer.masters[0].detach(), torch.full((4, 4), 0.99), atol=1e-4, rtol=0)
    assert float(parameter.detach()[0, 0]) < 1.0


def test_state_round_trip_is_exact():
    a, b = (torch.nn.Parameter(torch.full((4, 4), 1.0, dtype=torch.bfloat16)) for _ in range(2))
    first, second = MasterAdam([a]), MasterAdam([b])
    steps(a, first, 3)
    second.load(first.state())
    steps(a, first, 2)
    steps(b, second, 2)
    assert torch.equal(first.masters[0], second.masters[0]) and torch.equal(a, b)


def fitted(state, seed):
    """Loss of a small network on labels of a fixed one after 150 noisy steps, and its optimizer."""
    torch.manual_seed(seed)
    teacher = torch.nn.Linear(16, 8)
    net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8)).bfloat16()
    optimizer = MasterAdam(net.parameters(), state=state)
    x = torch.randn(512, 16)
    y = teacher(x).argmax(-1)
    for _ in range(150):
        some = torch.randint(len(x), (32,))
        cross_entropy(net(x[some].bfloat16()).float(), y[some]).backward()
        optimizer.collect()
        optimizer.step(3e-3, 1.0)
    return float(cross_entropy(net(x.bfloat16()).float(), y).detach()), optimizer


def test_moments_in_bfloat16_learn_as_well_in_half_the_memory():
    losses = {state: [fitted(state, seed)[0] for seed in range(3)] for state in ("float32", "bfloat16")}
    wide, narrow = (sum(x) / 3 for x in losses.values())
    assert wide < 1 and narrow == pytest.approx(wide, rel=0.03)
    a, b = fitted("float32", 0)[1].state(), fitted("bfloat16", 0)[1].state()
    size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)  # noqa: E731
    assert size([*b["means"], *b["squares"]]) * 2 == size([*a["means"], *a["squares"]])
    assert all(m.dtype == torch.float32 for m in b["masters"])


def test_moments_in_bfloat16_follow_a_gradient_that_changes():
    """After 40 steps at 1 and 60 at 0.1 the second moment is that of the small gradients, and does not stand still."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = MasterAdam([parameter], state="bfloat16")
    for size in [1.0] * 40 + [0.1] * 60:
        parameter.grad = torch.full((3,), size)
        optimizer.collect()
        optimizer.step(1e-3, None)
    expected = (1 - 0.95**40) * 0.95**60 + 0.01 * (1 - 0.95**60)
    assert float(optimizer.squares[0][0]) == pytest.approx(expected, rel=0.05)
    assert float(optimizer.means[0][0]) == pytest.approx(0.1, rel=0.05)


def parameters(seed):
    torch.manual_seed(seed)
    shapes = [(300, 200), (17,), (1,), (3, 5)]
    return [torch.nn.Parameter(torch.randn(shape).to(torch.bfloat16)) for shape in shapes]


@pytest.mark.skipif(kernels(torch.bfloat16) is None, reason="needs a C compiler")
@pytest.mark.parametrize("micro_batches", [1, 2])  # gradients in bfloat16, and their sums in float32
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_one_pass_over_memory_makes_the_numbers_of_torch(micro_batches, max_grad_norm):
    own, torchs = parameters(0), parameters(0)
    one_pass, fused = MasterAdam(own, weight_decay=0.1), MasterAdam(torchs, weight_decay=0.1)
    assert one_pass.in_one_pass
    fused.in_one_pass = False
    for _ in range(4):
        for _ in range(micro_batches):
            for a, b in zip(own, torchs, strict=True):
                a.grad = torch.randn_like(a)
                b.grad = a.grad.clone()
            one_pass.collect()
            fused.collect()
        norms = [one.step(1e-2, max_grad_norm) for one in (one_pass, fused)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for name in ("masters", "means", "squares"):
        for a, b in zip(getattr(one_pass, name), getattr(fused, name), strict=True):
            torch.testing.assert_close(a.detach(), b.detach(), atol=1e-6, rtol=1e-5)
    for parameter, master in zip(own, one_pass.masters, strict=True):
        assert torch.equal(parameter.detach(), master.detach().to(torch.bfloat16))


@pytest.mark.skipif(kernels(torch.bfloat16) is None, reason="needs a C compiler")
def test_a_gradient_that_is_no_number_changes_nothing():
    (parameter,) = parameters(0)[:1]
    optimizer, before = MasterAdam([parameter]), parameter.detach().clone()
    parameter.grad = torch.ones_like(parameter)
    parameter.grad[7, 7] = float("nan")
    optimizer.collect()
    with pytest.raises(FloatingPointError, match="update 1"):
        optimizer.step(1e-2, 1.0)
    assert torch.equal(parameter.detach(), before) and not optimizer.means[0].any()
