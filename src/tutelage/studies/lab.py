"""`tutelage lab NAME`: predict, break RLHF on purpose, see whether it showed, and what mends it.

Every sentence of an explanation has a condition on this run's own numbers; an effect counts where it holds on most
resamples of the held-out prompts, and where it does not, the lesson says so.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.errors import UserError, did_you_mean
from tutelage.evaluation.overoptimization import curve, curve_intervals
from tutelage.report.lesson import render_lesson
from tutelage.runs import write_json, write_text
from tutelage.runs.lock import lock_folder
from tutelage.studies.cells import run_cell
from tutelage.studies.conditions import holds
from tutelage.studies.measures import Cell, over_seeds, prompt_weights
from tutelage.studies.schema import Scenario, fill
from tutelage.studies.study import check_settings

DIRECTIONS = ("up", "flat", "down")
WATCHED = ("gold", "proxy", "kl", "length")
GUARDS = {"gate": "ppo.force"}  # what a scenario may bypass by name, and the option that does it


def settings_of(scenario: Scenario, knobs: Mapping[str, Any], *, fast: bool) -> dict[str, Any]:
    """stage.option → value of the broken run: the knobs as they are or were turned, and what bypasses guards."""
    for name, value in knobs.items():
        knob = scenario.knobs.get(name)
        if knob is None:
            near = did_you_mean(name, list(scenario.knobs))
            raise UserError(
                f"there is no knob {name!r}{near}",
                where=f"lab {scenario.scenario}",
                mend=f"turn: {', '.join(scenario.knobs)}",
            )
        if (
            knob.min is not None
            and knob.max is not None
            and not (isinstance(value, int | float) and knob.min <= value <= knob.max)
        ):
            raise UserError(f"{value!r} is out of range", where=f"knob {name}", mend=f"give {knob.min} to {knob.max}")
    unknown = [name for name in scenario.bypass if name not in GUARDS]
    if unknown:
        raise UserError(
            f"cannot bypass {unknown[0]!r}", where=f"lab {scenario.scenario}", mend=f"use: {', '.join(GUARDS)}"
        )
    turned = {name: knobs.get(name, knob.value) for name, knob in scenario.knobs.items()}
    return {**(scenario.fast if fast else {}), **{GUARDS[name]: True for name in scenario.bypass}, **turned}


def check_guesses(scenario: Scenario, guesses: Mapping[str, Any], sure: int | None) -> None:
    known = {question.id: question for question in scenario.predict}
    for name, guess in guesses.items():
        if name not in known:
            raise UserError(
                f"there is no question {name!r}{did_you_mean(name, list(known))}",
                where="prediction",
                mend=f"answer: {', '.join(known)}",
            )
        good = guess in DIRECTIONS if known[name].kind == "direction" else isinstance(guess, int | float)
        if not good:
            raise UserError(
                f"{guess!r} is no answer",
                where=f"question {name}",
                mend="up, flat or down; a number where one is asked",
            )
    if sure is not None and not 50 <= sure <= 100:
        raise UserError(f"{sure} %", where="how sure", mend="give 50 to 100")


def run_lesson(
    scenario: Scenario,
    out: Path,
    store: Path,
    *,
    knobs: Mapping[str, Any] | None = None,
    guesses: Mapping[str, Any] | None = None,
    sure: int | None = None,
    seeds: Sequence[int] = (0,),
    model: str = "world",
    fast: bool = False,
) -> dict[str, Any]:
    """Run broken and mended; returns what was predicted, measured and explained, and writes it to OUT/lesson.json and
    OUT/lesson.html. A run that was stopped goes on when it is begun again with the same options."""
    started = time.perf_counter()
    guesses = dict(guesses or {})
    where = f"lab {scenario.scenario}"
    check_guesses(scenario, guesses, sure)
    broken = settings_of(scenario, knobs or {}, fast=fast)
    mended = {**broken, **{k: v for mend in scenario.mend for k, v in mend.set.items()}}
    check_settings({**broken, **mended}, scenario.stages, where)
    out.mkdir(parents=True, exist_ok=True)
    with lock_folder(out):
        locked = {"scenario": scenario.scenario, "guesses": guesses, "sure": sure, "settings": broken}
        write_json(out / "guess.json", locked)

        def run(settings: Mapping[str, Any]) -> list[Cell]:
            return [run_cell(scenario.stages, settings, model=model, seed=s, store=store, where=where) for s in seeds]

        cells = run(broken)
        others = run(mended) if scenario.mend else []
        result = {
            **concluded(scenario, cells, others, guesses),
            "settings": broken,
            "seeds": [*seeds],
            "sure": sure,
            "fast": fast,
            "seconds": round(time.perf_counter() - started, 1),
        }
        result["said"] = said(result)
        write_json(out / "lesson.json", result)
        write_text(out / "lesson.html", render_lesson(result))
    return result


def concluded(
    scenario: Scenario, cells: Sequence[Cell], others: Sequence[Cell], guesses: Mapping[str, Any]
) -> dict[str, Any]:
    """What the broken runs (a seed each) and the mended ones come to."""
    values = average([measured(scenario, cell) for cell in cells])
    draws = [resampled(scenario, cell) for cell in cells]
    effects = {name: effect_share(scenario, name, draws) for name in scenario.effects}
    shown = {name: share >= scenario.effects[name].level for name, share in effects.items() if share is not None}
    mended_draws = [resampled(scenario, cell) for cell in others]
    return {
        "scenario": scenario.scenario,
        "title": scenario.title,
        "about": scenario.about,
        "measures": values,
        "measures_ci95": intervals(scenario, cells, draws),
        "mended": average([measured(scenario, cell) for cell in others]) if others else None,
        "mended_ci95": intervals(scenario, others, mended_draws) if others else None,
        "effects": {name: {"share": effects[name], "shown": shown.get(name)} for name in effects},
        "explanation": explain(scenario, values, shown),
        "tripped": tripped(cells[0]),
        "predictions": score(scenario, guesses, values),
        "why_mend": [mend.why for mend in scenario.mend],
        "curves": {"broken": watched(scenario, cells[0]), "mended": watched(scenario, others[0]) if others else {}},
        "texts": texts(cells[0], others[0] if others else None),
    }


def measured(scenario: Scenario, cell: Cell) -> dict[str, float | None]:
    return {name: cell.measure(row) for name, row in scenario.measures.items()}


def average(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Means over seeds; None where a seed has none."""
    found: dict[str, float | None] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        known = [value for value in values if value is not None]
        found[name] = sum(known) / len(known) if len(known) == len(values) else None
    return found


