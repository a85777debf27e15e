"""Runs the cells of a study or lesson. A stage's folder is named by what it is made of: equal stages run once."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tutelage.configs import STAGES, to_mapping
from tutelage.errors import UserError, did_you_mean
from tutelage.recipe import OUTPUT_FILES, Recipe, resolve_stage, stage_entry
from tutelage.runs import finished, write_json
from tutelage.studies.measures import Cell
from tutelage.studies.preparations import PREPARATIONS

NOT_CONTENT = ("out", "resume", "json", "dry_run")
Settings = Mapping[str, Any]  # "stage.option" → value


def split(settings: Settings, where: str) -> dict[str, dict[str, Any]]:
    """{"ppo.kl_coef": 0} → {"ppo": {"kl_coef": 0}}."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        stage, dot, option = name.partition(".")
        if not dot:
            raise UserError(f"{name!r} is no stage.option", where=where, mend="write ppo.kl_coef: 0")
        found.setdefault(stage, {})[option.replace("-", "_")] = value
    return found


def run_cell(stages: Sequence[Any], settings: Settings, *, model: str, seed: int, store: Path, where: str) -> Cell:
    """Run the stages with the settings over their own options; what an equal stage made before is used again."""
    recipe = Recipe(where, where, seed, model, "world", store, [])
    base = identity(model)
    asked = split(settings, where)
    produced: dict[str, str] = {}
    folders: dict[str, Path] = {}
    results: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(stages, 1):
        place = f"{where}, stage {number}"
        verb = next(iter(entry)) if isinstance(entry, dict) and len(entry) == 1 else entry
        own = verb in PREPARATIONS
        verb, values = (verb, dict(entry[verb] or {})) if own else stage_entry(entry, place)
        stage = str(values.pop("name", verb))
        values |= asked.pop(stage, {})
        if own:
            folder = store / f"{stage}-{_key(verb, {'seed': seed, **_replaced(values, produced)}, base)}"
            run = _preparation(verb, _replaced(values, produced), folder, seed, model)
            output = folder
        else:
            config = resolve_stage(recipe, stage, verb, values, produced, place, False, None)
            content = {k: v for k, v in to_mapping(config).items() if k not in NOT_CONTENT}
            folder = store / f"{stage}-{_key(verb, content, base)}"
            output = folder / OUTPUT_FILES[verb] if verb in OUTPUT_FILES else folder
            fresh: dict[str, Any] = {"out": str(output)}
            if "resume" in to_mapping(config):
                fresh["resume"] = True
            config = replace(config, **fresh)
            recipe.stages.append((stage, verb, config))
            run = _stage(store, folder.name, verb, config)
        done = finished(folder)
        if done is None:
            print(f"{where}: {stage} → {folder.name}", file=sys.stderr)
            done = run()
        produced[stage] = str(done.get("out", output)) if own else str(output)
        folders[stage], results[stage] = folder, done
    if asked:
        stage = next(iter(asked))
        raise UserError(
            f"has no stage {stage!r}{did_you_mean(stage, list(folders))}",
            where=where,
            mend=f"its stages: {', '.join(folders)}",
        )
    return Cell(folders, results)


def _stage(store: Path, name: str, verb: str, config: Any) -> Callable[[], dict[str, Any]]:
    def run() -> dict[str, Any]:
        from tutelage.stages.recipe_run import run_stage

        store.mkdir(parents=True, exist_ok=True)
        return run_stage(store, name, verb, config)

    return run


def _preparation(
    verb: str, values: dict[str, Any], folder: Path, seed: int, model: str
) -> Callable[[], dict[str, Any]]:
    def run() -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        done = {"seconds": 0.0, **PREPARATIONS[verb](folder, **{"seed": seed, "model": model, **values})}
        write_json(folder / "summary.json", done)
        return done

    return run


def _replaced(values: Mapping[str, Any], produced: Mapping[str, str]) -> dict[str, Any]:
    """Options with the names of earlier stages replaced by what they wrote."""
    return {key: produced.get(value, value) if isinstance(value, str) else value for key, value in values.items()}


def identity(model: str) -> str:
    """A hash of the base model: with another one, nothing that was made before is used again."""
    from tutelage.models import resolve
    from tutelage.runs.lineage import folder_hash

    return folder_hash(resolve(model))


def _key(verb: str, content: Mapping[str, Any], base: str) -> str:
    text = json.dumps([verb, content, base], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def known_options(stages: Sequence[Any]) -> set[str]:
    """Every stage.option that a file's stages have, to check its settings without running anything."""
    from dataclasses import fields

    found: set[str] = set()
    for entry in stages:
        verb = next(iter(entry)) if isinstance(entry, dict) else entry
        values = (entry[verb] or {}) if isinstance(entry, dict) else {}
        stage = str(values.get("name", verb))
        options = [f.name for f in fields(STAGES[verb])] if verb in STAGES else list(PREPARATIONS_OPTIONS.get(verb, ()))
        found |= {f"{stage}.{name}" for name in options}
    return found


PREPARATIONS_OPTIONS = {
    "build": ("size", "tokens", "seed", "good"),
    "retemplate": ("of", "style"),
    "select": ("of", "harmful"),
}
