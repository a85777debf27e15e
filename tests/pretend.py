"""A GPU that is not there: its tensors hold their numbers on the CPU, say that they are elsewhere, and refuse to meet the CPU's.

`with pretended_gpu():` lets the whole program run as on a GPU. An operation that mixes a tensor of the device with one
of the CPU (of more than zero dimensions, as on a real one) raises, so that nothing can be left behind. torch knows such a
device for as long as the process lives: programs of their own run here, started by tests.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

torch.inference_mode = torch.no_grad  # which tensors like these cannot enter; before anything is decorated with it
from tutelage.engine import device  # noqa: E402

NAME = "pretended"
ACROSS = ("aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put_", "aten::index_put")


class OnGPU(torch.Tensor):
    """A tensor that says that it is on the GPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "OnGPU":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device.chosen(),
        )
        made.held = held
        return made

    def tolist(self) -> Any:  # torch refuses it for subclasses
        return self.held.tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


class Making(TorchDispatchMode):
    """Tensors that are made on the device by name; for the thread that enters."""

    def __enter__(self) -> "Making":
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes its numbers on the CPU, then moves them by a call
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


def run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat, spec = tree_flatten((args, kwargs))
    tensors = [one for one in flat if isinstance(one, torch.Tensor)]
    ours = [one for one in tensors if isinstance(one, OnGPU)]
    name = function._schema.name
    strangers = [one for one in tensors if not isinstance(one, OnGPU) and one.dim() > 0]
    if ours and strangers and name not in ACROSS:
        raise RuntimeError(f"{name}: a tensor of the GPU and one of the CPU, {tuple(strangers[0].shape)}")
    if name == "aten::_local_scalar_dense":
        return function(ours[0].held) if ours else function(*args, **kwargs)
    wanted = kwargs.get("device")
    to_cpu = wanted is not None and torch.device(wanted).type == "cpu"
    on_gpu = (bool(ours) and not to_cpu) or (wanted is not None and torch.device(wanted).type == NAME)
    if name == "aten::copy_":
        on_gpu = isinstance(args[0], OnGPU)
    plain = [one.held if isinstance(one, OnGPU) else one for one in flat]
    inner_args, inner_kwargs = tree_unflatten(plain, spec)
    if wanted is not None:
        inner_kwargs = {**inner_kwargs, "device": torch.device("cpu")}
    found = function(*inner_args, **inner_kwargs)
    known = {id(one.held): one for one in ours}  # what is changed in place stays the tensor that it was

    def placed(one: Any) -> Any:
        if id(one) in known:
            return known[id(one)]
        return OnGPU(one) if on_gpu and isinstance(one, torch.Tensor) else one

    return tree_map(placed, found)


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Everything that asks for `auto` or `cuda` computes on the pretended GPU meanwhile."""
    _setup_privateuseone_for_python_backend(NAME)
    gpu = torch.device(NAME, 0)
    device.resolve = lambda name: device.CPU if name == "cpu" else gpu
    with Making():
        yield
