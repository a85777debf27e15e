"""`tutelage doctor` and `tutelage plan`: what the machine has, and what a run will need of it."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.cli.options import parse, parse_words, show
from tutelage.cli.recipes import find_recipe, split_dotted
from tutelage.configs import STAGES, StageConfig
from tutelage.errors import UserError
from tutelage.recipe import Recipe, load_recipe

GIB = 2**30
PLAN = """usage: tutelage plan VERB [options of the verb]
       tutelage plan RECIPE [--model FOLDER] [--data FILE] [--STAGE.OPTION VALUE] [--json]
       tutelage plan RECIPE --gpu KIND [--count N] [--network GB/S] [--price PER_GPU_HOUR] ...

Memory of each phase and time of each stage, before anything is loaded; on this machine, or with --gpu on N GPUs of a
kind (h100, h200, a100, a100-40gb, l40s, a10, l4) with a network of so many GB/s: the best split between sampling and
training, time an iteration, cost.
  tutelage plan sft --model FOLDER --data FILE --batch-size 8 --max-length 512
  tutelage plan quickstart
  tutelage plan instructgpt --model FOLDER --gpu h100 --count 16 --network 40 --price 3"""


@dataclass(kw_only=True, frozen=True)
class DoctorOptions:
    """Say what this machine has, how fast it multiplies, and what will be slower here and why."""

    seconds: float = 2.0
    """Time to measure matrix products for."""
    json: bool = False
    """Print one JSON object last."""

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 60:
            raise UserError(
                f"{self.seconds} cannot be used", where="option --seconds", mend="give a number from 0 to 60"
            )


@dataclass(kw_only=True, frozen=True)
class PlanOptions:
    """The options of a plan of a recipe."""

    model: str | None = None
    """A Hugging Face folder in place of the recipe's model."""
    data: str | None = None
    """A file of comparisons in place of the recipe's data."""
    gpu: str | None = None
    """Plan for GPUs of this kind (h100, h200, a100, a100-40gb, l40s, a10, l4) in place of this machine."""
    count: int = 1
    """How many of them."""
    network: float | None = None
    """GB a second that each sends in a ring through all of them (the bus bandwidth of nccl-tests)."""
    price: float | None = None
    """Of one GPU for an hour."""
    json: bool = False
    """Print one JSON object last."""

    def __post_init__(self) -> None:
        for name in ("count", "network", "price"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                mend = "give a number above zero"
                raise UserError(f"{value} cannot be used", where=f"option --{name}", mend=mend)
            if self.gpu is None and value != getattr(PlanOptions, name):
                raise UserError("is of a plan for GPUs", where=f"option --{name}", mend="give --gpu too")
        if self.count > 1 and self.network is None:
            mend = "give GB a second, as nccl-tests' all_reduce_perf measures (busbw)"
            raise UserError("is missing for more than one GPU", where="option --network", mend=mend)


def main(verb: str, arguments: list[str]) -> dict[str, Any] | None:
    return doctor(arguments) if verb == "doctor" else plan(arguments)


def doctor(arguments: list[str]) -> dict[str, Any]:
    options = parse_words(DoctorOptions, "doctor", arguments)
    from tutelage.planning.machine import facts

    found = facts(options.seconds)
    quota = f", of which a quota pays for {found['cores_allowed']:g}" if found["cores_allowed"] else ""
    native = "native" if found["native_bfloat16"] else "not native"
    rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in found["gemm_flops"].items())
    show(f"cores    {found['cores']}{quota}; torch uses {found['threads']} threads; bfloat16 is {native}")
    show(f"memory   {found['memory_limit_bytes'] / GIB:.1f} GiB")
    show(f"GPU      {', '.join(found['gpus']) or 'none'}")
    show(f"rates    GFLOP/s of matrix products: {rates}; memory {found['memory_bytes_per_second'] / 1e9:.1f} GB/s")
    if gpu := found["gpu"]:
        rates = ", ".join(f"{name} {rate / 1e12:.1f}" for name, rate in gpu["gemm_flops"].items())
        show(
            f"models   compute on {gpu['device']}, {gpu['memory_bytes'] / GIB:.1f} GiB (--device): TFLOP/s {rates}; "
            f"memory {gpu['memory_bytes_per_second'] / 1e9:.0f} GB/s"
        )
    show(f"versions python {found['python']}, " + ", ".join(f"{k} {v}" for k, v in found["versions"].items() if v))
    for note in found["warnings"]:
        show(f"slower   {note}")
    return found


def plan(arguments: list[str]) -> dict[str, Any]:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(PLAN)
        sys.exit(0 if arguments else 2)
    what, words = arguments[0], arguments[1:]
    if what in STAGES:
        config, _ = parse(STAGES[what], what, list(words))
        return plan_here(what, [(what, config)], None)
    dotted, rest = split_dotted(list(words))
    options = parse_words(PlanOptions, "plan RECIPE", rest)
    recipe = load_recipe(find_recipe(what), model=options.model, data=options.data, stage_options=dotted)
    stages = [(stage, config) for stage, _, config in recipe.stages]
    if options.gpu is None:
        return plan_here(what, stages, recipe.model)
    return plan_gpus(what, stages, recipe, options)


