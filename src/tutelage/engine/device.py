"""The device that models compute on, chosen once for a process.

Inside `computing` torch makes every tensor there (its default device), so that what packs a batch, loads a model or
adds up rewards does not say where. A process of `torchrun` takes the device of its local rank. Where the CPU is
chosen nothing is entered and nothing costs anything.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from tutelage.errors import UserError

CPU = torch.device("cpu")
P = ParamSpec("P")
R = TypeVar("R")

_chosen: torch.device | None = None


def chosen() -> torch.device:
    """Where this process computes: `auto` where nobody chose."""
    return use("auto") if _chosen is None else _chosen


def use(name: str) -> torch.device:
    """Let this process compute there from now on."""
    global _chosen
    _chosen = resolve(name)
    if _chosen.type == "cuda":
        torch.cuda.set_device(_chosen)
    return _chosen


def resolve(name: str) -> torch.device:
    """`auto` is the local rank's GPU, or the CPU where there is none; a GPU that is not there is a UserError."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return CPU
    index = torch.device(name).index if name != "auto" else None
    if index is None:
        index = int(os.environ.get("LOCAL_RANK", 0))
    if index >= count:
        here = "there is no GPU that this torch can use" if not count else f"there are {count} GPUs, numbered from 0"
        raise UserError(f"{name!r}: {here}", where="option --device (device)", mend="give cpu, or leave it at auto")
    return torch.device("cuda", index)


@contextmanager
def computing(name: str | None = None) -> Iterator[torch.device]:
    """Tensors made inside are on the device of that name, from now on the process' own; without a name on the chosen.

    Each thread enters for itself: torch keeps its default device by thread.
    """
    device = chosen() if name is None else use(name)
    if device == CPU:
        yield device
        return
    with device:
        yield device


@contextmanager
def from_disk() -> Iterator[None]:
    """What is read inside comes to the CPU first: `transformers` would else spread it by rules of its own."""
    if chosen() == CPU:
        yield
        return
    with CPU:
        yield


def on_device(work: Callable[P, R]) -> Callable[P, R]:
    """A function that any thread may call: it computes where the process does."""

    @wraps(work)
    def placed(*args: P.args, **kwargs: P.kwargs) -> R:
        with computing():
            return work(*args, **kwargs)

    return placed


def peak_gpu_bytes() -> int:
    """Most bytes that tensors of this process held on its GPU since the last `forget_peak`; 0 on the CPU."""
    return torch.cuda.max_memory_allocated(chosen()) if chosen().type == "cuda" else 0


def forget_peak() -> None:
    """Count the GPU's peak anew from here."""
    if chosen().type == "cuda":
        torch.cuda.reset_peak_memory_stats(chosen())