def resampled(scenario: Scenario, cell: Cell) -> list[dict[str, float | None]]:
    """The measures of the bootstrap's draws of held-out prompts; one draw where no measure is taken on prompts."""
    fixed = measured(scenario, cell)
    on_prompts = {name: row for name, row in scenario.measures.items() if "curve" in row}
    if not on_prompts:
        return [fixed]
    stages = [str(row.get("stage", "ppo")) for row in on_prompts.values()]
    weights = prompt_weights([row["prompt_id"] for row in cell.samples(stages[0])])
    return [{**fixed, **{name: cell.measure(row, w) for name, row in on_prompts.items()}} for w in weights]


def effect_share(scenario: Scenario, name: str, draws: Sequence[Sequence[Mapping[str, Any]]]) -> float | None:
    """On what share of resamples of the held-out prompts (and seeds) the effect's condition holds; None if unknown.

    draws: `resampled` of each seed. One that names no measure on prompts holds or does not: the draws do not differ.
    """
    found = [holds(scenario.effects[name].when, draw, f"effect {name}") for some in draws for draw in some]
    shares = [bool(one) for one in found if one is not None]
    return sum(shares) / len(shares) if shares else None


def intervals(
    scenario: Scenario, cells: Sequence[Cell], draws: Sequence[Sequence[Mapping[str, float | None]]]
) -> dict[str, list[float] | None]:
    """Of each measure: over the seeds where there are several (Student's t), else over the held-out prompts.

    None for what one seed cannot tell: a number of the training log.
    """
    found: dict[str, list[float] | None] = {}
    for name, row in scenario.measures.items():
        if len(cells) > 1:
            found[name] = over_seeds([cell.measure(row) for cell in cells])["ci95"]
        elif "curve" in row:
            known = [value for draw in draws[0] if (value := draw[name]) is not None]
            found[name] = [float(q) for q in np.quantile(known, [0.025, 0.975])] if len(known) > 1 else None
        else:
            found[name] = cells[0].interval(row)
    return found


