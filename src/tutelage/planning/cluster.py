"""A stage on many GPUs: memory of each, time of each phase, and the best of all splits between sampling and training.

The formulas are those of one machine (`plan`, `memory`) for the share that one GPU has; here stand what is shared out,
what goes over the network, and the search. With one GPU nothing is divided and nothing is sent.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tutelage.configs import RejectionConfig, SampleConfig, StageConfig, TrainingConfig
from tutelage.models.checkpoint import base_path_of, load_tokenizer, resolve
from tutelage.planning import memory
from tutelage.planning.gpus import Fleet
from tutelage.planning.plan import Models, OnPolicy, Planned, models_of, phases_of, seconds_of
from tutelage.planning.shape import read_shape
from tutelage.planning.work import Load, load_of

Parallel = Literal["data", "fsdp"]
Mode = Literal["shared", "synchronous", "one-step-off"]
FROZEN = 2  # reference and reward model
GRADIENT = 4  # bytes of an element that is added up over the processes: float32


@dataclass(frozen=True)
class Split:
    """Who does what. sampling, training: GPUs; shared: the same ones do both in turn. scoring: GPUs that hold the frozen
    models instead of those that train."""

    sampling: int
    training: int
    parallel: Parallel
    mode: Mode
    scoring: int = 0


@dataclass(frozen=True)
class SplitPlan:
    """One split's plan: bytes of a GPU in each phase, seconds of each phase of the whole stage."""

    split: Split
    rows: int
    phases: dict[str, int]
    times: dict[str, float]
    seconds: float

    @property
    def peak(self) -> int:
        return max(self.phases.values())


def examples_of(config: Planned) -> int:
    """Examples of one update, of which every training process needs one."""
    together: int = getattr(config, "minibatch_size", None) or config.batch_size
    return min(together, config.batch_size)


