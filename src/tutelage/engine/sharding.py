"""Models that are spread over the processes: FSDP2, and activation checkpointing for either way of parallel training.

Each process holds a slice of every parameter and of the optimizer's state; a layer's parameters are put together for
its forward and backward pass and dropped again. Gradients come back added up and sliced, so the optimizer works on
slices (`local`). Where the processes cannot work in step (sampling, scoring, saving), `whole` puts the model together.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from tutelage.engine.attention import PackedLayout, attending, current_layout
from tutelage.engine.device import CPU, device_of
from tutelage.engine.distributed import start
from tutelage.engine.packing import pack
from tutelage.processes import is_main, keep_step, out_of_step, world_size

SHARDS = "shards"  # the folder of a checkpoint's slices, beside state.pt


def prepare(model: nn.Module, parallel: str, activation_checkpointing: bool) -> None:
    """Make a model ready to be trained: before its optimizer is made, once."""
    if activation_checkpointing:
        for layer in layers_of(model):
            layer.forward = partial(_recomputed, layer.forward)
    sharded = parallel == "fsdp" and start()
    if sharded:
        _shard(model)
    keep_step(sharded)


def layers_of(model: Any) -> nn.ModuleList:
    """The stack of equal layers: the list of modules that holds most of the parameters."""
    lists = [module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda found: sum(p.numel() for p in found.parameters()))


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    """A layer whose activations are computed again in the backward pass, with the attention's layout of now."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    layout = current_layout()
    again = lambda: (nullcontext(), attending(layout) if layout is not None else nullcontext())  # noqa: E731
    return checkpoint(forward, *args, use_reentrant=False, context_fn=again, **kwargs)


def _shard(model: Any) -> None:
    device = device_of(model)
    model.persistent = set(model.state_dict())
    mesh = init_device_mesh(device.type, (world_size(),))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):  # the stage divides by what all processes count: sums, no means
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    # Packed training calls the body, and reads the head's weights: both belong to the root's forward pass.
    model.body = lambda **inputs: model.base_model(**inputs)
    register_fsdp_forward_method(model, "body")
    with torch.no_grad(), attending(PackedLayout(pack([[0]]))):  # the first pass settles which is the root
        model.body(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def whole(*models: Any) -> Iterator[None]:
    """Every process has all parameters of these models meanwhile, and need not work in step."""
    parts = [m for model in models if model is not None for m in model.modules() if isinstance(m, FSDPModule)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        with out_of_step():
            yield
    finally:
        roots = {id(model) for model in models}
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(id(part) not in roots, recurse=False)


def local(tensor: Tensor) -> Tensor:
    """This process' slice, which shares the memory; a tensor that is not sharded is its own."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def global_norm(norm: float) -> float:
    """The Euclidean norm of slices, each process giving that of its own."""
    square = torch.tensor(norm**2, dtype=torch.float64)
    dist.all_reduce(square)
    return float(square.sqrt())


def like_parameter(slice_: Tensor, parameter: Tensor) -> Tensor:
    """A slice as the sharded tensor that it is a part of."""
    if not isinstance(parameter, DTensor):
        return slice_
    mesh, placements = parameter.device_mesh, parameter.placements
    return DTensor.from_local(
        slice_, mesh, placements, run_check=False, shape=parameter.shape, stride=parameter.stride()
    )


def plain_state(model: Any) -> dict[str, Tensor] | None:
    """Inside `whole`: what the folder holds of a model that is sharded or on a GPU, tied weights once, on the host.

    None for a whole model on the host, which `transformers` writes as it is.
    """
    module: Any = model
    if not isinstance(model, FSDPModule) and device_of(model) == CPU:
        return None
    persistent = module.persistent if isinstance(model, FSDPModule) else set(module.state_dict())
    tensors = [*module.named_parameters(), *((name, b) for name, b in module.named_buffers() if name in persistent)]
    return {name: tensor.detach().cpu() for name, tensor in tensors}


# A stage's state is nested dictionaries and lists. Its sharded tensors go into a folder of slices, by a name that
# stands in their place in state.pt.


def write_state(state: dict[str, Any], folder: Path) -> None:
    """Every process writes its slices; the main one the rest."""
    sharded: dict[str, Tensor] = {}
    rest = _taken_out(state, "", sharded)
    if sharded:
        dcp.save(sharded, checkpoint_id=str(folder / SHARDS))
    if is_main():
        torch.save(rest, folder / "state.pt")


def _taken_out(value: Any, name: str, sharded: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        return {key: _taken_out(one, f"{name}/{key}", sharded) for key, one in value.items()}
    if isinstance(value, list):
        return [_taken_out(one, f"{name}/{i}", sharded) for i, one in enumerate(value)]
    if isinstance(value, DTensor):
        sharded[name] = value
        return {SHARDS: name}
    # A run may go on where there is another GPU, or none.
    return value.cpu() if isinstance(value, Tensor) else value


def read_state(folder: Path) -> dict[str, Any]:
    """What `write_state` wrote; slices are named, with their folder, until `fill` knows where they belong."""
    return _placed(torch.load(folder / "state.pt", weights_only=True), str(folder / SHARDS))


def _placed(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {"folder": folder, **value} if SHARDS in value else {key: _placed(v, folder) for key, v in value.items()}
    return [_placed(one, folder) for one in value] if isinstance(value, list) else value


@torch.no_grad()
def fill(mine: Sequence[Tensor], saved: Sequence[Any], parameters: Sequence[Tensor]) -> None:
    """Copy saved tensors, whole ones or named slices, into ours, whole ones or slices of the parameters.

    So a run goes on with another number of processes, and with or without sharding.
    """
    targets = [like_parameter(one.detach(), p) for one, p in zip(mine, parameters, strict=True)]
    named = {one[SHARDS]: target for one, target in zip(saved, targets, strict=True) if isinstance(one, dict)}
    if named:
        together = any(isinstance(target, DTensor) for target in targets)
        folder = next(one["folder"] for one in saved if isinstance(one, dict))
        dcp.load(named, checkpoint_id=folder, no_dist=not together)
    for one, target in zip(saved, targets, strict=True):
        if isinstance(one, Tensor) and isinstance(target, DTensor):
            part = distribute_tensor(one.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
            local(target).copy_(local(part))
        elif isinstance(one, Tensor):
            target.copy_(one)