def explain(scenario: Scenario, values: Mapping[str, float | None], shown: Mapping[str, bool]) -> list[str]:
    """The sentences whose conditions hold; one on an effect that could not be measured is left out."""
    known = {**values, **shown}
    return [fill(one.say, values) for one in scenario.explain if not one.when or holds(one.when, known, "explain")]


def direction(value: float, flat: float) -> str:
    return "up" if value > flat else "down" if value < -flat else "flat"


def score(scenario: Scenario, guesses: Mapping[str, Any], values: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Each question with the guess, what came, and whether the guess was right (None without either)."""
    rows = []
    for question in scenario.predict:
        value, guess = values[question.of], guesses.get(question.id)
        came = None if value is None else direction(value, question.flat) if question.kind == "direction" else value
        right = None
        if guess is not None and came is not None:
            right = guess == came if isinstance(came, str) else abs(guess - came) <= question.within
        rows.append({"id": question.id, "ask": question.ask, "guess": guess, "came": came, "right": right})
    return rows


def said(result: Mapping[str, Any]) -> str:
    """ "3 of 4; you were 80 % sure"; nothing where nothing was predicted."""
    judged = [row["right"] for row in result["predictions"] if row["right"] is not None]
    if not judged:
        return ""
    sure = f"; you were {result['sure']} % sure" if result["sure"] is not None else ""
    return f"{sum(judged)} of {len(judged)} right{sure}"


def tripped(cell: Cell) -> list[str]:
    """Guards that would have stopped this run."""
    return [
        f"{stage}: the reward model's gate {card['gate']}"
        for stage, result in cell.results.items()
        if isinstance(card := result.get("reward_model"), Mapping) and card.get("gate") not in (None, "passed")
    ]


def watched(scenario: Scenario, cell: Cell) -> dict[str, list[dict[str, Any]]]:
    """Curves of the on-policy stages that the scenario watches, by stage; each mean with its interval over prompts."""
    found = {}
    for stage, folder in cell.folders.items():
        if (folder / "samples.jsonl").exists():
            points = curve(cell.samples(stage), lambda r: r["gold"])
            ends = curve_intervals(cell.samples(stage), lambda r: r["gold"])
            found[stage] = [
                {k: p[k] for k in ("step", *scenario.watch)} | {"ci95": {k: e[k] for k in scenario.watch}}
                for p, e in zip(points, ends, strict=True)
            ]
    return found


def texts(broken: Cell, mended: Cell | None, count: int = 4) -> list[dict[str, Any]]:
    """The last answers to the same held-out prompts, where they differ most in gold from the mended ones."""
    stage = next((s for s, folder in broken.folders.items() if (folder / "samples.jsonl").exists()), None)
    if stage is None:
        return []
    last = {row["prompt_id"]: row for row in broken.samples(stage)}  # later rows win
    beside = {row["prompt_id"]: row for row in mended.samples(stage)} if mended else {}
    rows = [
        {
            "prompt_id": name,
            "prompt": row.get("prompt", ""),
            "broken": row["text"],
            "gold": row["gold"],
            "mended": beside.get(name, {}).get("text"),
            "mended_gold": beside.get(name, {}).get("gold"),
        }
        for name, row in last.items()
    ]
    return sorted(rows, key=lambda r: r["gold"] - (r["mended_gold"] or 0.0))[:count]
