"""The C files of this folder, compiled once on the machine that runs them: what lies between the matrix products of a layer,
the softmax over a vocabulary and an update, in few passes over memory; a decoding step in few calls.

There is no need of them: without a compiler, or with TUTELAGE_NATIVE=0, the same steps are taken by torch's functions,
each of which costs more than its numbers. The library is kept in the user's cache folder, under a name made of
everything that it depends on. It takes part in torch's own threads: it is not linked with a library of threads, and
finds the one that torch has loaded.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SOURCES = [
    Path(__file__).with_name(name)
    for name in ("attention.c", "layers.c", "logprobs.c", "decoding.c", "products.c", "adam.c")
]
HEADERS = [Path(__file__).with_name(name) for name in ("numbers.h", "both_types.h")]
BLOCK = 64  # of decoding.c: a cache's room is a multiple of it
COLUMNS = 32  # of products.c: outputs that are made together
TOKENS = 64  # of layers.c: whose parts of a weight's gradient are summed together
CHUNK = 16384  # of adam.c: elements whose squares are summed together
# Not -ffast-math: sums are only taken in another order where the source says so.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
OF_X86 = ("-mprefer-vector-width=512",)  # where there are such vectors; compilers for other processors refuse it
THREADS = (("-fopenmp",), ("-fopenmp-simd",))  # the second where threads are not to be had, as with clang here
NAMES = {torch.float32: "f32", torch.bfloat16: "bf16"}
SECONDS = 120  # for a compilation
Pointer, Size, Number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class Kernels:
    """The functions for one type of numbers. Tensors are contiguous and on the processor."""

    def __init__(self, library: ctypes.CDLL, name: str):
        self._weigh = _function(library, f"weigh_{name}", [Pointer] * 3 + [Size] * 3 + [Number])
        self._settle = _function(library, f"settle_{name}", [Pointer] * 3 + [Size] * 7)
        self._weigh_backward = _function(library, f"weigh_backward_{name}", [Pointer] * 4 + [Size] * 3 + [Number])
        self._add_norm = _function(library, f"add_norm_{name}", [Pointer] * 5 + [Size] * 2 + [Number])
        self._norm_backward = _function(library, f"norm_backward_{name}", [Pointer] * 6 + [Size] * 2)
        self._gated = _function(library, f"gated_{name}", [Pointer] * 3 + [Size] * 3)
        self._gated_backward = _function(library, f"gated_backward_{name}", [Pointer] * 5 + [Size])
        self._rotate_all = _function(library, f"rotate_all_{name}", [Pointer] * 4 + [Size] * 4)
        self._partition = _function(library, f"partition_{name}", [Pointer] * 3 + [Size] * 2 + [Number])
        self._unit_gradient = _function(library, f"unit_gradient_{name}", [Pointer] * 3 + [Size] * 2 + [Number])
        self._attend = _function(library, f"attend_{name}", [Pointer] * 7 + [Size] * 5 + [Number])
        self._attend.restype = ctypes.c_int
        self._draw = _function(library, f"draw_{name}", [Pointer] * 4 + [Size] * 2 + [Number])
        self._squares = _function(library, f"squares_{name}", [Pointer] * 2 + [Size])
        self._adam = _function(library, f"adam_{name}", [Pointer] * 5 + [Size] + [Number] * 7)

    def weigh(self, scores: Tensor, block: int, scale: float) -> tuple[Tensor, Tensor]:
        """Scores [..., L] become causal weights where they lie; the weights' sums and the largest scaled scores [...].

        Rows are `block` queries, the last of L tokens, for as many heads as there are.
        """
        totals = scores.new_empty(scores.shape[:-1], dtype=torch.float32)
        mosts = torch.empty_like(totals)
        places = (x.data_ptr() for x in (scores, totals, mosts))
        self._weigh(*places, totals.numel(), scores.shape[-1], block, scale)
        return totals, mosts

    def settle(self, mixed: Tensor, totals: Tensor, out: Tensor) -> None:
        """mixed / totals, which lie as [n, h, q, d] and [n, h, q], into out of this shape, whose last axis alone is contiguous."""
        self._settle(*(x.data_ptr() for x in (mixed, totals, out)), *out.shape, *out.stride()[:3])

    def weigh_backward(
        self, scores: Tensor, slopes: Tensor, log_sums: Tensor, deltas: Tensor, block: int, scale: float
    ) -> None:
        """Scores [..., L] become causal weights, and gradients of the weights those of the products, where they lie."""
        places = (x.data_ptr() for x in (scores, slopes, log_sums, deltas))
        self._weigh_backward(*places, log_sums.numel(), scores.shape[-1], block, scale)

    def add_norm(self, x: Tensor, more: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """x += more, where there is one;  weight * x / sqrt(mean(x^2) + eps). x, more: [B, H]."""
        out = torch.empty_like(x)
        added = None if more is None else more.data_ptr()
        self._add_norm(x.data_ptr(), added, weight.data_ptr(), out.data_ptr(), None, *x.shape, eps)
        return out

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """weight * x r and r [B], with r = 1 / sqrt(mean(x^2) + eps). x: [B, H]."""
        out, inverses = torch.empty_like(x), x.new_empty(len(x), dtype=torch.float32)
        self._add_norm(x.data_ptr(), None, weight.data_ptr(), out.data_ptr(), inverses.data_ptr(), *x.shape, eps)
        return out, inverses

    def norm_backward(self, x: Tensor, weight: Tensor, inverses: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of x [B, H] and of the weight [H], the latter in float32."""
        grad_x, sums = torch.empty_like(x), x.new_empty(-(-len(x) // TOKENS), x.shape[1], dtype=torch.float32)
        self._norm_backward(*(part.data_ptr() for part in (x, weight, inverses, grad, grad_x, sums)), *x.shape)
        return grad_x, sums.sum(0)

    def gated(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up, the halves of [B, 2F]."""
        rows, width = gate_up.shape[0], gate_up.shape[1] // 2
        out, gate = gate_up.new_empty(rows, width), gate_up.data_ptr()
        self._gated(gate, gate + width * gate_up.element_size(), out.data_ptr(), rows, width, 2 * width)
        return out

    def gate(self, gate: Tensor, up: Tensor) -> Tensor:
        """silu(gate) * up, of one shape."""
        out, width = torch.empty_like(gate), gate.shape[-1]
        self._gated(gate.data_ptr(), up.data_ptr(), out.data_ptr(), gate.numel() // width, width, width)
        return out

    def gate_backward(self, gate: Tensor, up: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of gate and up, and their outcome once more; the first lies where the outcome's lay."""
        grad_up, again = torch.empty_like(up), torch.empty_like(up)
        self._gated_backward(*(x.data_ptr() for x in (gate, up, grad, grad_up, again)), gate.numel())
        return grad, grad_up, again

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, backward: bool = False) -> Tensor:
        """x cos + (-x_2, x_1) sin of the halves of x [T, h, d], or the gradient of it; cos and sin: [T, d]."""
        out = torch.empty_like(x)
        self._rotate_all(*(part.data_ptr() for part in (x, cos, sin, out)), *x.shape, backward)
        return out

    def partition(self, logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Logarithms [M] of the sums of e^(logit / temperature), and the entropies [M]. logits: [M, V]."""
        log_z = logits.new_empty(len(logits), dtype=torch.float32)
        entropy = torch.empty_like(log_z)
        self._partition(*(x.data_ptr() for x in (logits, log_z, entropy)), *logits.shape, 1 / temperature)
        return log_z, entropy

    def unit_gradient(self, logits: Tensor, log_z: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """d logprob / d logits of the targets [M], where the logits [M, V] lay."""
        self._unit_gradient(*(x.data_ptr() for x in (logits, log_z, targets)), *logits.shape, 1 / temperature)
        return logits

    def attend(
        self, qkv: Tensor, keys: Tensor, values: Tensor, rotation: tuple[Tensor, Tensor], lengths: Tensor, scale: float
    ) -> Tensor:
        """[B, h * d] of one new token in each row, whose key and value are appended.

        qkv: [B, (h + 2 h_kv) d]; keys [S, h_kv, room, d] with their positions side by side, and values; rotation: cosines
        and sines [B, d]; lengths: [B] tokens in the cache before it.
        """
        key_heads, room, size = keys.shape[1:]
        heads = qkv.shape[1] // size - 2 * key_heads
        out = qkv.new_empty(len(qkv), heads * size)
        places = (x.data_ptr() for x in (qkv, keys, values, *rotation, lengths, out))
        if self._attend(*places, len(qkv), heads, key_heads, size, room, scale):
            raise MemoryError("no memory for the scores of a row")
        return out

    def draw(self, logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Tokens [B] by inverse transform of uniform numbers [B], and their log-probabilities [B]. logits: [B, V]."""
        rows, tokens, logprobs = (
            logits.contiguous(),
            uniform.new_empty(len(uniform), dtype=torch.long),
            torch.empty_like(uniform),
        )
        places = (x.data_ptr() for x in (rows, uniform, tokens, logprobs))
        self._draw(*places, *rows.shape, temperature)
        return tokens, logprobs

    def square_sums(self, gradient: Tensor) -> Tensor:
        """Sums of squares of parts of a gradient, float64."""
        sums = gradient.new_empty(-(-gradient.numel() // CHUNK), dtype=torch.float64)
        self._squares(gradient.data_ptr(), sums.data_ptr(), gradient.numel())
        return sums

    def adam(self, tensors: Sequence[Tensor], numbers: Sequence[float]) -> None:
        """Update a float32 master, its mean and its square by a gradient of this type, and round it into a bfloat16 weight.

        tensors: in this order; numbers: adam.c's, from clip to eps.
        """
        self._adam(*(x.data_ptr() for x in tensors), tensors[0].numel(), *numbers)


class Products:
    """Products of few rows with weights in bfloat16, where the processor multiplies pairs of them (AVX-512, AMX)."""

    def __init__(self, library: ctypes.CDLL):
        self._lay_out = _function(library, "lay_out", [Pointer] * 2 + [Size] * 2)
        self._product = _function(library, "product", [Pointer] * 4 + [Size] * 3)

    def product(self, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        """x [B, K] -> x W' + b [B, N], with W [N, K] laid out once; K is even."""
        outputs, inputs = weight.shape
        laid_out = weight.new_empty(-(-outputs // COLUMNS) * COLUMNS * inputs)
        self._lay_out(weight.contiguous().data_ptr(), laid_out.data_ptr(), outputs, inputs)
        added = None if bias is None else bias.detach().to(weight.dtype).contiguous()

        def multiplied(x: Tensor) -> Tensor:
            rows, out = x.contiguous(), x.new_empty(len(x), outputs)
            places = (rows.data_ptr(), laid_out.data_ptr(), None if added is None else added.data_ptr(), out.data_ptr())
            self._product(*places, len(x), outputs, inputs)
            return out

        return multiplied


def _function(library: ctypes.CDLL, name: str, arguments: list[type]) -> "ctypes._NamedFuncPointer":
    function = library[name]
    function.argtypes, function.restype = arguments, None
    return function


@cache
def kernels(dtype: torch.dtype) -> Kernels | None:
    """The functions for float32 or bfloat16; None where they cannot be had."""
    found = _library() if dtype in NAMES and os.environ.get("TUTELAGE_NATIVE") != "0" else None
    return None if found is None else Kernels(found, NAMES[dtype])


def kernels_for(*tensors: Tensor) -> Kernels | None:
    """The functions for tensors of one type that lie on the processor; None for others."""
    alike = all(x.device.type == "cpu" and x.dtype == tensors[0].dtype for x in tensors)
    return kernels(tensors[0].dtype) if alike else None


@cache
def products() -> Products | None:
    """The products, where the processor has what they are made of."""
    found = _library() if os.environ.get("TUTELAGE_NATIVE") != "0" else None
    return Products(found) if found is not None and found.has_products() else None


def compiler() -> str | None:
    """The C compiler: CC, or the system's."""
    asked = os.environ.get("CC")
    return shutil.which(asked) if asked else next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


@cache
def _library() -> ctypes.CDLL | None:
    cc = compiler()
    for threads in THREADS if cc else ():
        try:
            return ctypes.CDLL(str(_compiled(str(cc), threads)))
        except (OSError, subprocess.SubprocessError):  # no such flag, no such threads, no room on the disk
            continue
    return None


def _compiled(cc: str, threads: tuple[str, ...]) -> Path:
    """The library's file, made where it is not there yet."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutelage" / "native"
    made_of = [
        *(source.read_text() for source in (*HEADERS, *SOURCES)),
        _version(cc),
        *_flags(),
        *threads,
        _processor(),
    ]
    path = folder / f"kernels-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            parts, whole = [Path(work) / f"{source.stem}.o" for source in SOURCES], Path(work) / "kernels.so"
            with ThreadPoolExecutor() as pool:
                commands = [
                    [cc, *_flags(), *threads, "-c", *map(str, (a, "-o", b))]
                    for a, b in zip(SOURCES, parts, strict=True)
                ]
                list(pool.map(_run, commands))
            _run([cc, "-shared", *map(str, parts), "-o", str(whole)])  # without -fopenmp: torch's threads are there
            whole.replace(path)  # whole, whoever else makes it at the same time
    return path


def _flags() -> tuple[str, ...]:
    return FLAGS + (OF_X86 if platform.machine() in ("x86_64", "AMD64") else ())


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout


def _version(cc: str) -> str:
    return _run([cc, "--version"])


def _processor() -> str:
    """What its instructions are: a folder may be shared by machines of several kinds."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    flags = [line for line in lines if line.startswith(("flags", "Features"))]
    return f"{platform.machine()} {platform.processor()} {flags[:1]}"
