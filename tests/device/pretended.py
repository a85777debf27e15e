"""A GPU that is not there: its tensors hold a host's numbers, and mixing them with the host's raises, as with CUDA.

`FakeTensorMode` with device "cuda" ends a torch built without CUDA at the first backward pass (autograd asks for CUDA's
device guard), and knows no numbers. So torch's slot for devices from outside stands in, and every operation on it
computes on the host what it is called with. As with CUDA, a host tensor may only take part as a number (no dimension),
as an index, or in a copy. `waits` counts what a GPU would be waited for: copies to the host, numbers asked for.

What stands in is of the whole process: import this in a process of its own (`test_pretended.py` does).
"""

from collections import Counter
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class Backend(_DummyBackendModule):
    """What torch asks of a device's module where it recomputes activations, and where it sets seeds."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device=None):
        return torch.get_rng_state()

    def set_rng_state(self, state, device=None):
        torch.set_rng_state(state)

    def manual_seed_all(self, seed):
        """Its random numbers are the host's, whose seed is set already."""

    manual_seed = manual_seed_all


_setup_privateuseone_for_python_backend("pretended", backend_module=Backend())
torch.inference_mode = torch.no_grad  # whose views of a tensor that is more than itself torch does not make
GPU = torch.device("pretended", 0)
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
INDEXED = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)
waits: Counter[str] = Counter()


class There(torch.Tensor):
    """A tensor on the GPU. inner: its numbers."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        shape = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, inner.size(), **shape, device=GPU)

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"There({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


class Pretending(TorchDispatchMode):
    """While it is on, tensors can be made on the GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})

    def __enter__(self):
        self.before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)  # a tied weight stays one
        return super().__enter__()

    def __exit__(self, *error):
        torch.__future__.set_swap_module_params_on_conversion(self.before)
        return super().__exit__(*error)


def is_there(x: Any) -> bool:
    return isinstance(x, There)


def computed(func, args, kwargs):
    """The operation on the numbers; its outcome is where its arguments are, or where it asks to be."""
    wanted = kwargs.get("device")
    wanted = torch.device(wanted) if wanted is not None else None
    tensors = tensors_of((*args, *kwargs.values()))
    any_there = any(map(is_there, tensors))
    if not any_there and (wanted is None or wanted.type != GPU.type):
        return func(*args, **kwargs)
    if func is aten._fused_sdp_choice.default:
        return 0  # by its definition
    check(func, args, tensors if any_there else [])
    to_host = func in COPIES and (wanted or args[0].device).type == "cpu"
    if to_host or func is aten._local_scalar_dense.default:
        waits[str(func)] += 1
    inside = {**kwargs, "device": torch.device("cpu")} if wanted is not None else kwargs
    out = func(*map(inner, args), **{name: inner(x) for name, x in inside.items()})
    if to_host:
        return args[0] if func is aten.copy_.default else out
    ways = aliasing(func)
    if any_there and ways == "writes":
        return args[0]
    out = type(out)(map(outer, out)) if isinstance(out, list | tuple) else outer(out)
    return return_and_correct_aliasing(func, args, kwargs, out) if any_there and ways else out


def tensors_of(values):
    """The tensors among an operation's arguments, which are alone or in a list."""
    found = []
    for x in values:
        if isinstance(x, torch.Tensor):
            found.append(x)
        elif isinstance(x, list | tuple):
            found += [one for one in x if isinstance(one, torch.Tensor)]
    return found


def inner(x):
    if isinstance(x, There):
        return x.inner
    return [inner(one) for one in x] if isinstance(x, list | tuple) else x


def outer(x):
    return There(x) if isinstance(x, torch.Tensor) else x


@cache
def aliasing(func) -> str:
    """What an operation's outcome is beside new: "" where it is new, "writes" where it is the first argument, written.

    This is what torch would look up anew for each of the many calls.
    """
    known = [one.alias_info for one in func._schema.arguments]
    if not any(known):
        return ""
    first_alone = known[0] is not None and known[0].is_write and len(func._schema.returns) == 1 and not any(known[1:])
    return "writes" if first_alone and torch.Tag.inplace_view not in func.tags else "shares"


@cache
def takes_many(func) -> bool:
    return "_foreach" in str(func) or "_fused" in str(func)


def check(func, args, tensors):
    """Refuse a host's tensor among the GPU's where CUDA would refuse it."""
    if func in COPIES:
        return
    if func in INDEXED and is_there(args[0]):
        tensors = [x for x in (args[0], *args[2:3]) if isinstance(x, torch.Tensor)]
    hosts = [x for x in tensors if not is_there(x) and (x.dim() or takes_many(func))]
    if hosts:
        shapes = [list(x.shape) for x in hosts]
        raise RuntimeError(f"Expected all tensors to be on the same device: {func} got {shapes} of the host")
