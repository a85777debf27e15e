"""What bounds each kind of work: its time, and the time of its matrix products alone. Writes bounds.json and bounds.md.

    python benchmarks/bounds.py --model FOLDER --pairs FILE [--work ppo,sampling] [--out benchmarks]

Work is as in compare.py: the same rows, batch, lengths and type. Each kind runs once to be timed and once to note the sizes
of its matrix products, which are then computed alone, over numbers that are not in the cache already. Were all else free (norms,
softmax, drawing, optimizer, Python), a kind would take as long as these products do: `at most` times as fast as it is.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compare import NEW_TOKENS, SAMPLING, _gemm_gflops, _machine, _write_rows
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.configs import STAGES
from tutelage.data.templates import end_token_id, render_prompts
from tutelage.engine import decoding, native
from tutelage.engine.sampling import SamplingParams, sample
from tutelage.models import load_policy
from tutelage.verbs import stage_function

TRAINING = ("sft", "reward", "dpo", "ppo", "rloo")
PRODUCTS = (
    "aten.mm",
    "aten.addmm",
    "aten.bmm",
    "aten.baddbmm",
    "aten.linear",
    "aten.matmul",
    "mkldnn._linear_pointwise",
)
FIRST, LAST = 2, 6  # steps: what comes between the ends of these is looked at
COLD = 2**27  # bytes of operands in turn, more than a cache holds
Size = tuple[Any, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--work", default=",".join((*TRAINING, "sampling")))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        args.rows, args.prompt_rows = _write_rows(args, args.folder)
        for kind in args.work.split(","):
            for name, found in (_sampling(args) if kind == "sampling" else _training(kind, args)).items():
                rows[name] = found
                print(name, json.dumps(found), file=sys.stderr)
    table = {"machine": _machine(), "gemm_gflops": _gemm_gflops(), "model": Path(args.model).name, "work": rows}
    (args.out / "bounds.json").write_text(json.dumps(table, indent=1) + "\n")
    (args.out / "bounds.md").write_text(written(table))
    print(written(table))


def _training(verb: str, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """One step of a verb, the mean of several."""
    timed = _run(verb, args, LAST)
    seconds = [json.loads(line)["seconds"] for line in (timed / "metrics.jsonl").read_text().splitlines()]
    step = (seconds[LAST - 2] - seconds[FIRST - 1]) / (LAST - 1 - FIRST)  # the last step also answers held-out prompts
    counts = []
    for steps in (FIRST, LAST):
        with Products() as products:
            _run(verb, args, steps)
        counts.append(products.sizes)
    sizes = counts[1] - counts[0]
    return {verb: bound(step, Counter({size: count / (LAST - FIRST) for size, count in sizes.items()}))}


def _run(verb: str, args: argparse.Namespace, steps: int) -> Path:
    out = Path(tempfile.mkdtemp(dir=args.folder))
    options: dict[str, Any] = {"model": args.model, "data": str(args.rows), "out": str(out), "max_steps": steps}
    options |= {"batch_size": args.batch, "max_length": args.max_length, "dtype": "bfloat16"}
    if verb in ("ppo", "rloo"):
        reward = args.folder / "reward-model"
        if not reward.exists():
            stage_function("reward")(STAGES["reward"](**options | {"out": str(reward), "max_steps": 2}))
        options |= {"data": str(args.prompt_rows), "reward_model": str(reward), "max_new_tokens": NEW_TOKENS}
        options |= {"minibatch_size": args.batch, "group_size": 4, "eval_prompts": 1, "eval_every": 100, "force": True}
    stage_function(verb)(STAGES[verb](**options))
    return out


def _sampling(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Prompts read and answers drawn, as `tutelage sample` does; medians of three."""
    policy = load_policy(args.model, "bfloat16")
    asked = [json.loads(line)["prompt"] for line in args.prompt_rows.read_text().splitlines()]
    params = SamplingParams(NEW_TOKENS, NEW_TOKENS)
    found = {}
    for prompts, samples in SAMPLING:
        ids = render_prompts(policy.tokenizer, asked[:prompts])
        seeds = [list(range(samples)) for _ in ids]

        def work(ids: list[list[int]] = ids, seeds: list[list[int]] = seeds) -> None:
            sample(policy.model, ids, seeds, params, [end_token_id(policy.tokenizer)])

        work()
        seconds = statistics.median(_seconds(work) for _ in range(3))
        with Products() as products:
            work()
        found[f"sampling {prompts} x {samples}"] = bound(seconds, products.sizes)
    return found


