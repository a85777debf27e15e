"""The cost of the distributed path: SFT in turns as one plain process, and under torchrun on 1, 2 and 4 processes.

    python benchmarks/processes.py --repeats 5
    python benchmarks/processes.py --before OLD/src      # beside another version of the source
    python benchmarks/processes.py --price 0.05          # of a process and hour, for the cost of a million tokens

Ratios of median seconds a step (the first steps left out), each kind in turn so that a busy machine hits all alike.
`torchrun 1` is the overhead of the path at world size 1. Two turns of the same work may differ by a tenth on a shared machine, so it is
measured once more with both at the same time, a core each, and cores changed at each turn (--pairs).
The plan's column is the ratio that `tutelage plan` predicts with the formulas of docs/scale.md: products divided among the
processes, at the rate that each reaches while all multiply, and the gradients' bytes over the rate of an all-reduce; both are measured here.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

SOURCE = Path(__file__).parents[1] / "src"
WARM = 5
COUNTS = (1, 2, 4)
OPTIONS = ["--batch-size", "16", "--dtype", "float32"]
ADDED_UP = 2**23  # elements of the all-reduce that is timed
SIZE, SECONDS = 512, 3.0  # of the products that are timed, and for how long
RATES = f"""
import time, torch, torch.distributed as dist
dist.init_process_group("gloo")
torch.set_num_threads(1)
n, tensor, best = dist.get_world_size(), torch.ones({ADDED_UP}), float("inf")
for _ in range(5):
    start = time.perf_counter()
    dist.all_reduce(tensor)
    best = min(best, time.perf_counter() - start)
a, b, count = torch.randn({SIZE}, {SIZE}), torch.randn({SIZE}, {SIZE}), 0
dist.barrier()
start = time.perf_counter()
while time.perf_counter() < start + {SECONDS}:
    a @ b
    count += 1
rate = torch.tensor(2 * {SIZE}**3 * count / (time.perf_counter() - start), dtype=torch.float64)
dist.all_reduce(rate)
if dist.get_rank() == 0:
    print(2 * (n - 1) / n * 4 * {ADDED_UP} / best, float(rate) / n, flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "TUTELAGE_QUIET": "1"}


def torchrun(processes: int) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]


def measured(out: Path, processes: int | None, source: Path, steps: int) -> tuple[float, float]:
    """Median seconds a step of one run, and its tokens a step; processes None: without torchrun."""
    subprocess.run(command(out, processes, steps), env=environment(source), check=True, stderr=subprocess.DEVNULL)
    return seconds_and_tokens(out)


def command(out: Path, processes: int | None, steps: int) -> list[str]:
    words = ["-m", "tutelage", "sft", "--max-steps", str(steps), *OPTIONS]
    words += ["--save-every", "1000", "--eval-every", "1000", "--out", str(out)]
    launcher = [] if processes is None else torchrun(processes)
    return [sys.executable, *launcher, *words]


def seconds_and_tokens(out: Path) -> tuple[float, float]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][WARM:-1]
    shutil.rmtree(out)
    pairs = list(itertools.pairwise(rows))
    tokens = (rows[-1]["num_tokens"] - rows[0]["num_tokens"]) / len(pairs)
    return median(b["seconds"] - a["seconds"] for a, b in pairs), tokens


def paired(pairs: int, steps: int, folder: Path) -> list[float]:
    """Seconds a step of torchrun 1 over those of plain, run at the same time on a core each, which they change each turn."""
    cores, ratios = sorted(os.sched_getaffinity(0))[:2], []
    for turn in range(pairs if len(cores) == 2 else 0):
        outs = [folder / "plain", folder / "one"]
        running = [
            subprocess.Popen(
                ["taskset", "-c", str(cores[(turn + place) % 2]), *command(out, processes, steps)],
                env=environment(SOURCE),
                stderr=subprocess.DEVNULL,
            )
            for place, (out, processes) in enumerate(zip(outs, (None, 1), strict=True))
        ]
        codes = [one.wait() for one in running]
        if any(codes):
            raise RuntimeError(f"a run of pair {turn} failed")
        plain, one = (seconds_and_tokens(out)[0] for out in outs)
        ratios.append(one / plain)
    return ratios


