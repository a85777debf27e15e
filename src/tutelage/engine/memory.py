"""How much memory the process and its GPU have used, keeping it, and micro-batches that are halved when they do not fit."""

import ctypes
import resource
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from tutelage.errors import UserError
from tutelage.processes import in_step

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
NEVER, PAD, MAPPED = -1, 2**26, 2**30

# Tokens that are known to be too many for one pass on this machine, halved: later steps start below it.
_limit: int | None = None


def peak_rss_bytes() -> int:
    """Largest resident size of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss_bytes() -> int:
    """Resident size of this process now, bytes; its largest so far where the system has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_rss_bytes()


def peak_gpu_bytes() -> int:
    """Most that tensors have taken of this process' GPU so far, bytes; 0 where it has used none."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0


class PeakMemory:
    """Largest resident size while it is open, looked at often: of one stage, in a process that ran others before.

    What earlier stages have freed and glibc or torch kept is given back first. gpu_bytes: the same of the GPU.
    """

    def __init__(self, every: float = 0.05) -> None:
        self.every, self.bytes, self.gpu_bytes, self._over = every, 0, 0, threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True, name="peak-memory")

    def __enter__(self) -> Self:
        if sys.platform == "linux":
            getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._over.set()
        self._watch.join()
        self.gpu_bytes = peak_gpu_bytes()

    def _look(self) -> None:
        while True:
            self.bytes = max(self.bytes, rss_bytes())
            if self._over.wait(self.every):
                return


@cache
def keep_freed_memory() -> None:
    """Let glibc keep what tensors have freed for the next ones, up to a GiB each; elsewhere nothing changes.

    Else each step gives its memory back and gets it anew, a page at a time: a fifth of a PPO step's seconds, for a few
    percent of memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((M_MMAP_THRESHOLD, MAPPED), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, PAD)):
            mallopt(option, value)


def run_fitting(
    batches: Sequence[list[int]], lengths: Sequence[int], work: Callable[[list[int]], None], undo: Callable[[], None]
) -> None:
    """`work` on each micro-batch (indices into lengths); one that memory does not hold is halved and done again.

    The effective batch stays the same: a failed pass is undone, and its halves come instead. work must keep
    nothing of a pass that fails but what undo clears.
    """
    global _limit
    queue = deque(batches)
    while queue:
        micro = queue.popleft()
        tokens = sum(lengths[i] for i in micro)
        if _limit is not None and tokens > _limit and len(micro) > 1:
            queue.extendleft((micro[1::2], micro[::2]))
            continue
        try:
            work(micro)
            continue
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error) or in_step():  # the others would wait for the halved passes in vain
                raise
        # Past the handler nothing holds the failed pass's tensors any more.
        undo()
        if torch.cuda.is_initialized():  # pieces that were cut for the failed pass fit none of the halves
            torch.cuda.empty_cache()
        if len(micro) == 1:
            raise UserError(
                f"one sequence of {tokens} tokens does not fit into memory",
                where="option --max-length (max_length)",
                mend="lower it, or use a smaller model",
            )
        _limit = tokens // 2
        print(f"memory: {tokens} tokens in one pass do not fit; going on with at most {_limit}", file=sys.stderr)
        queue.appendleft(micro)


def _out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "not enough memory" in text
        or "out of memory" in text.lower()
    )