class Products(TorchDispatchMode):
    """Notes each matrix product: its function, its operands' sizes, strides and types, and how often it came."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: Counter[Size] = Counter()

    def __enter__(self) -> "Products":
        self.own, decoding.products = decoding.products, lambda: self if self.own() else None
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        decoding.products = self.own
        super().__exit__(*error)

    def product(self, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        """In place of the sampler's own product, which torch does not see."""
        multiplied = self.own().product(weight, bias)

        def noted(x: Tensor) -> Tensor:
            self.sizes[(_own, (_described(x), _described(weight)), ())] += 1
            return multiplied(x)

        return noted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func).rsplit(".", 1)[0] in PRODUCTS:
            described = tuple(_described(arg) for arg in args)
            self.sizes[(func, described, tuple((k, _described(v)) for k, v in (kwargs or {}).items()))] += 1
        return func(*args, **(kwargs or {}))


def _own(x: Tensor, multiplied: Callable[[Tensor], Tensor]) -> Tensor:
    return multiplied(x)


def _described(arg: Any) -> Any:
    if not isinstance(arg, Tensor):
        return tuple(arg) if isinstance(arg, list) else arg
    laid_out = None if arg.is_mkldnn else arg.stride()
    return ("tensor", tuple(arg.shape), laid_out, arg.dtype)


def _made(described: Any) -> Any:
    """An operand like the one that was noted, of random numbers."""
    if not (isinstance(described, tuple) and described and described[0] == "tensor"):
        return list(described) if isinstance(described, tuple) else described
    _, shape, strides, dtype = described
    if strides is None:
        return torch.ops.mkldnn._reorder_linear_weight(torch.randn(shape).to(dtype), 32)
    return torch.empty_strided(shape, strides, dtype=dtype).copy_(torch.randn(shape))


def _flops(size: Size) -> float:
    """2 M N K, for each of a batch of products."""
    shapes = [arg[1] for arg in size[1] if isinstance(arg, tuple) and arg and arg[0] == "tensor"]
    first, second = shapes[-2:] if "addmm" in str(size[0]) or "baddbmm" in str(size[0]) else shapes[:2]
    transposed = "linear" in str(size[0]) or size[0] is _own  # weights as [out, in]
    rows = 1
    for extent in first[:-1]:
        rows *= extent
    return 2.0 * rows * first[-1] * (second[0] if transposed else second[-1])


@torch.inference_mode()
def alone(size: Size) -> float:
    """Seconds of one such product, when its operands are not at hand."""
    func, described, named = size
    one = sum(
        torch.Size(x[1]).numel() * x[3].itemsize for x in described if isinstance(x, tuple) and x and x[0] == "tensor"
    )
    count = int(min(64, max(3, COLD // max(one, 1))))
    operands = [([_made(x) for x in described], {k: _made(v) for k, v in named}) for _ in range(count)]
    if func is _own:
        own = native.products()
        assert own is not None
        operands = [([x, own.product(weight, None)], {}) for (x, weight), _ in operands]

    def work() -> None:
        for args, kwargs in operands:
            func(*args, **kwargs)

    work()
    return statistics.median(_seconds(work) for _ in range(3)) / count


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bound(seconds: float, sizes: Counter[Size]) -> dict[str, float]:
    products = attention = flops = 0.0
    for size, count in sizes.items():
        took = alone(size) * count
        products, flops = products + took, flops + _flops(size) * count
        attention += took if "bmm" in str(size[0]) else 0.0  # the sampler's is no product
    return {"seconds": seconds, "products": products, "of attention": attention, "flops": flops}


def written(table: dict[str, Any]) -> str:
    machine, rate = table["machine"], table["gemm_gflops"]
    lines = ["# What bounds it", "", "Made by `python benchmarks/bounds.py`.", ""]
    lines += [
        f"{machine['processor']}, {machine['threads']} threads; torch {machine['torch']}; {table['model']}, bfloat16; large matrix"
        f" products at {rate:.0f} GFLOP/s. Products: seconds of the matrix products alone, computed again at the same sizes with"
        " operands that are not in the cache; of these, attention's. At most: how many times as fast it were if all else were free."
        " At the GEMM rate: seconds if the products ran as fast as large ones do.",
        "",
        "| work | seconds | products | of attention | at most | at the GEMM rate |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in table["work"].items():
        took = f"{row['products']:.2f} ({row['products'] / row['seconds']:.0%}) | {row['of attention']:.2f}"
        most, ideal = row["seconds"] / row["products"], row["flops"] / rate / 1e9
        lines.append(f"| {name} | {row['seconds']:.2f} | {took} | {most:.2f} × | {ideal:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