def predicted(steps: int, folder: Path) -> dict[int, float]:
    """The plan's seconds a step for each number of processes, one thread each, on the cores that are there."""
    sys.path.insert(0, str(SOURCE))
    from tutelage.configs import SFTConfig
    from tutelage.models.checkpoint import load_tokenizer, resolve
    from tutelage.planning.cluster import Split, plan_split
    from tutelage.planning.gpus import GPU, Fleet
    from tutelage.planning.plan import models_of
    from tutelage.planning.shape import read_shape
    from tutelage.planning.work import load_of

    class Core(GPU):
        @property
        def rates(self):
            """Of products alone, as on one machine: SFT samples nothing."""
            return {"gemm_flops": {"float32": self.float32}, "memory_bytes_per_second": 1.0}

    config = SFTConfig(max_steps=steps, batch_size=16, dtype="float32")
    path = resolve(config.model)
    models, load = models_of(config, read_shape(path), 4), load_of(config, load_tokenizer(path))
    script = folder / "rates.py"
    script.write_text(RATES)
    found = {}
    for n in COUNTS:
        measuring = [sys.executable, *torchrun(n), str(script)]
        done = subprocess.run(measuring, env=environment(SOURCE), check=True, capture_output=True, text=True)
        ring, rate = map(float, done.stdout.split()[-2:])
        core = Core(float("inf"), 1.0, 1.0, rate)
        plan = plan_split(config, models, load, Fleet(core, n, ring or float("inf")), Split(n, n, "data", "shared"))
        found[n] = plan.seconds / load.steps
        print(f"{n}: {rate / 1e9:.1f} GFLOP/s in each at once, all-reduce at {ring / 1e9:.2f} GB/s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--price", type=float, default=1.0, help="of a process and hour")
    options = parser.parse_args()
    kinds: dict[str, tuple[int | None, Path]] = {
        "plain": (None, SOURCE),
        **{f"torchrun {n}": (n, SOURCE) for n in COUNTS},
    }
    if options.before:
        kinds["plain, before"] = (None, options.before)
    found: dict[str, list[float]] = {name: [] for name in kinds}
    tokens = 0.0  # a step: the same batches in every kind
    with tempfile.TemporaryDirectory() as folder:
        plans = predicted(options.steps, Path(folder))
        for _ in range(options.repeats):
            for name, (processes, source) in kinds.items():
                seconds, tokens = measured(Path(folder) / "run", processes, source, options.steps)
                found[name].append(seconds)
        pairs = paired(options.pairs, 4 * options.steps, Path(folder))
    base = found["plain, before"] if options.before else found["plain"]
    cost = f"cost of a million tokens ({options.price:g} a process and hour)"
    heads = [head for name in ("seconds a step", "tokens/s", cost, "times plain") for head in (name, "the plan's")]
    print(f"| kind | {' | '.join(heads)} | each |\n{'|---' * (len(heads) + 2)}|")
    for name, values in found.items():
        count = kinds[name][0] or 1
        ratios = [a / b for a, b in zip(values, base, strict=True)]
        both = median(values), plans[count]
        row = [name, *(f"{one:.4f}" for one in both), *(f"{tokens / one:.0f}" for one in both)]
        row += [f"{options.price * count * one * 1e6 / tokens / 3600:.3f}" for one in both]
        row += [f"{median(ratios):.3f}", f"{plans[count] / plans[1]:.3f}", ", ".join(f"{r:.3f}" for r in ratios)]
        print(f"| {' | '.join(row)} |")
    if pairs:
        print(
            f"\ntorchrun 1 beside plain, a core each: {median(pairs):.3f} times ({', '.join(f'{r:.3f}' for r in pairs)})"
        )


if __name__ == "__main__":
    main()
