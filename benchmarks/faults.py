"""Inject faults into training, judges, the store and its jobs, the pages, and a Ray cluster, and say what each cost.

    python benchmarks/faults.py --rounds 3 --out faults.md        # so many of each kind
    python benchmarks/faults.py --count 200 --out faults.md       # so many in all
    python benchmarks/faults.py --only kill,clock

A training fault hits a small run at a random moment. The run must then have every step once, with the numbers of a run
that nothing hit; a service must have, once, all that it had acknowledged. Recovery is by itself ("none") or by one
command: the same again with --resume, or the server's start. Seconds are from the fault's end, or from that command,
until all is well (clock and slow disk: what the run took longer), without the seconds in which Python loads training.
What hangs for ten minutes, or ends in a way that nobody thought of, counts as lost, and the others follow; with --out the
table is written after each kind.
Needs Linux; the full disk needs root (a small tmpfs), the database PostgreSQL's programs, the cluster Ray.
"""

import argparse
import importlib.util
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

os.environ |= {"TUTELAGE_QUIET": "1", "OMP_NUM_THREADS": "1"}

from fault_cluster import CLUSTER
from fault_services import SERVICES, postgresql
from fault_training import LONGEST, NONE, ONE, TRAINING, Bench, Fault, Lost, Missed, Skipped, at_most

MOST_MISSES = 20  # draws of a moment after the end, one after another
HEAD = "| fault | injected | recovered by itself | by one command | lost or doubled | seconds, median | longest |"


@dataclass
class Count:
    """What came of a kind's injections."""

    about: str
    recovered: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    skipped: str = ""
    short: int = 0  # injections that all came too late

    @property
    def injected(self) -> int:
        return sum(self.recovered.values()) + len(self.lost)

    def row(self) -> str:
        if self.skipped:
            return f"| {self.about} | skipped: {self.skipped} | | | | | |"
        ordered = sorted(self.seconds)
        middle, longest = (f"{ordered[len(ordered) // 2]:.1f}", f"{ordered[-1]:.1f}") if ordered else ("–", "–")
        about = f"{self.about} ({self.short} more came too late)" if self.short else self.about
        counts = f"{self.injected} | {self.recovered[NONE]} | {self.recovered[ONE]} | {len(self.lost)}"
        return f"| {about} | {counts} | {middle} | {longest} |"


def inject(name: str, fault: Fault, bench: Bench, count: Count, times: int, seed: int) -> None:
    """So many faults of one kind; each leaves nothing on the disk, and none stops those that follow."""
    number = misses = 0
    while count.injected < times and misses < MOST_MISSES:
        draw, out = random.Random(f"{seed} {name} {number}"), bench.work / f"{name}-{number}"
        number += 1
        bench.pace = 0.85**misses
        try:
            with at_most(LONGEST):
                done = fault(bench, out, draw)
            count.recovered[done.recovery] += 1
            count.seconds.append(done.seconds)
            misses = 0
        except Missed:
            misses += 1
        except Skipped as reason:
            count.skipped = str(reason)
            break
        except Exception as error:  # Lost, and whatever else went wrong: it is to be looked at
            said = str(error) if isinstance(error, Lost) else f"{type(error).__name__}: {error}"
            count.lost.append(said)
            print(f"{name} {number - 1}: {said}", file=sys.stderr, flush=True)
            bench.end_children()
            bench.let_go()  # what did not bear it may bear nothing more
        bench.end_children()
        shutil.rmtree(out, ignore_errors=True)
    if not count.skipped and count.injected < times:
        count.short = times - count.injected
        print(f"{name}: {misses} times all was over before the fault", file=sys.stderr, flush=True)
    for said in bench.let_go():
        count.lost.append(said)
        print(said, file=sys.stderr, flush=True)


def missing() -> dict[str, str]:
    """Kinds of which it is known beforehand that they cannot be injected here, and why."""
    found = {} if importlib.util.find_spec("ray") else dict.fromkeys(CLUSTER, "Ray is not installed")
    if os.geteuid():
        found["disk"] = "needs root to mount a tmpfs"
    if not postgresql():
        found["database"] = "needs PostgreSQL's programs"
    return found


def table(counts: list[Count], wall: float) -> str:
    total = Count("all")
    for one in counts:
        total.recovered += one.recovered
        total.lost += one.lost
        total.seconds += one.seconds
        total.short += one.short
    lines = [HEAD, "|---" * HEAD.count(" | ") + "|---|", *(one.row() for one in counts), total.row()]
    return "\n".join(lines) + f"\n\n{total.injected} faults in {wall / 60:.1f} minutes.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = TRAINING | SERVICES | CLUSTER
    parser.add_argument("--rounds", type=int, default=3, help="faults of each kind")
    parser.add_argument("--count", type=int, help="faults in all, in place of --rounds")
    parser.add_argument("--only", default="", help=f"of {','.join(kinds)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    options = parser.parse_args()
    asked = options.only.split(",") if options.only else list(kinds)
    if unknown := [name for name in asked if name not in kinds]:
        parser.error(f"no such kind: {', '.join(unknown)}")
    names = [name for name in kinds if name in asked]  # Ray's come last: nothing is forked once it is there
    unable = {name: why for name, why in missing().items() if name in names}
    counts, started, work = [], time.monotonic(), Path(tempfile.mkdtemp(prefix="faults-"))
    bench, left = Bench(work), options.count
    try:
        for place, name in enumerate(names):
            about, fault = kinds[name]
            counts.append(Count(about, skipped=unable.get(name, "")))
            if name not in unable:
                # Of a number in all each kind has its share, and of what others fell short.
                rest = sum(one not in unable for one in names[place:])
                times = options.rounds if options.count is None else -(-left // rest)
                inject(name, fault, bench, counts[-1], times, options.seed)
                left = None if left is None else max(0, left - counts[-1].injected)
            print(counts[-1].row(), file=sys.stderr, flush=True)
            if options.out:  # so far, whatever ends this program
                options.out.write_text(table(counts, time.monotonic() - started))
    finally:
        bench.end_children()
        bench.let_go()
        shutil.rmtree(work, ignore_errors=True)
    print(table(counts, time.monotonic() - started))
    sys.exit(1 if any(one.lost or one.short for one in counts) else 0)


if __name__ == "__main__":
    main()
