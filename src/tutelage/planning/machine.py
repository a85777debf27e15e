"""What this machine has and how fast it multiplies: `tutelage doctor`, and the rates that `tutelage plan` counts with."""

import os
import platform
import resource
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tutelage.engine.device import CPU, multiplies_bfloat16, resolve_device
from tutelage.engine.native import kernels

SIZE = 1024  # of the square matrices that are multiplied
SIZE_ON_GPU = 8192
PACKAGES = ("tutelage", "torch", "transformers", "tokenizers", "safetensors", "numpy", "peft", "vllm")
NATIVE = {"avx512_bf16", "amx_bf16"}  # flags of processors that multiply bfloat16
GIB = 2**30


def facts(seconds: float = 2.0) -> dict[str, Any]:
    """Everything that doctor says; the rates take about `seconds`."""
    native = has_native_bfloat16()
    found: dict[str, Any] = {
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cores_allowed": allowed_cores(),
        "threads": torch.get_num_threads(),
        "native_bfloat16": native,
        "native_decoding": kernels(torch.float32) is not None,
        "memory_bytes": memory_bytes(),
        "memory_limit_bytes": memory_limit(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        **rates(CPU, seconds),
        "gpu": gpu(seconds),
        "versions": {name: version(name) for name in PACKAGES},
    }
    found["warnings"] = warnings_of(found)
    return found


def rates(device: torch.device, seconds: float) -> dict[str, Any]:
    """What a plan counts with."""
    return {"gemm_flops": gemm_rates(seconds, device), "memory_bytes_per_second": memory_rate(device)}


def gpu(seconds: float) -> dict[str, Any] | None:
    """The GPU that `--device auto` takes, with its rates; None where that is the processor."""
    device = resolve_device("auto")
    if device == CPU:
        return None
    native = multiplies_bfloat16(device)
    return {
        "device": str(device),
        "native_bfloat16": native,
        "memory_bytes": limit_of(device),
        **rates(device, seconds),
    }


def limit_of(device: torch.device) -> int:
    """Bytes that models may take there."""
    return memory_limit() if device == CPU else torch.cuda.get_device_properties(device).total_memory


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def has_native_bfloat16() -> bool:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return bool(NATIVE & set(flags))


def memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_limit() -> int:
    """The least of the machine's memory, this process's address space and its control group's limit."""
    limits = [memory_bytes(), resource.getrlimit(resource.RLIMIT_AS)[0]]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(name).read_text().strip() if Path(name).exists() else "max"
        limits.append(int(text) if text.isdigit() else -1)
    return min(limit for limit in limits if limit > 0)


def allowed_cores() -> float | None:
    """Cores that the control group's quota pays for; None without one."""
    path = Path("/sys/fs/cgroup/cpu.max")
    if not path.exists():
        return None
    quota, period = path.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def gemm_rates(seconds: float, device: torch.device = CPU) -> dict[str, float]:
    """FLOP/s of a matrix product in each type: the best of what fits into its share of the time."""
    return {name: gemm_rate(getattr(torch, name), seconds / 2, device) for name in ("float32", "bfloat16")}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gemm_rate(dtype: torch.dtype, seconds: float, device: torch.device = CPU) -> float:
    """2 n^3 operations of a product of [n, n] matrices over its shortest time."""
    size = SIZE if device == CPU else SIZE_ON_GPU
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    a @ b
    _wait(device)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
        if start + best > end:
            break
    return 2 * size**3 / best


def memory_rate(device: torch.device = CPU) -> float:
    """Bytes a second, read and written, of a copy that no cache holds; decoding reads every weight at every step."""
    a = torch.ones(2**25, device=device) if device == CPU else torch.ones(2**28, device=device)
    b = torch.empty_like(a)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        b.copy_(a)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * a.numel() * a.element_size() / best


def warnings_of(found: dict[str, Any]) -> list[str]:
    """What will be slower here than elsewhere, and why."""
    rates, threads = found["gemm_flops"], found["threads"]
    notes = []
    if found["gpu"]:
        if not found["gpu"]["native_bfloat16"]:
            notes.append("the GPU has no bfloat16 products: --dtype auto computes in float32, in twice the memory")
    elif not found["native_bfloat16"]:
        notes.append("the processor has no bfloat16 products: --dtype auto computes in float32, in twice the memory")
    elif rates["bfloat16"] < 1.2 * rates["float32"]:
        notes.append("bfloat16 products are no faster than float32 here, though the processor has them")
    cores = found["cores_allowed"] or found["cores"]
    if threads < cores:
        notes.append(f"{threads} threads for {cores:g} cores: OMP_NUM_THREADS or the like holds the rest back")
    if threads > cores:
        notes.append(f"{threads} threads share {cores:g} cores: set OMP_NUM_THREADS={max(1, int(cores))}")
    if found["memory_limit_bytes"] < found["memory_bytes"]:
        limit = found["memory_limit_bytes"] / GIB
        notes.append(f"this process may use {limit:.1f} GiB of the machine's memory only")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5 * cores:
        notes.append(f"other programs are at work (load {load:.1f}): the rates are below what the machine can do")
    if not found["native_decoding"]:
        notes.append(
            "no C compiler (cc, gcc or clang) that works: sampling takes up to twice as long, Adam's update three times"
        )
    if found["versions"]["peft"] is None:
        notes.append("peft is not installed: --adapters needs it (pip install 'tutelage[adapters]')")
    return notes
