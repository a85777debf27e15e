"""Numbers out of what the stages of a cell wrote. A measure is one line of a study's file; see KINDS."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tutelage.errors import UserError
from tutelage.evaluation.intervals import mean_interval
from tutelage.evaluation.overoptimization import curve
from tutelage.runs.files import read_log

# kind → its other keys.
KINDS: dict[str, tuple[str, ...]] = {
    "curve": ("stage", "at"),  # gold, proxy, kl or length on held-out prompts along a PPO run
    "metric": ("stage", "at", "until"),  # a name of metrics.jsonl
    "win_rate": ("by", "key", "stage"),  # [policy, baseline]
    "behavior": ("of", "stage"),  # of a model, as eval names it
    "corpus_loss": ("stage",),  # of a model
    "card": ("stage",),  # a number of a reward model's report card
    "result": ("stage",),  # any number that a stage returned; inside of it by dots, an item of a list by its number
}
POINTS = ("first", "last", "change", "max", "min", "mean", "best", "since_best", "kl_of_best")
STAGE_OF = {
    "curve": "ppo",
    "metric": "ppo",
    "win_rate": "eval",
    "behavior": "eval",
    "corpus_loss": "eval",
    "card": "reward",
}
RESAMPLES = 200


def stage_measured(row: Mapping[str, Any]) -> str:
    """The stage whose output a measure reads."""
    kind = next((kind for kind in KINDS if kind in row), "")
    return str(row.get("stage", STAGE_OF.get(kind, "")))


class Cell:
    """One run of a recipe: where each stage's folder is, and what it returned."""

    def __init__(self, folders: Mapping[str, Path], results: Mapping[str, Mapping[str, Any]]):
        self.folders, self.results = folders, results
        self._samples: dict[str, list[dict[str, Any]]] = {}
        self._points: dict[str, tuple[Mapping[str, int] | None, list[dict[str, Any]]]] = {}

    def samples(self, stage: str) -> list[dict[str, Any]]:
        """The held-out samples of a PPO run, each with the gold judge's score, which training never saw."""
        if stage not in self._samples:
            from tutelage.world import gold
            from tutelage.world import prompts as world_prompts

            config = self.config(stage)
            asked = {p.id: p for p in world_prompts("tune", int(config["eval_prompts"]), int(config["seed"]))}
            rows = read_log(self.folders[stage] / "samples.jsonl")
            for row in rows:
                row["prompt"] = asked[row["prompt_id"]].messages[-1]["content"]
                row["gold"] = gold.score(asked[row["prompt_id"]], row["text"], row["finish"]).total
            self._samples[stage] = rows
        return self._samples[stage]

    def points(self, stage: str, weights: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
        """The means of each step, with every prompt as often as it counts; those of the last weights are kept."""
        known = self._points.get(stage)
        if known is None or known[0] is not weights:
            rows = self.samples(stage)
            if weights is not None:
                rows = [row for row in rows for _ in range(weights.get(row["prompt_id"], 0))]
            known = self._points[stage] = (weights, curve(rows, lambda r: r["gold"]) if rows else [])
        return known[1]

    def config(self, stage: str) -> dict[str, Any]:
        """Every effective option of a stage."""
        return yaml.safe_load((self.folders[stage] / "config.yaml").read_text(encoding="utf-8"))

    def measure(self, row: Mapping[str, Any], weights: Mapping[str, int] | None = None) -> float | None:
        """A number, or None where the cell has none. weights: how often each prompt counts (the bootstrap's)."""
        kind = next(kind for kind in KINDS if kind in row)
        stage = stage_measured(row)
        if stage not in self.results:
            raise UserError(f"there is no stage {stage!r} to measure", mend=f"use one of: {', '.join(self.results)}")
        result = self.results[stage]
        if kind == "curve":
            return _on_curve(self.points(stage, weights), str(row["curve"]), str(row.get("at", "last")))
        if kind == "metric":
            return _on_log(read_log(self.folders[stage] / "metrics.jsonl"), row)
        if kind == "win_rate":
            return _win_rate(result, row)
        if kind == "behavior":
            entry = (result["behaviours"].get(row["of"]) or {}).get(row["behavior"])
            return _number(entry["value"] if isinstance(entry, Mapping) else entry)
        if kind == "corpus_loss":
            return _number(result["corpus_loss"].get(row["corpus_loss"]))
        if kind == "card":
            return _number(result["reward_model"].get(row["card"]))
        return _number(_inside(result, str(row["result"])))

    def interval(self, row: Mapping[str, Any]) -> list[float] | None:
        """The 95 % interval that a stage gave beside the number; None where it gave none, or on a curve."""
        kind = next(kind for kind in KINDS if kind in row)
        result = self.results[stage_measured(row)]
        if kind == "win_rate":
            return _win_rate_interval(result, row)
        if kind in ("behavior", "corpus_loss"):
            name, model = (row[kind], row["of"]) if kind == "behavior" else ("corpus_loss", row[kind])
            entry = (result["behaviours"].get(model) or {}).get(name)
            return _ends(entry.get("ci95")) if isinstance(entry, Mapping) else None
        if kind in ("card", "result"):
            where = result["reward_model"] if kind == "card" else result
            path = str(row[kind])
            beside = f"{path.rpartition('.')[0]}.ci95".lstrip(".") if path.endswith(".value") else f"{path}_ci95"
            beside = "ci95" if kind == "card" and path == "accuracy" else beside
            return _ends(_inside(where, beside))
        return None


def _ends(value: Any) -> list[float] | None:
    """An interval as a list; None for anything else."""
    return [*map(float, value)] if isinstance(value, list | tuple) and len(value) == 2 else None


def _inside(result: Any, path: str) -> Any:
    """The value at a path such as best_of_n.-1.majority.value, -1 being a list's last item; None where it leads nowhere."""
    for name in path.split("."):
        if isinstance(result, list) and name.lstrip("-").isdigit():
            place = int(name)
            result = result[place] if -len(result) <= place < len(result) else None
        else:
            result = result.get(name) if isinstance(result, Mapping) else None
    return result


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _on_curve(points: Sequence[Mapping[str, Any]], name: str, at: str) -> float | None:
    if not points:
        return None
    best = max(points, key=lambda p: p["gold"])
    if at == "kl_of_best":
        return float(best["kl"])
    if at == "best":
        return float(best[name])
    if at == "since_best":
        return float(points[-1][name] - best[name])
    return _at([float(p[name]) for p in points], at)


def _on_log(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> float | None:
    until = row.get("until")
    kept = [r for r in rows if until is None or r["step"] <= until]
    values = [float(r[row["metric"]]) for r in kept if isinstance(r.get(row["metric"]), int | float)]
    return _at(values, str(row.get("at", "last"))) if values else None


def _at(values: Sequence[float], at: str) -> float | None:
    found = {
        "first": values[0],
        "last": values[-1],
        "change": values[-1] - values[0],
        "max": max(values),
        "min": min(values),
        "mean": sum(values) / len(values),
    }
    return found.get(at)


def _win_rate(result: Mapping[str, Any], row: Mapping[str, Any]) -> float | None:
    """Of [policy, baseline] by a judge, mirrored where the pair was measured the other way."""
    policy, baseline = row["win_rate"]
    judge, key = row.get("by", "gold"), row.get("key", "win_rate")
    for one in result["win_rates"]:
        if one["judge"] == judge and {one["policy"], one["baseline"]} == {policy, baseline}:
            value = one.get(key)
            value = _number(value["win_rate"] if isinstance(value, Mapping) else value)
            mirrored = one["policy"] != policy and key in ("win_rate", "length_controlled")
            return 1 - value if value is not None and mirrored else value
    return None


def _win_rate_interval(result: Mapping[str, Any], row: Mapping[str, Any]) -> list[float] | None:
    """Of what `_win_rate` finds."""
    policy, baseline = row["win_rate"]
    judge, key = row.get("by", "gold"), row.get("key", "win_rate")
    for one in result["win_rates"]:
        if one["judge"] == judge and {one["policy"], one["baseline"]} == {policy, baseline}:
            value = one.get(key)
            beside = one.get("ci95" if key == "win_rate" else f"{key}_ci95")
            ends = _ends(value.get("ci95") if isinstance(value, Mapping) else beside)
            mirrored = one["policy"] != policy and key in ("win_rate", "length_controlled")
            return [1 - ends[1], 1 - ends[0]] if ends is not None and mirrored else ends
    return None


def over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean of what was measured with Student's t interval (none for one seed), and of how many seeds."""
    known = [value for value in values if value is not None]
    mean, low, high = mean_interval(known) if known else (None, None, None)
    return {"mean": mean, "ci95": [low, high] if len(known) > 1 else None, "seeds": len(known)}


def shown(entry: Mapping[str, Any] | None, form: str, *, ends: bool = True) -> str:
    """What `over_seeds` found, as a table's cell: the mean, its interval where there is one, a dash for nothing."""
    if entry is None or entry["mean"] is None:
        return "–"
    interval = f" ({entry['ci95'][0]:{form}} to {entry['ci95'][1]:{form}})" if ends and entry["ci95"] else ""
    return f"{entry['mean']:{form}}{interval}"


def prompt_weights(prompts: Sequence[str], seed: int = 0, resamples: int = RESAMPLES) -> list[dict[str, int]]:
    """Bootstrap draws of prompts, with replacement: how often each counts."""
    rng = random.Random(f"bootstrap {seed}")
    names = list(dict.fromkeys(prompts))
    draws = []
    for _ in range(resamples):
        drawn: dict[str, int] = {}
        for name in rng.choices(names, k=len(names)):
            drawn[name] = drawn.get(name, 0) + 1
        draws.append(drawn)
    return draws
