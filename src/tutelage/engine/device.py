"""Where models compute: on the processor, or on one GPU for each process.

A model, what it reads (token ids, positions, indices) and a sampler's whole state live on its device. What it says of
tokens or sequences (log-probabilities, values, scores) comes back to the host, in one copy a pass: losses, advantages
and metrics are formulas over a few numbers, and cost no further wait for the device; gradients go back the same way.
Sizes and places (lengths, offsets, who shares what) are known on the host beforehand and never asked of the device.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.processes import local_rank, world_size

OPTION = "option --device (device)"
CPU = torch.device("cpu")


def resolve_device(name: str) -> torch.device:
    """`auto` and `cuda`: the GPU of this process' number on its machine; `auto` without a GPU: the processor."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        mend = "leave it at auto, or install a torch with CUDA and a driver (nvidia-smi shows the GPU then)"
        raise UserError(f"{name}: torch finds no GPU here", where=OPTION, mend=mend)
    count, index = torch.cuda.device_count(), local_rank()
    if ":" in name:
        index = int(name.partition(":")[2])
        if world_size() > 1:
            what = f"{name}: each of {world_size()} processes needs a GPU of its own"
            raise UserError(what, where=OPTION, mend="write cuda: each process takes the GPU of its number")
    if index >= count:
        mend = f"start at most {count} processes on each machine, or choose among cuda:0 to cuda:{count - 1}, or cpu"
        raise UserError(f"there is no GPU {index}: torch finds {count}", where=OPTION, mend=mend)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def device_of(model: Any) -> torch.device:
    """Where a model's weights are."""
    return next(model.parameters()).device


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A host's tensor on the device, in a copy that waits for nothing: the host may change or drop its own at once."""
    if tensor.device == device:
        return tensor
    if device.type == "cuda" and tensor.device == CPU:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=tensor.device == CPU)


@cache
def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a GPU has products of bfloat16 of its own (Ampere and later)."""
    return torch.cuda.get_device_capability(device) >= (8, 0)
