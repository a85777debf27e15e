"""Several processes that train one model: each has the whole model and a share of every batch.

A stage computes what it always does on its own micro-batches (`data.batches.rank_batches`), divides by what it counts
over the whole batch, and asks here for sums over the processes; the optimizer adds up the gradients. So one process
and many take the same steps, up to the rounding of the sums. Without `torchrun` there is one process, and everything
here returns what it was given.
"""

import datetime
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tutelage.engine.watchdog import WAITING, phase
from tutelage.errors import UserError
from tutelage.processes import alone, is_main, rank, world_size

T = TypeVar("T")
BUCKET = 2**24  # gradient elements that are added up in one message: 64 MiB
PATIENCE = datetime.timedelta(days=7)  # labels or a judge on one process may take long; stalls are the watchdog's


def start() -> bool:
    """Join the group of processes, once. Returns whether there is more than one."""
    if world_size() == 1:
        return False
    if not dist.is_initialized():
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise UserError(
                f"WORLD_SIZE is {world_size()}, but {missing[0]} is not set",
                where="environment",
                mend="start several processes with torchrun, or unset WORLD_SIZE",
            )
        # What is on the host (counts, metrics, objects) goes by gloo, what is on GPUs (gradients) by nccl.
        gpus = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
    return True


def close() -> None:
    """Leave the group, so that no process ends while another still talks to it."""
    if dist.is_initialized():
        dist.destroy_process_group()


def part(items: Sequence[T]) -> Sequence[T]:
    """This process' run of the items, in order: those of all processes end to end are the whole."""
    size, count = world_size(), len(items)
    return items[rank() * count // size : (rank() + 1) * count // size]


def gather(value: T) -> list[T]:
    """What each process has, in the order of ranks, on every process."""
    if not start():
        return [value]
    found: list[Any] = [None] * world_size()
    with phase(WAITING):
        dist.all_gather_object(found, value)
    return found


def joined(items: list[T]) -> list[T]:
    """The processes' lists end to end."""
    return [one for some in gather(items) for one in some]


def summed(*values: float) -> tuple[float, ...]:
    """Each number added up over the processes, in float64."""
    if not start():
        return values
    total = torch.tensor(values, dtype=torch.float64)
    with phase(WAITING):
        dist.all_reduce(total)
    return tuple(total.tolist())


def summed_row(row: dict[str, float]) -> dict[str, float]:
    """A row of metrics whose numbers are this process' parts of sums."""
    return dict(zip(row, summed(*row.values()), strict=True))


def agreed(flag: bool) -> bool:
    """Whether any process says so: all of them take the same turn."""
    return summed(float(flag))[0] > 0


def from_main(work: Callable[[], T]) -> T:
    """What `work` returns in the main process, on every process; its UserError is raised on every one, too."""
    if not start():
        return work()
    sent: list[Any] = [None, None]
    if is_main():
        try:
            with alone():
                sent[0] = work()
        except UserError as error:
            sent[1] = (error.what, error.where, error.mend)
    with phase(WAITING):
        dist.broadcast_object_list(sent, src=0)
    if sent[1] is not None:
        what, where, mend = sent[1]
        raise UserError(what, where=where, mend=mend)
    return sent[0]


@torch.no_grad()
def sum_gradients(gradients: list[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients added up over the processes in float32; one that no process has stays None.

    like: the parameters, for the shapes of what this process does not have.
    """
    if not start():
        return gradients
    present = torch.tensor([g is not None for g in gradients], dtype=torch.uint8)
    with phase(WAITING):
        dist.all_reduce(present, op=dist.ReduceOp.MAX)
    some = present.nonzero()[:, 0].tolist()
    whole = list(gradients)
    for bucket in _buckets(some, like):
        flat = torch.cat([_flat(gradients[i], like[i]) for i in bucket])
        with phase(WAITING):
            dist.all_reduce(flat)
        for i, piece in zip(bucket, flat.split([like[i].numel() for i in bucket]), strict=True):
            whole[i] = piece.view_as(like[i])
    return whole


def _flat(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros(parameter.numel(), device=parameter.device) if gradient is None else gradient.float().flatten()


def _buckets(indices: list[int], like: Sequence[Tensor]) -> list[list[int]]:
    buckets: list[list[int]] = []
    total = BUCKET + 1
    for i in indices:
        if total + like[i].numel() > BUCKET:
            buckets.append([])
            total = 0
        buckets[-1].append(i)
        total += like[i].numel()
    return buckets


def require_equal(about: str, values: dict[str, Any]) -> None:
    """A UserError where the processes differ in one of the values: they would train different things."""
    everyone = gather(values)
    for other, theirs in enumerate(everyone):
        for name in everyone[0].keys() | theirs.keys():
            first, found = everyone[0].get(name), theirs.get(name)
            if first != found:
                what = f"rank {other} has {name} = {found!r}, rank 0 has {first!r}"
                raise UserError(what, where=about, mend="start every process with the same command, files and versions")
