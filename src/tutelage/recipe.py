"""A recipe: the ordered list of a run's stages, each with its departures from the defaults.

A stage's name may stand wherever a checkpoint or a data file is expected (`model: sft`); it is replaced
by what that stage writes. Torch-free: a recipe can be checked without loading anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from tutelage.cluster.placement import check_placement
from tutelage.configs import STAGES, EvalConfig, StageConfig, TrainingConfig, from_mapping
from tutelage.configs.cluster import ClusterConfig
from tutelage.constitutions import load_constitution
from tutelage.errors import UserError, did_you_mean
from tutelage.named_data import local_data
from tutelage.verbs import FAMILY, GROUP

TOP_KEYS = ("version", "name", "seed", "model", "data", "out", "cluster", "stages")
AGAINST_REWARD = ("ppo", *GROUP, "rejection")
POLICIES = ("sft", *AGAINST_REWARD, *FAMILY, "cai")
FROM_SFT = ("sample", *AGAINST_REWARD, *FAMILY)  # start from the SFT model, if there is one
FROM_LABELS = ("reward", *FAMILY)
OUTPUT_FILES = {
    "sample": "completions.jsonl",
    "label": "comparisons.jsonl",
    "cai-label": "comparisons.jsonl",
    "step-label": "steps.jsonl",
    "score": "scores.jsonl",
}
# What a stage cannot begin without.
NEEDED = dict.fromkeys(AGAINST_REWARD, ("reward_model",)) | {"cai": ("policy",), "cai-label": ("critic",)}
# Options that may name an earlier stage.
PLACES = {"model", "data", "reward_model", "ptx_data", "reference", "policy", "critic", "mix", "human", "prm", "orm"}


@dataclass(frozen=True)
class Recipe:
    """Resolved: each stage has its name, its verb and its config with every path filled in."""

    name: str
    path: str
    seed: int
    model: str
    data: str
    out: Path
    stages: list[tuple[str, str, StageConfig]]
    cluster: ClusterConfig | None = None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping."""
    if not path.exists():
        raise UserError("there is no such file", where=str(path), mend="check the path; recipes are in recipes/")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"is not YAML ({' '.join(str(error).split())})", where=str(path), mend="mend the line it names"
        ) from error
    if not isinstance(content, dict):
        raise UserError("does not hold a mapping", where=str(path), mend="write key: value lines")
    return content


def load_recipe(
    path: Path,
    *,
    model: str | None = None,
    data: str | None = None,
    out: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    stage_options: Mapping[str, Mapping[str, str]] | None = None,
) -> Recipe:
    """Parse and resolve a recipe; the options replace its own model, data, out and seed.

    stage_options: {stage: {option: text}}, as typed on a command line, on top of the stages' own options; of `cluster`,
    on top of the block's.
    """
    content = read_yaml(path)
    for key in content:
        if key not in TOP_KEYS:
            raise UserError(
                f"unknown key {key!r}{did_you_mean(str(key), list(TOP_KEYS))}",
                where=str(path),
                mend=f"use one of: {', '.join(TOP_KEYS)}",
            )
    if content.get("version", 1) != 1:
        raise UserError(f"version {content['version']!r} is not known", where=str(path), mend="write version: 1")
    for key, kind in (("name", str), ("seed", int), ("model", str), ("data", str), ("out", str)):
        if not isinstance(content.get(key, kind()), kind):
            what = f"{content[key]!r} is not of type {kind.__name__}"
            raise UserError(what, where=f"{path}, key {key}", mend=f"give a {kind.__name__}")
    entries = content.get("stages")
    if not isinstance(entries, list) or not entries:
        raise UserError("has no stages", where=f"{path}, key stages", mend="list them: - sft: {epochs: 2}")
    name = str(content.get("name", path.stem))
    asked = {stage: dict(options) for stage, options in (stage_options or {}).items()}
    recipe = Recipe(
        name=name,
        path=str(path),
        seed=seed if seed is not None else content.get("seed", 0),
        model=model or content.get("model", "world"),
        data=local_data(data or content.get("data", "world")),
        out=Path(out or content.get("out") or f"runs/{name}").expanduser(),
        stages=[],
        cluster=_cluster(content.get("cluster"), asked.pop("cluster", {}), str(path)),
    )
    produced: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        where = f"{path}, stage {number}"
        verb, values = stage_entry(entry, where)
        stage = str(values.pop("name", verb))
        if not stage or set(stage) & set("/\\= ") or stage.startswith("."):
            raise UserError(f"{stage!r} cannot name a folder", where=f"{where}, key name", mend="use letters and -")
        if stage in produced:
            raise UserError(f"two stages are called {stage}", where=where, mend="give one another name")
        values |= {key: from_text(text) for key, text in asked.pop(stage, {}).items()}
        recipe.stages.append(
            (stage, verb, resolve_stage(recipe, stage, verb, values, produced, where, resume, max_steps))
        )
        folder = recipe.out / stage
        produced[stage] = str(folder / OUTPUT_FILES[verb] if verb in OUTPUT_FILES else folder)
    if asked:
        stage = next(iter(asked))
        near = did_you_mean(stage, list(produced))
        raise UserError(
            f"has no stage {stage!r}{near}, so --{stage}.… sets nothing",
            where=str(path),
            mend=f"its stages are: {', '.join(produced)}",
        )
    if recipe.cluster:
        check_placement(recipe.cluster, recipe.stages)
    return recipe


