"""float32 masters: small steps are not lost in bfloat16, and a reloaded optimizer goes on with the same numbers."""

import torch

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
