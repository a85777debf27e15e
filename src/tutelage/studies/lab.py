"""`tutelage lab NAME`: predict, break RLHF on purpose, see whether it showed, and what mends it.

Every sentence of an explanation has a condition on this run's own numbers; an effect counts where it holds on most
resamples of the held-out prompts, and where it does not, the lesson says so.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.errors import UserError, did_you_mean
from tutelage.evaluation.overoptimization import curve
from tutelage.runs import write_json
from tutelage.studies.cells import run_cell
from tutelage.studies.conditions import holds, names_in
from tutelage.studies.measures import Cell, prompt_weights
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
    """Run broken and mended; returns (and writes to OUT/lesson.json) what was predicted, measured and explained."""
    started = time.perf_counter()
    guesses = dict(guesses or {})
    where = f"lab {scenario.scenario}"
    check_guesses(scenario, guesses, sure)
    broken = settings_of(scenario, knobs or {}, fast=fast)
    mended = {**broken, **{k: v for mend in scenario.mend for k, v in mend.set.items()}}
    check_settings({**broken, **mended}, scenario.stages, where)
    out.mkdir(parents=True, exist_ok=True)
    write_json(
        out / "guess.json", {"scenario": scenario.scenario, "guesses": guesses, "sure": sure, "settings": broken}
    )

    def run(settings: Mapping[str, Any]) -> list[Cell]:
        return [run_cell(scenario.stages, settings, model=model, seed=s, store=store, where=where) for s in seeds]

    cells = run(broken)
    others = run(mended) if scenario.mend else []
    values = average([measured(scenario, cell) for cell in cells])
    effects = {name: effect_share(scenario, name, cells) for name in scenario.effects}
    shown = {name: share >= scenario.effects[name].level for name, share in effects.items() if share is not None}
    result = {
        "scenario": scenario.scenario,
        "title": scenario.title,
        "settings": broken,
        "seeds": [*seeds],
        "measures": values,
        "mended": average([measured(scenario, cell) for cell in others]) if others else None,
        "effects": {name: {"share": effects[name], "shown": shown.get(name)} for name in effects},
        "explanation": explain(scenario, values, shown),
        "tripped": tripped(cells[0]),
        "predictions": score(scenario, guesses, values),
        "sure": sure,
        "why_mend": [mend.why for mend in scenario.mend],
        "curves": {"broken": watched(scenario, cells[0]), "mended": watched(scenario, others[0]) if others else {}},
        "texts": texts(cells[0], others[0] if others else None),
        "fast": fast,
        "seconds": round(time.perf_counter() - started, 1),
    }
    result["said"] = said(result)
    write_json(out / "lesson.json", result)
    return result


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


def effect_share(scenario: Scenario, name: str, cells: Sequence[Cell]) -> float | None:
    """On what share of resamples of the held-out prompts (and seeds) the effect's condition holds; None if unknown."""
    effect, shares = scenario.effects[name], []
    named = names_in(effect.when)
    curves = {n: row for n, row in scenario.measures.items() if "curve" in row and n in named}
    for cell in cells:
        fixed = measured(scenario, cell)
        if not curves:
            draws: list[dict[str, float | None]] = [fixed]
        else:
            stage = str(next(iter(curves.values())).get("stage", "ppo"))
            weights = prompt_weights([row["prompt_id"] for row in cell.samples(stage)])
            draws = [{**fixed, **{n: cell.measure(row, w) for n, row in curves.items()}} for w in weights]
        found = [holds(effect.when, draw, f"effect {name}") for draw in draws]
        shares += [bool(one) for one in found if one is not None]
    return sum(shares) / len(shares) if shares else None


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


def watched(scenario: Scenario, cell: Cell) -> dict[str, list[dict[str, float]]]:
    """Curves of the on-policy stages that the scenario watches, by stage."""
    found = {}
    for stage, folder in cell.folders.items():
        if (folder / "samples.jsonl").exists():
            points = curve(cell.samples(stage), lambda r: r["gold"])
            found[stage] = [{k: p[k] for k in ("step", *scenario.watch)} for p in points]
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
            "broken": row["text"],
            "gold": row["gold"],
            "mended": beside.get(name, {}).get("text"),
            "mended_gold": beside.get(name, {}).get("gold"),
        }
        for name, row in last.items()
    ]
    return sorted(rows, key=lambda r: r["gold"] - (r["mended_gold"] or 0.0))[:count]
