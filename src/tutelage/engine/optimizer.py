"""Adam with float32 master weights for models that compute in bfloat16."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tutelage.engine import sharding
from tutelage.engine.distributed import sum_gradients
from tutelage.engine.native import Kernels, kernels
from tutelage.engine.sharding import local

BETAS = (0.9, 0.95)  # as the paper
ELEMENTS_AT_ONCE = 2**23  # parameters in one fused update: their float32 gradients take 32 MiB


class MasterAdam:
    """Adam with decoupled weight decay on float32 copies of the parameters.

    The gradients of several micro-batches add up in float32; those of a single one stay as they came, so that no
    second copy of them is held. The updated copy is rounded into the model. For a float32 model the copies are the
    parameters themselves. Of a sharded model everything here is this process' slice.

    state: type in which the two moments are kept; the arithmetic is float32. bfloat16 holds 8 bits: enough where a
    step moves a moment by a tenth and a twentieth, as these betas do (at beta2 0.999 it would stand still).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        state: str = "float32",
    ):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.sharded = any(isinstance(p, DTensor) for p in self.parameters)
        self.slices = [local(p.detach()) for p in self.parameters] if self.sharded else self.parameters
        self.masters = [p if p.dtype == torch.float32 else nn.Parameter(p.detach().float()) for p in self.slices]
        kept = getattr(torch, state)
        self.means = [torch.zeros_like(m, dtype=kept, requires_grad=False) for m in self.masters]
        self.squares = [torch.zeros_like(m, dtype=kept, requires_grad=False) for m in self.masters]
        self.steps = 0
        self.weight_decay, self.eps = weight_decay, eps
        self.sums: list[Tensor | None] = [None] * len(self.parameters)
        small = all(p.dtype == torch.bfloat16 and p.device.type == "cpu" and p.is_contiguous() for p in self.slices)
        self.in_one_pass = small and kept == torch.float32 and kernels(torch.bfloat16) is not None

    @torch.no_grad()
    def collect(self) -> None:
        """Take what one micro-batch's backward pass left, and add it to what is there in float32."""
        for i, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            held, gradient = self.sums[i], local(parameter.grad)
            if held is None:
                self.sums[i] = gradient
            else:
                self.sums[i] = (held if held.dtype == torch.float32 else held.float()).add_(gradient)
            parameter.grad = None

    def drop(self) -> None:
        """Forget what an unfinished backward pass left."""
        for parameter in self.parameters:
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """What all processes collected for the next step, one tensor for each parameter that has any."""
        return [g for g in self._summed() if g is not None]

    def _summed(self) -> list[Tensor | None]:
        return self.sums if self.sharded else sum_gradients(self.sums, self.parameters)

    def norm(self, gradients: list[Tensor]) -> float:
        """Euclidean norm of gradients of this optimizer, whole or slices."""
        norm = gradient_norm(gradients, native=self.in_one_pass)
        return sharding.global_norm(norm) if self.sharded else norm

    def discard(self) -> None:
        """Forget what has been collected."""
        self.sums = [None] * len(self.parameters)

    @torch.no_grad()
    def step(self, learning_rate: float, max_grad_norm: float | None) -> float:
        """Clip, update, round into the model. Returns the gradient's norm before clipping.

        A gradient that is not finite raises FloatingPointError and changes nothing.
        """
        self.sums = self._summed()
        norm = self.norm([g for g in self.sums if g is not None])
        if not math.isfinite(norm):
            what = f"the gradient's norm is {norm} in update {self.steps + 1}"
            raise FloatingPointError(f"{what}; lower the learning rate, and check the data")
        clip = 1.0 if max_grad_norm is None else min(1.0, max_grad_norm / (norm + 1e-6))
        self.steps += 1
        if self.in_one_pass:
            self._update_in_one_pass(learning_rate, clip)
        else:
            for part in self._parts():
                self._update(part, learning_rate, clip)
        self.discard()
        return norm

    def _parts(self) -> Iterator[list[int]]:
        """Indices of the parameters that have a gradient, a bounded number of elements and one weight decay at a time."""
        for decayed in (True, False):
            part: list[int] = []
            for i, gradient in enumerate(self.sums):
                if gradient is None or (self.masters[i].dim() > 1) != decayed:
                    continue
                if part and sum(self.masters[j].numel() for j in part) + gradient.numel() > ELEMENTS_AT_ONCE:
                    yield part
                    part = []
                part.append(i)
            if part:
                yield part

    def _update(self, part: list[int], learning_rate: float, clip: float) -> None:
        masters: list[Tensor] = [self.masters[i] for i in part]
        gradients = [(g if g.dtype == torch.float32 else g.float()) for i in part if (g := self.sums[i]) is not None]
        steps = [torch.full((), float(self.steps), device=masters[0].device)] * len(part)  # the kernel only reads it
        moments = [(m, m.float()) for held in (self.means, self.squares) for m in (held[i] for i in part)]
        wide = [w for _, w in moments]  # the moments themselves where they are float32
        torch._fused_adamw_(
            masters,
            gradients,
            wide[: len(part)],
            wide[len(part) :],
            [],
            steps,
            lr=learning_rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self.weight_decay if masters[0].dim() > 1 else 0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
            grad_scale=torch.full_like(steps[0], 1.0 / clip) if clip < 1.0 else None,  # the kernel divides by it
        )
        for held, new in moments:
            if held is not new:
                held.copy_(new)
        for i in part:
            if self.masters[i] is not self.slices[i]:
                self.slices[i].copy_(self.masters[i])

    def _update_in_one_pass(self, learning_rate: float, clip: float) -> None:
        """The same by our own function, which reads and writes everything once."""
        rate, root = learning_rate / (1 - BETAS[0] ** self.steps), math.sqrt(1 - BETAS[1] ** self.steps)
        for i, gradient in enumerate(self.sums):
            if gradient is not None:
                master, weight = self.masters[i], self.slices[i]
                kept = 1 - learning_rate * self.weight_decay if master.dim() > 1 else 1.0
                tensors = (master, self.means[i], self.squares[i], gradient.contiguous(), weight)
                _native(gradient).adam(tensors, (clip, *BETAS, kept, rate, root, self.eps))

    @torch.no_grad()
    def write_back(self) -> None:
        for parameter, master in zip(self.slices, self.masters, strict=True):
            if master is not parameter:
                parameter.copy_(master)

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs; the tensors are the live ones, to be written before the next step."""
        named = {"masters": [m.detach() for m in self.masters], "means": self.means, "squares": self.squares}
        return {"steps": self.steps, **{name: self.to_save(tensors) for name, tensors in named.items()}}

    def to_save(self, tensors: list[Tensor]) -> list[Tensor]:
        """Tensors like the parameters, one for each, as a checkpoint takes them."""
        return [sharding.like_parameter(one, p) for one, p in zip(tensors, self.parameters, strict=True)]

    def fill(self, tensors: list[Tensor], saved: list[Any]) -> None:
        """The way back: copy what a checkpoint holds into tensors like the parameters."""
        sharding.fill(tensors, saved, self.parameters)

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name in ("masters", "means", "squares"):
            self.fill(getattr(self, name), state[name])
        self.write_back()


def _native(gradient: Tensor) -> Kernels:
    found = kernels(gradient.dtype)
    assert found is not None  # `in_one_pass` asked for them
    return found


def gradient_norm(gradients: list[Tensor], *, native: bool = False) -> float:
    """Euclidean norm of all gradients together, accumulated in float32; by our own function, or by torch's."""
    if not gradients:
        return 0.0
    if native:
        return math.sqrt(float(torch.cat([_native(g).square_sums(g.contiguous()) for g in gradients]).sum()))
    return float(torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float32)).norm())