def plan_here(what: str, stages: Sequence[tuple[str, StageConfig]], instead: str | None) -> dict[str, Any]:
    """On this machine, whose rates are measured. instead: the model that stands for those which do not exist yet."""
    from tutelage.engine.device import resolve_device
    from tutelage.planning.machine import limit_of, rates
    from tutelage.planning.plan import plan_stage

    measured: dict[Any, dict[str, Any]] = {}
    rows = []
    for name, config in stages:
        device = resolve_device(config.device)
        if device not in measured:
            measured[device] = rates(device, 1.0)
        row = plan_stage(config, measured[device], instead)
        if row is None:
            show(f"{name}: trains and samples no model of its own")
            continue
        rows.append({**row, "name": name, "device": str(device), "memory_limit_bytes": limit_of(device)})
        _say(name, row)
    _require(what, rows)
    largest = max(rows, key=lambda row: row["peak_bytes"] / row["memory_limit_bytes"])
    found = {"stages": rows, **{name: largest[name] for name in ("device", "peak_bytes", "memory_limit_bytes")}}
    found["fits"] = found["peak_bytes"] <= found["memory_limit_bytes"]
    found |= {"seconds": sum(r["seconds"] or 0.0 for r in rows), **measured[resolve_device(largest["device"])]}
    fits = "fits" if found["fits"] else "DOES NOT FIT"
    show(f"in all: {found['peak_bytes'] / GIB:.2f} GiB of {found['memory_limit_bytes'] / GIB:.1f}: {fits}")
    return found


def _require(what: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        raise UserError("has nothing to plan", where=what, mend="plan a verb that trains or samples")


def plan_gpus(
    what: str, stages: Sequence[tuple[str, StageConfig]], recipe: Recipe, options: PlanOptions
) -> dict[str, Any]:
    """On GPUs that need not be there."""
    from tutelage.planning.cluster import plan_on
    from tutelage.planning.gpus import Fleet, gpu_of

    gpu = gpu_of(options.gpu or "")
    network = 1e9 * options.network if options.network else float("inf")
    fleet = Fleet(gpu, options.count, network, options.price)
    rows, block = [], recipe.cluster
    mode, scoring = (block.mode, math.ceil(block.scorers * block.scorer_gpus)) if block else (None, 0)
    for name, config in stages:
        row = plan_on(config, fleet, recipe.model, mode, scoring)
        if row is None:
            show(f"{name}: trains and samples no model of its own")
            continue
        rows.append({**row, "name": name})
        _say_split(f"{name}: ", row, gpu.memory)
        for other in row["others"]:
            _say_split("  or ", other, gpu.memory)
    _require(what, rows)
    found: dict[str, Any] = {"stages": rows, "fits": all(row["fits"] for row in rows)}
    for key in ("seconds", "gpu_hours", "cost"):
        found[key] = sum(row[key] or 0.0 for row in rows)
    found["memory_bytes"] = gpu.memory
    price = f", cost {found['cost']:.2f}" if options.price is not None else ""
    fits = "fits" if found["fits"] else "DOES NOT FIT"
    time = f"{found['seconds'] / 3600:.2f} h, {found['gpu_hours']:.1f} GPU hours{price}"
    show(f"in all: {time} on {options.count} {options.gpu}; {fits}")
    return found


def _say_split(start: str, row: dict[str, Any], memory: float) -> None:
    split = row["split"]
    who = "one GPU" if split["training"] == 1 else f"all {split['training']} GPUs in turn"
    if split["mode"] != "shared":
        score = f"{split['scoring']} score, " if split["scoring"] else ""
        who = f"{split['sampling']} GPUs sample, {score}{split['training']} train, {split['mode']}"
    phases = ", ".join(f"{phase} {size / 1e9:.1f}" for phase, size in row["phases"].items())
    fits = "" if row["fits"] else f" DOES NOT FIT {memory / 1e9:.0f} GB"
    show(f"{start}{who}, --parallel {split['parallel']}; GB a GPU: {phases}{fits}")
    if row["seconds"] is None:
        show("    time unknown")
        return
    share = row["seconds_a_step"] / row["seconds"]
    times = ", ".join(f"{phase} {share * seconds:.3g}" for phase, seconds in row["times"].items())
    cost = "" if row["cost"] is None else f", cost {row['cost']:.2f}"
    hours = f"{row['seconds'] / 3600:.2f} h, {row['gpu_hours']:.1f} GPU hours{cost}"
    show(f"    {row['seconds_a_step']:.3g} s a step ({times}); in all {hours}")


def _say(name: str, row: dict[str, Any]) -> None:
    phases = ", ".join(f"{phase} {size / GIB:.2f}" for phase, size in row["phases"].items())
    time = "time unknown" if row["seconds"] is None else f"about {row['seconds'] / 60:.1f} min for {row['steps']} steps"
    guess = " (its data is not there yet: at most)" if row["guessed"] else ""
    show(f"{name}: {row['peak_bytes'] / GIB:.2f} GiB ({phases}), {time}{guess}")
