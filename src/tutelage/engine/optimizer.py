"""Adam with float32 master weights for models that compute in bfloat16."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class MasterAdam:
    """Adam (beta1 .9, beta2 .95, as the paper) on float32 copies of the parameters.

    Gradients of all micro-batches add up in float32; the updated copy is rounded into the model.
    For a float32 model the copies are the parameters themselves.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, weight_decay: float = 0.0, eps: float = 1e-8):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.masters = [p if p.dtype == torch.float32 else nn.Parameter(p.detach().float()) for p in self.parameters]
        decayed = [m for m in self.masters if m.dim() > 1]
        plain = [m for m in self.masters if m.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=0.0, betas=(0.9, 0.95), eps=eps, fused=True
        )

    def collect(self) -> None:
        """Move what one micro-batch's backward pass left into the float32 gradients."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is parameter or parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad += parameter.grad
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        return [m.grad for m in self.masters if m.grad is not None]

    def step(self, learning_rate: float, max_grad_norm: float | None) -> float:
        """Clip, update, round into the model. Returns the gradient's norm before clipping."""
        norm = nn.utils.get_total_norm(self.gradients())
        if max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self.masters, max_grad_norm, norm)
        for group in self.adam.param_groups:
            group["lr"] = learning_rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.write_back()
        return float(norm)

    @torch.no_grad()
    def write_back(self) -> None:
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is not parameter:
                parameter.copy_(master)

    def state(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "masters": [m.detach().clone() for m in self.masters]}

    def load(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for master, saved in zip(self.masters, state["masters"], strict=True):
                master.copy_(saved)
        self.adam.load_state_dict(state["adam"])
        self.write_back()