def updates_of(config: TrainingConfig) -> int:
    """Optimizer updates of one step."""
    if not isinstance(config, OnPolicy):
        return 1
    return getattr(config, "inner_epochs", 1) * max(1, config.batch_size // examples_of(config))


def trained_share(load: Load, n: int) -> Load:
    """What one of n training processes does: its part of each update, in passes as large as before or smaller."""
    whole = load.work.tokens * load.work.micros
    mine = -(-whole // n)
    tokens = min(load.work.tokens, mine)
    targets = load.work.targets * tokens // max(1, load.work.tokens)
    work = replace(load.work, tokens=tokens, targets=targets, micros=max(1, -(-mine // max(1, tokens))))
    return replace(load, work=work, step_tokens=load.step_tokens / n)


def sampled_share(config: Any, load: Load, n: int, rows: int | None = None) -> Load:
    """What one of n samplers draws, at most `rows` answers at a time."""
    answers = -(-load.sampled_tokens // max(1, config.max_new_tokens))
    at_once = min(load.work.rows, -(-answers // n), rows or load.work.rows)
    return replace(load, work=replace(load.work, rows=at_once), sampled_tokens=-(-load.sampled_tokens // n))


def sent(config: TrainingConfig, models: Models, load: Load, n: int, parallel: Parallel) -> tuple[float, float]:
    """Bytes that each of n processes sends in an update, and to put the trained models together before sampling.

    A ring of n sends (n - 1) / n of the whole to gather or to scatter it, and both to add it up everywhere.
    data: gradients in float32 are added up, 2 · 4 A. fsdp, in every pass: weights are gathered for the forward and the
    backward pass, 2 w P, and gradients scattered, 4 P.
    """
    ring, sets = (n - 1) / n, models.optimizers
    if parallel == "data":
        return 2 * ring * GRADIENT * models.trained * sets, 0.0
    weights = memory.weights(models.shape, models.w)
    one = 2 * weights + GRADIENT * models.shape.parameters
    return ring * load.work.micros * one * sets, ring * weights * sets


def times_of(config: Planned, models: Models, load: Load, fleet: Fleet, split: Split, rows: int) -> dict[str, float]:
    """Seconds of each phase of the whole stage, `update` with what is sent in it.

    Sharded passes fetch the next layer's weights while they compute, so that the longer of the two counts; gradients
    of whole models are added up after the passes. Samplers apart get w P each step. GPUs that score compute the frozen
    models' half (without a critic: two thirds) of `score` while those that train compute the rest.
    """
    rates, network = fleet.gpu.rates, fleet.network
    drawn, mine = sampled_share(config, load, split.sampling, rows) if load.work.rows else load, load
    if not isinstance(config, SampleConfig):
        mine = trained_share(load, min(split.training, examples_of(config)))
    drawing = seconds_of(config, models, drawn, rates) or {}
    learning = seconds_of(config, models, mine, rates) or {}
    if not learning:
        return {}
    times = {name: (drawing if name == "sample" else learning)[name] for name in learning}
    if isinstance(config, SampleConfig):
        return times
    if split.scoring and "score" in times:
        frozen = FROZEN / (FROZEN + models.optimizers)
        apart_score = frozen * times["score"] * min(split.training, examples_of(config)) / split.scoring
        times["score"] = max((1 - frozen) * times["score"], apart_score)
    update, together = sent(config, models, mine, split.training, split.parallel)
    sending = update * updates_of(config) * load.steps / network
    parts = (times["update"], sending)
    times["update"] = max(parts) if split.parallel == "fsdp" else sum(parts)
    if load.work.rows and not isinstance(config, RejectionConfig):
        apart = memory.weights(models.shape, models.w) if split.mode != "shared" else 0
        times["weights"] = (together + apart) * load.steps / network
    return times


def memory_of(config: Planned, models: Models, load: Load, split: Split, rows: int) -> dict[str, int]:
    """Bytes of the fullest GPU in each phase; samplers apart hold the policy alone, scorers the two frozen models."""
    mine = load
    if split.scoring and not models.adapters:  # adapters' frozen models are the policy's weights
        models = replace(models, copies=models.optimizers)
    if not isinstance(config, SampleConfig):
        mine = trained_share(load, min(split.training, examples_of(config)))
    if load.work.rows:
        mine = replace(mine, work=replace(mine.work, rows=rows))
    phases = phases_of(config, models, mine, split.training if split.parallel == "fsdp" else 1)
    if split.mode != "shared":
        own = memory.PROGRAM + memory.weights(models.shape, models.w)
        phases["sample"] = own + memory.sampling(models.shape, mine.work, models.w)
    if split.scoring and isinstance(config, OnPolicy):
        passes = replace(mine.work, tokens=min(config.micro_tokens, mine.work.rows * mine.work.context))
        frozen = FROZEN * memory.weights(models.shape, models.w)
        scorer = memory.PROGRAM + frozen + memory.inference(models.shape, passes, models.w)
        phases["score"] = max(phases["score"], scorer)
    return phases


def splits(config: Planned, count: int, scoring: int = 0, placed: bool = False) -> Iterator[Split]:
    """All of them: the same GPUs for both, or every number of samplers apart, with whole or with sharded models.

    scoring: GPUs of the recipe's scorers, where samplers are apart. placed: the recipe has a `cluster:` block.
    """
    if isinstance(config, SampleConfig):  # every process of torchrun draws; beside Ray one process does
        count = 1 if placed or not config.draws_itself else count
        yield Split(count, count, "data", "shared")
        return
    for training in range(count, 0, -1) if isinstance(config, OnPolicy) else (count,):
        for parallel in ("data", "fsdp"):
            divisible = training > 1 and training <= examples_of(config) and not config.adapters
            if parallel == "fsdp" and not divisible:
                continue
            if training == count:
                yield Split(count, count, parallel, "shared")
                continue
            sampling = count - training - scoring
            if sampling < 1:
                continue
            yield Split(sampling, training, parallel, "synchronous", scoring)
            yield Split(sampling, training, parallel, "one-step-off", scoring)


def plan_split(config: Planned, models: Models, load: Load, fleet: Fleet, split: Split) -> SplitPlan:
    """One split, with as many rows at once as its memory holds; with all of them where it does not hold one."""
    rows = most = sampled_share(config, load, split.sampling).work.rows if load.work.rows else 0
    phases = whole = memory_of(config, models, load, split, rows)
    while rows > 1 and phases["sample"] > fleet.gpu.memory:
        rows //= 2
        phases = memory_of(config, models, load, split, rows)
    if rows and phases["sample"] > fleet.gpu.memory:
        rows, phases = most, whole
    times = times_of(config, models, load, fleet, split, rows)
    seconds = sum(times.values())
    if split.mode == "one-step-off" and times:
        seconds -= min(times["sample"], times["score"] + times["update"])
    return SplitPlan(split, rows, phases, times, seconds)


def best(found: list[SplitPlan], fleet: Fleet) -> SplitPlan:
    """The quickest of those that fit, or the smallest; of equals the first."""
    fitting = [one for one in found if one.peak <= fleet.gpu.memory]
    return min(fitting, key=lambda one: one.seconds) if fitting else min(found, key=lambda one: one.peak)


def plan_on(
    config: StageConfig, fleet: Fleet, instead: str | None = None, mode: str | None = None, scoring: int = 0
) -> dict[str, Any] | None:
    """A stage on a fleet: the best split, and the best of each kind beside it. None where no model is run.

    instead: the model to measure where the stage's own does not exist yet. mode: of the recipe's `cluster:` block;
    one-step-off changes what is computed, so that only a recipe that says so gets it. scoring: GPUs of its scorers.
    """
    if not isinstance(config, TrainingConfig | SampleConfig):
        return None
    named = config.model if instead is None or Path(config.model).expanduser().exists() else instead
    path = resolve(named)
    load = load_of(config, load_tokenizer(path))
    models = models_of(config, read_shape(base_path_of(path)), 4 if config.dtype == "float32" else 2)
    return found_best(config, models, load, fleet, mode, scoring) | {"stage": config.verb, "model": str(path)}


def found_best(
    config: Planned, models: Models, load: Load, fleet: Fleet, mode: str | None = None, scoring: int = 0
) -> dict[str, Any]:
    """The search itself, of sizes that are known."""
    found = [
        plan_split(config, models, load, fleet, split)
        for split in splits(config, fleet.count, scoring, mode is not None)
    ]
    allowed = [one for one in found if one.split.mode != "one-step-off" or mode == "one-step-off"]
    kinds = {
        kind: [one for one in found if one.split.mode == kind] for kind in ("shared", "synchronous", "one-step-off")
    }
    chosen = best(allowed, fleet)
    row = _row(chosen, load, fleet)
    row["others"] = [
        _row(one, load, fleet) for some in kinds.values() if some and (one := best(some, fleet)) is not chosen
    ]
    return row | {"parameters": models.shape.parameters, "steps": load.steps, "guessed": load.guessed}


def _row(one: SplitPlan, load: Load, fleet: Fleet) -> dict[str, Any]:
    hours = one.seconds * fleet.count / 3600
    known = load.steps > 0
    return {
        "split": {name: getattr(one.split, name) for name in ("mode", "sampling", "scoring", "training", "parallel")},
        "rows": one.rows,
        "phases": one.phases,
        "peak_bytes": one.peak,
        "fits": one.peak <= fleet.gpu.memory,
        "times": one.times,
        "seconds": one.seconds if known else None,
        "seconds_a_step": one.seconds / load.steps if known else None,
        "gpu_hours": hours if known else None,
        "cost": hours * fleet.price if known and fleet.price is not None else None,
    }
