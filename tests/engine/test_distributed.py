"""Sums, parts and messages between processes, and how a batch is divided among them."""

import random

import pytest
import torch

from forked import run_on
from tutelage.data.batches import shares, token_budget_batches
from tutelage.engine import distributed
from tutelage.errors import UserError


def talk():
    rank = distributed.rank()
    like = [torch.zeros(2), torch.zeros(2, 3), torch.zeros(1)]
    mine = [torch.full((2,), 1.0 + rank, dtype=torch.bfloat16), torch.ones(2, 3) if rank == 1 else None, None]
    sums = distributed.sum_gradients(mine, like)

    def refuse():
        raise UserError("is wrong", where="here", mend="mend it")

    try:
        distributed.from_main(refuse)
        refused = None
    except UserError as error:
        refused = error.message
    return {
        "sums": [None if s is None else s.tolist() for s in sums],
        "part": distributed.part(range(7)),
        "joined": distributed.joined([rank, rank]),
        "summed": distributed.summed_row({"a": rank + 0.5, "b": 1.0}),
        "agreed": (distributed.agreed(rank == 2), distributed.agreed(False)),
        "main": distributed.from_main(lambda: (rank, distributed.world_size())),
        "refused": refused,
    }


def test_three_processes_agree(tmp_path):
    found = run_on(3, tmp_path, talk)
    assert [i for one in found for i in one["part"]] == list(range(7))
    for one in found:
        assert one["sums"] == [[6.0, 6.0], [[1.0] * 3] * 2, None]  # 1 + 2 + 3; one process' ones; nobody's
        assert one["joined"] == [0, 0, 1, 1, 2, 2]
        assert one["summed"] == {"a": 4.5, "b": 3.0}
        assert one["agreed"] == (True, False)
        assert one["main"] == (0, 1)  # the main process works alone meanwhile
        assert one["refused"] == "here: is wrong\n  mend: mend it"


def test_one_process_needs_no_group():
    gradients = [torch.ones(2), None]
    assert distributed.sum_gradients(gradients, [torch.zeros(2)] * 2) is gradients
    assert distributed.summed(1.5, 2.0) == (1.5, 2.0) and distributed.gather("x") == ["x"]
    assert not torch.distributed.is_initialized()


def test_a_world_without_an_address_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match="torchrun"):
        distributed.summed(1.0)


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_shares_hold_every_example_once_and_are_balanced(processes):
    for seed in range(30):
        draw = random.Random(seed)
        lengths = [draw.randint(1, 200) for _ in range(draw.randint(1, 40))]
        found = shares(lengths, 256, processes)
        assert sorted(i for one in found for micro in one for i in micro) == list(range(len(lengths)))
        totals = [sum(lengths[i] for micro in one for i in micro) for one in found]
        assert max(totals) - min(totals) <= max(lengths)  # what the longest example forces
        if len(lengths) >= processes:
            assert len({len(one) for one in found}) == 1 and all(micro for one in found for micro in one)


def test_one_process_has_the_whole():
    lengths = [5, 9, 1, 7]
    assert shares(lengths, 10, 1) == [token_budget_batches(lengths, 10)]
    assert shares([9, 5, 4, 1], 100, 2) == [[[0, 3]], [[1, 2]]]
