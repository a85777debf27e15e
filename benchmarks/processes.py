"""The cost of the distributed path: SFT in turns as one plain process, under torchrun on 1, and on 2 processes.

    python benchmarks/processes.py --repeats 5
    python benchmarks/processes.py --before OLD/src      # beside another version of the source

Ratios of median seconds a step (the first steps left out), each kind in turn so that a busy machine hits all alike.
"""

import argparse
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


def seconds(out: Path, processes: int | None, source: Path, steps: int) -> float:
    """Median seconds a step of one run; processes None: without torchrun."""
    words = ["-m", "tutelage", "sft", "--max-steps", str(steps), "--batch-size", "16", "--dtype", "float32"]
    words += ["--save-every", "1000", "--eval-every", "1000", "--out", str(out)]
    launcher = [] if processes is None else ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "TUTELAGE_QUIET": "1"}
    subprocess.run([sys.executable, *launcher, *words], env=environment, check=True, stderr=subprocess.DEVNULL)
    at = [json.loads(line)["seconds"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    shutil.rmtree(out)
    return median(b - a for a, b in zip(at[WARM:-1], at[WARM + 1 : -1], strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--before", type=Path)
    options = parser.parse_args()
    kinds: dict[str, tuple[int | None, Path]] = {
        "plain": (None, SOURCE),
        "torchrun 1": (1, SOURCE),
        "torchrun 2": (2, SOURCE),
    }
    if options.before:
        kinds["plain, before"] = (None, options.before)
    found: dict[str, list[float]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            for name, (processes, source) in kinds.items():
                found[name].append(seconds(Path(folder) / "run", processes, source, options.steps))
    base = found["plain, before"] if options.before else found["plain"]
    print("| kind | seconds a step | ratio, median | ratios |\n|---|---|---|---|")
    for name, values in found.items():
        ratios = [a / b for a, b in zip(values, base, strict=True)]
        print(f"| {name} | {median(values):.4f} | {median(ratios):.3f} | {', '.join(f'{r:.3f}' for r in ratios)} |")


if __name__ == "__main__":
    main()
