"""Sharded models take the steps of whole ones, and their state can be taken up by any number of processes."""

import pytest
import torch

from forked import run_on
from tutelage.engine import sharding
from tutelage.engine.optimizer import MasterAdam
from tutelage.engine.packing import pack
from tutelage.models import Policy, load_policy, save_model
from tutelage.processes import rank

ROWS = [[3, 5, 7, 9, 11], [2, 4, 6], [8, 10, 12, 14, 16, 18, 20], [1, 3]]
CHECKPOINTED = {"activation_checkpointing": True, "parallel": "data"}


def step(policy: Policy, optimizer: MasterAdam, rows: list[list[int]]) -> tuple[float, float]:
    """One step on the mean loss over the tokens of ROWS, of which `rows` are this process'."""
    loss = 0.0
    for row in rows:
        logprobs, _ = policy.logprobs(pack([row]), torch.arange(1, len(row)))
        part = -logprobs.sum() / (sum(map(len, ROWS)) - len(ROWS))
        part.backward()
        optimizer.collect()
        loss += float(part.detach())
    return loss, optimizer.step(1e-3, 1.0)


def train(model: str, folder, options: dict, saved=None, steps: int = 2):
    """Steps on this process' share of ROWS; returns (losses, norms, weights) and leaves a checkpoint in `folder`."""
    policy = load_policy(folder / "model" if saved else model, "float32")
    sharding.prepare(policy.model, **options)
    optimizer = MasterAdam(policy.model.parameters())
    if saved:
        optimizer.load(sharding.read_state(saved)["optimizer"])
    size = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    found = [step(policy, optimizer, ROWS[rank() :: size]) for _ in range(steps)]
    sharding.write_state({"optimizer": optimizer.state()}, folder)
    save_model(folder / "model", policy, {"role": "policy"}, verify=True)
    with sharding.whole(policy.model):
        weights = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
        shards = sum(isinstance(m, torch.distributed.fsdp.FSDPModule) for m in policy.model.modules())
    return found, weights, shards


def close(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert float((found[name] - tensor).abs().mean()) < 1e-6, name


def test_sharded_steps_are_those_of_one_process_and_go_on_on_fewer(nano, tmp_path):
    (tmp_path / "one").mkdir()
    wanted, weights, _ = train(str(nano), tmp_path / "one", {**CHECKPOINTED, "activation_checkpointing": False})
    more, last, _ = train(str(nano), tmp_path / "one", CHECKPOINTED, tmp_path / "one")

    state = tmp_path / "many"
    state.mkdir()
    sharded = {"parallel": "fsdp", "activation_checkpointing": True}
    found = run_on(4, tmp_path, train, str(nano), state, sharded)
    for _, whole, shards in found:
        close(whole, weights)
        assert shards == 3  # two layers and the root
    losses, norms = (torch.tensor([[row[i] for row in one[0]] for one in found]) for i in (0, 1))
    assert losses.sum(0).tolist() == pytest.approx([loss for loss, _ in wanted], rel=1e-5)
    for one in norms.tolist():
        assert one == pytest.approx([norm for _, norm in wanted], rel=1e-5)
    assert (state / "shards" / ".metadata").exists()

    fewer = run_on(2, tmp_path, train, str(nano), state, sharded, state)
    close(fewer[0][1], last)
    assert sum(one[0][0][0] for one in fewer) == pytest.approx(more[0][0], rel=1e-5)


def test_slices_are_taken_up_by_one_process_and_the_other_way_round(nano, tmp_path):
    sharded = {"parallel": "fsdp", "activation_checkpointing": False}
    plain = {"parallel": "data", "activation_checkpointing": False}
    run_on(2, tmp_path, train, str(nano), tmp_path, sharded)
    third, _, _ = train(str(nano), tmp_path, plain, tmp_path, steps=1)
    fourth = run_on(2, tmp_path, train, str(nano), tmp_path, sharded, tmp_path, 1)
    (tmp_path / "one").mkdir()
    wanted, _, _ = train(str(nano), tmp_path / "one", plain, steps=4)
    assert third[0] == pytest.approx(wanted[2], rel=1e-5)
    assert sum(one[0][0][0] for one in fourth) == pytest.approx(wanted[3][0], rel=1e-5)
