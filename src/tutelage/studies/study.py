"""`tutelage study NAME`: every value and seed of a study's file, its figure with intervals, and what follows."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.evaluation.hacking import run_curve
from tutelage.evaluation.hacking import summarize as summarize_runs
from tutelage.evaluation.overoptimization import curve
from tutelage.runs import write_json, write_text
from tutelage.studies.cells import known_options, run_cell
from tutelage.studies.conditions import holds
from tutelage.studies.figures import study_figure
from tutelage.studies.measures import Cell, over_seeds, shown
from tutelage.studies.methods import as_markdown as methods_as_markdown
from tutelage.studies.methods import compare_methods
from tutelage.studies.schema import Study, fill
from tutelage.studies.tables import as_markdown as tables_as_markdown
from tutelage.studies.tables import measure_tables


def check_settings(settings: Mapping[str, Any], stages: Sequence[Any], where: str) -> None:
    """Every stage.option that a file sets is one that its stages have."""
    from tutelage.errors import did_you_mean

    known = known_options(stages)
    for name in settings:
        if name not in known:
            raise UserError(
                f"sets {name!r}{did_you_mean(name, sorted(known))}, which no stage has",
                where=where,
                mend="write stage.option",
            )


def plan(study: Study, *, fast: bool) -> tuple[list[Any], list[int], dict[str, Any]]:
    """(values, seeds, settings of every cell); the fast ones replace the study's own."""
    quick = study.fast if fast else {}
    for name in quick:
        if name not in ("values", "seeds", "set", "model"):
            raise UserError(
                f"unknown key {name!r}", where=f"study {study.study}, key fast", mend="use values, seeds, set, model"
            )
    return (
        quick.get("values", study.vary.values or list(study.vary.cases)),
        quick.get("seeds", study.seeds),
        dict(quick.get("set", {})),
    )


def run_study(study: Study, out: Path, *, fast: bool = False, model: str | None = None) -> dict[str, Any]:
    """Returns (and writes to OUT/study.json, figure.svg and study.md) what was measured; stages are shared in OUT/../stages."""
    started = time.perf_counter()
    values, seeds, common = plan(study, fast=fast)
    where = f"study {study.study}"
    check_settings({**dict.fromkeys(study.vary.options()), **common}, study.stages, where)
    base = model or (study.fast.get("model") if fast else None) or study.model
    cells: list[dict[str, Any]] = []
    ran: list[Cell] = []
    for seed in seeds:
        for value in values:
            print(
                f"{where}: {study.vary.label} = {value}, seed {seed}, cell {len(cells) + 1} of {len(values) * len(seeds)}",
                file=sys.stderr,
            )
            settings = {**settings_at(study, value), **common}  # a fast run's are small, whatever the study sets
            cell = run_cell(study.stages, settings, model=base, seed=seed, store=out.parent / "stages", where=where)
            ran.append(cell)
            cells.append({"value": value, "seed": seed, **{n: cell.measure(m) for n, m in study.measures.items()}})
    table = summarize(cells, list(study.measures), values)
    result = {
        "study": study.study,
        "title": study.title,
        "question": study.question,
        "fast": fast,
        "vary": study.vary.label,
        "seeds": seeds,
        "cells": cells,
        "summary": table,
        "conclusions": conclusions(study, table),
        "over_optimization": over_optimization(study, ran, fast) if study.over_optimization else None,
        "methods": compare_methods(study.methods, list(zip((c["value"] for c in cells), ran, strict=True)))
        if study.methods
        else None,
        "tables": measure_tables(
            study.tables, [cell for row, cell in zip(cells, ran, strict=True) if row["value"] == values[0]]
        ),
        "seconds": round(time.perf_counter() - started, 1),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "figure.svg", study_figure(study, result))
    write_text(out / "study.md", as_markdown(study, result))
    write_json(out / "study.json", result)
    return result


