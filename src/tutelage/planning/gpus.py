"""What GPUs can do, by their makers' data sheets, and what share of it programs reach, by published measurements."""

from dataclasses import dataclass
from typing import Any

from tutelage.errors import UserError, did_you_mean

# Of the peak that training reaches: LLaMA 65B .48 on A100, Llama 2 7B .39 and 70B .43 on A100, Llama 3.1 405B .38 to .43
# on H100 (their papers' tokens or GPU hours; docs/scale.md works them out).
TRAINING = 0.4
# Of the peak of memory that decoding reaches: gpt-fast, Llama-2-7B in bfloat16 on an A100-80GB, 1397 of 2039 GB/s.
DECODING = 0.68


@dataclass(frozen=True)
class GPU:
    """Peaks of one GPU: bytes of memory, their rate a second, dense operations a second in either type."""

    memory: float
    bandwidth: float
    bfloat16: float
    float32: float

    @property
    def rates(self) -> dict[str, Any]:
        """What the formulas of a plan count with."""
        peaks = {"bfloat16": self.bfloat16, "float32": self.float32}
        reached = DECODING * self.bandwidth
        return {"gemm_flops": peaks, "memory_bytes_per_second": reached, "efficiency": TRAINING}


# NVIDIA's data sheets: tensor cores without sparsity for bfloat16, the plain units for float32.
GPUS = {
    "h100": GPU(80e9, 3.35e12, 989e12, 67e12),  # SXM
    "h200": GPU(141e9, 4.8e12, 989e12, 67e12),  # SXM
    "a100": GPU(80e9, 2.039e12, 312e12, 19.5e12),  # SXM, 80 GB
    "a100-40gb": GPU(40e9, 1.555e12, 312e12, 19.5e12),
    "l40s": GPU(48e9, 0.864e12, 362e12, 91.6e12),
    "a10": GPU(24e9, 0.6e12, 125e12, 31.2e12),
    "l4": GPU(24e9, 0.3e12, 121e12, 30.3e12),
}


def gpu_of(name: str) -> GPU:
    if name not in GPUS:
        what = f"{name!r} is not known{did_you_mean(name, list(GPUS))}"
        raise UserError(what, where="option --gpu", mend=f"use one of: {', '.join(GPUS)}")
    return GPUS[name]


@dataclass(frozen=True)
class Fleet:
    """count GPUs of a kind. network: bytes a second that each sends in a ring through all of them, as nccl-tests' bus
    bandwidth says; the slowest link counts. price: of a GPU for an hour."""

    gpu: GPU
    count: int
    network: float
    price: float | None = None
