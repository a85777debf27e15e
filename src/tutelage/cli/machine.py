"""`tutelage doctor` and `tutelage plan`: what the machine has, and what a run will need of it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.cli.options import parse, parse_words, show
from tutelage.cli.recipes import find_recipe, split_dotted
from tutelage.configs import STAGES, StageConfig
from tutelage.errors import UserError
from tutelage.recipe import load_recipe

GIB = 2**30
PLAN = """usage: tutelage plan VERB [options of the verb]
       tutelage plan RECIPE [--model FOLDER] [--data FILE] [--STAGE.OPTION VALUE] [--json]

Memory of each phase and time of each stage, before anything is loaded.
  tutelage plan sft --model FOLDER --data FILE --batch-size 8 --max-length 512
  tutelage plan quickstart"""


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
    json: bool = False
    """Print one JSON object last."""


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
    show(f"versions python {found['python']}, " + ", ".join(f"{k} {v}" for k, v in found["versions"].items() if v))
    for note in found["warnings"]:
        show(f"slower   {note}")
    return found


def plan(arguments: list[str]) -> dict[str, Any]:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(PLAN)
        sys.exit(0 if arguments else 2)
    stages, instead = planned(arguments[0], arguments[1:])
    from tutelage.planning.machine import gemm_rates, memory_limit, memory_rate
    from tutelage.planning.plan import plan_stage

    rates = {"gemm_flops": gemm_rates(1.0), "memory_bytes_per_second": memory_rate()}
    rows = []
    for name, config in stages:
        row = plan_stage(config, rates, instead)
        if row is None:
            show(f"{name}: trains and samples no model of its own")
            continue
        rows.append({**row, "name": name})
        _say(name, row)
    if not rows:
        raise UserError("has nothing to plan", where=arguments[0], mend="plan a verb that trains or samples")
    found = {"stages": rows, "peak_bytes": max(r["peak_bytes"] for r in rows), "memory_limit_bytes": memory_limit()}
    found["fits"] = found["peak_bytes"] <= found["memory_limit_bytes"]
    found |= {"seconds": sum(r["seconds"] or 0.0 for r in rows), **rates}
    fits = "fits" if found["fits"] else "DOES NOT FIT"
    show(f"in all: {found['peak_bytes'] / GIB:.2f} GiB of {found['memory_limit_bytes'] / GIB:.1f}: {fits}")
    return found


def planned(what: str, words: Sequence[str]) -> tuple[list[tuple[str, StageConfig]], str | None]:
    """The stages to plan, and the model that stands for those which do not exist yet."""
    if what in STAGES:
        config, _ = parse(STAGES[what], what, list(words))
        return [(what, config)], None
    dotted, rest = split_dotted(list(words))
    options = parse_words(PlanOptions, "plan RECIPE", rest)
    recipe = load_recipe(find_recipe(what), model=options.model, data=options.data, stage_options=dotted)
    return [(stage, config) for stage, _, config in recipe.stages], recipe.model


def _say(name: str, row: dict[str, Any]) -> None:
    phases = ", ".join(f"{phase} {size / GIB:.2f}" for phase, size in row["phases"].items())
    time = "time unknown" if row["seconds"] is None else f"about {row['seconds'] / 60:.1f} min for {row['steps']} steps"
    guess = " (its data is not there yet: at most)" if row["guessed"] else ""
    show(f"{name}: {row['peak_bytes'] / GIB:.2f} GiB ({phases}), {time}{guess}")