def over_optimization(study: Study, cells: Sequence[Cell], fast: bool) -> dict[str, Any]:
    """Every cell's curve by its KL coefficient, best-of-n beside them, fits with errors, and the verdict."""
    from tutelage.algorithms.best_of_n import kl_upper_bound
    from tutelage.stages.evaluate import reward_model_against_gold

    asked = study.over_optimization
    assert asked is not None
    runs = []
    for cell in cells:
        rows, config = cell.samples(asked.stage), cell.config(asked.stage)
        runs.append(run_curve(config["kl_coef"], config["seed"], rows, curve(rows, lambda r: r["gold"])))
    reward, start = (str(cells[0].results[name]["checkpoint"]) for name in (asked.reward, asked.start))
    counts = (8, 4) if fast else (asked.prompts, asked.samples)
    device = cells[0].config(asked.stage).get("device", "auto")
    table = reward_model_against_gold(reward, start, "auto", *counts, device=device)["best_of_n"]
    return summarize_runs(runs, [{**row, "kl": kl_upper_bound(row["n"])} for row in table])


def settings_at(study: Study, value: Any) -> dict[str, Any]:
    """stage.option → value at one of the values, or in one of the cases."""
    if study.vary.cases:
        return dict(study.vary.cases[value])
    return {name: put(template, value) for name, template in study.vary.set.items()}


def put(template: Any, value: Any) -> Any:
    """{value} in a text is replaced; a text that is nothing else becomes the value itself, with its type."""
    if template == "{value}":
        return value
    return template.replace("{value}", str(value)) if isinstance(template, str) else template


def summarize(cells: Sequence[Mapping[str, Any]], names: Sequence[str], values: Sequence[Any]) -> list[dict[str, Any]]:
    """Mean over seeds of each measure at each value, with Student's t interval (none for one seed)."""
    rows = []
    for value in values:
        row: dict[str, Any] = {"value": value}
        for name in names:
            row[name] = over_seeds([c[name] for c in cells if c["value"] == value])
        rows.append(row)
    return rows


def numbers(table: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, float | None]:
    """What the sentences may name: NAME.first, .last, .change, and the interval of the last value."""
    found: dict[str, float | None] = {}
    for name in names:
        first, last = table[0][name], table[-1][name]
        known = first["mean"] is not None and last["mean"] is not None
        low, high = last["ci95"] or (None, None)
        found |= {
            f"{name}.first": first["mean"],
            f"{name}.last": last["mean"],
            f"{name}.change": last["mean"] - first["mean"] if known else None,
            f"{name}.low": low,
            f"{name}.high": high,
            f"{name}.n": last["seeds"],
        }
    return found


def conclusions(study: Study, table: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sentences whose condition holds on what was measured."""
    values = numbers(table, list(study.measures))
    return [fill(one.say, values) for one in study.conclude if not one.when or holds(one.when, values, study.study)]


def as_markdown(study: Study, result: Mapping[str, Any]) -> str:
    names = list(study.measures)
    lines = [f"# {study.title}", "", study.question, ""]
    if result["fast"]:
        lines += ["A fast run, to see that everything works; its numbers say nothing.", ""]
    lines += [*(f"- {said}" for said in result["conclusions"]), ""]
    if (found := result["over_optimization"]) is not None:
        lines += [found["verdict"], ""]
        for form, fit in found["fits"].items():
            numbers = (
                f"α = {fit['alpha']:.3f} ± {fit['alpha_error']:.3f}, β = {fit['beta']:.3f} ± {fit['beta_error']:.3f}"
            )
            lines += [f"- Gao et al.'s form for {form}: {numbers} (standard errors), R² {fit['r2']:.2f}"]
        lines += [""]
    lines += ["![The figure](figure.svg)", ""]
    if study.methods is not None:
        lines += methods_as_markdown(study.methods, result["methods"])
    lines += tables_as_markdown(result["tables"])
    lines += ["| " + " | ".join([study.vary.label, *names]) + " |", "|" + "---|" * (len(names) + 1)]
    for row in result["summary"]:
        lines.append("| " + " | ".join([str(row["value"]), *(shown(row[name], ".3f") for name in names)]) + " |")
    return "\n".join([*lines, "", f"Seeds {', '.join(map(str, result['seeds']))}; {result['seconds']} s.", ""])