def _cluster(values: Any, typed: Mapping[str, str], path: str) -> ClusterConfig | None:
    """The block, with what was typed (--cluster.samplers 4) on top; None where there is neither."""
    if values is None and not typed:
        return None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"{values!r} is no mapping", where=f"{path}, key cluster", mend="write: cluster: {samplers: 2}")
    given = {str(key).replace("-", "_"): value for key, value in values.items()}
    given |= {key: from_text(text) for key, text in typed.items()}
    return from_mapping(ClusterConfig, given, where=f"{path}, cluster")


def check_models(recipe: Recipe) -> None:
    """Every model is there or made by an earlier stage: better known now than after the hours before its stage."""
    for stage, verb, config in recipe.stages:
        where = f"{recipe.path}, stage {stage}"
        for key in NEEDED.get(verb, ()):
            if getattr(config, key, None) is None:
                what = f"has no {key.replace('_', ' ')}"
                raise UserError(what, where=where, mend=f"put a stage before it that makes one, or give {key}")
        for key in ("model", "reward_model", "policy", "reference", "critic", "prm", "orm"):
            value = str(getattr(config, key, None) or "world").removeprefix("local:")
            asked = key == "critic" and value.startswith(("openai:", "anthropic:"))
            made = recipe.out in Path(value).parents
            if value != "world" and not asked and not made and not Path(value).expanduser().exists():
                mend = "give a Hugging Face folder, or an earlier stage"
                raise UserError(f"there is no model {value!r}", where=f"{where}, key {key}", mend=mend)
        if constitution := getattr(config, "constitution", None):
            load_constitution(constitution)


def from_text(text: str) -> Any:
    """A value as typed on a command line, read as YAML reads it."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def stage_entry(entry: Any, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise UserError("is not `verb: {options}`", where=where, mend="write - sft: {epochs: 2}")
    verb, values = next(iter(entry.items()))
    if verb not in STAGES:
        raise UserError(
            f"unknown stage {verb!r}{did_you_mean(str(verb), list(STAGES))}",
            where=where,
            mend=f"use one of: {', '.join(STAGES)}",
        )
    if values is not None and not isinstance(values, dict):
        raise UserError("its options are no mapping", where=where, mend="write - sft: {epochs: 2}")
    return verb, dict(values or {})


def resolve_stage(
    recipe: Recipe,
    stage: str,
    verb: str,
    values: dict[str, Any],
    produced: dict[str, str],
    where: str,
    resume: bool,
    max_steps: int | None,
) -> StageConfig:
    """Fill in what the recipe gives every stage, and replace names of stages by what they write."""
    cls = STAGES[verb]
    explicit = from_mapping(cls, values, where=f"{where} ({verb})")
    given = {key.replace("-", "_") for key in values}
    folder = recipe.out / stage
    changes: dict[str, Any] = {"out": str(folder / OUTPUT_FILES[verb] if verb in OUTPUT_FILES else folder)}
    defaults: dict[str, Any] = {"seed": recipe.seed, "model": recipe.model, "data": recipe.data}
    names = {f.name for f in fields(cls)}
    if verb in FROM_SFT and "sft" in produced:
        defaults["model"] = produced["sft"]
    if verb == "cai" and "sft" in produced:
        defaults["policy"] = produced["sft"]
    if verb == "sample":
        defaults["split"] = "train"  # the report's prompts are kept for the report
    if verb == "label" and "sample" in produced:
        defaults["data"] = produced["sample"]
    if verb in FROM_LABELS and "label" in produced and recipe.data == "world":
        defaults["data"] = produced["label"]
    if verb in (*AGAINST_REWARD, "eval") and "reward" in produced:
        defaults["reward_model"] = produced["reward"]
    if verb == "eval":
        policies = [s for s, v, _ in recipe.stages if v in POLICIES]
        defaults["models"] = (f"base={recipe.model}", *(f"{s}={produced[s]}" for s in policies))
    changes |= {key: value for key, value in defaults.items() if key in names and key not in given}
    for key in given & PLACES:
        value = getattr(explicit, key)
        if value in produced:
            changes[key] = produced[value]
    if isinstance(explicit, EvalConfig) and explicit.models:
        changes["models"] = tuple(_member(one, recipe.model, produced) for one in explicit.models)
    if issubclass(cls, TrainingConfig):
        changes["resume"] = resume
        if max_steps is not None:
            changes["max_steps"] = max_steps
    return replace(explicit, **changes)


def _member(one: str, base: str, produced: dict[str, str]) -> str:
    """`ppo` and `mine=ppo` → `ppo=FOLDER` and `mine=FOLDER`; `base` is the recipe's model."""
    name, equals, place = one.partition("=")
    place = place if equals else name
    known = {"base": base, **produced}
    return f"{name}={known.get(place, place)}"


def skips(recipe: Recipe) -> set[str]:
    """Stages that the data makes needless: with comparisons of one's own nothing is sampled for labeling."""
    needless = OUTPUT_FILES.keys() - {"score"}
    return set() if recipe.data == "world" else {stage for stage, verb, _ in recipe.stages if verb in needless}
