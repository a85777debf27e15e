"""The files of studies and lab scenarios, read strictly: an unknown key or a condition on nothing is an error."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tutelage.errors import UserError, did_you_mean
from tutelage.recipe import read_yaml
from tutelage.studies.conditions import check
from tutelage.studies.measures import KINDS, POINTS, stage_measured

ROOT = Path(__file__).parents[3]
SLOT = re.compile(r"\{([\w.-]+)(?::([^{}]*))?\}")


@dataclass(frozen=True)
class Vary:
    """What differs: `set` has stage.option → value, in which {value} stands for each of `values`.

    Where several options differ at once, `cases` has them in place of both: name → stage.option → value.
    """

    label: str
    values: list[Any] = field(default_factory=list)
    set: dict[str, Any] = field(default_factory=dict)
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)

    def options(self) -> list[str]:
        """Every stage.option that is set somewhere."""
        return [*self.set, *(name for case in self.cases.values() for name in case)]


@dataclass(frozen=True)
class Methods:
    """Models that a study puts beside each other: name → the stages that each needs beyond the baseline's, itself last.

    A model that needs none was there before; a prompted one has no KL. `stage` is the eval that measured them; it has to
    measure the KL from the baseline.
    """

    baseline: str
    needs: dict[str, list[str]]
    stage: str = "eval"


@dataclass(frozen=True)
class Figure:
    """measure → its name in the figure."""

    y: dict[str, str]
    title: str
    y_label: str = ""


@dataclass(frozen=True)
class OverOptimization:
    """Proxy and gold along `stage` of all cells put together, beside best-of-n of `reward` among samples of `start`."""

    stage: str = "ppo"
    reward: str = "reward"
    start: str = "sft"
    prompts: int = 150
    samples: int = 16


@dataclass(frozen=True)
class Sentence:
    """`say` where `if` holds. {name} in it is a measured number, {name:.2f} formatted."""

    say: str
    when: str = ""


@dataclass(frozen=True)
class Study:
    """studies/NAME.yaml."""

    study: str
    title: str
    question: str
    stages: list[Any]
    vary: Vary
    measures: dict[str, dict[str, Any]]
    figure: Figure
    conclude: list[Sentence]
    fast: dict[str, Any]
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    minutes: float = 20.0
    model: str = "world"
    over_optimization: OverOptimization | None = None
    methods: Methods | None = None
    tables: dict[str, dict[str, dict[str, dict[str, Any]]]] = field(default_factory=dict)
    """Title → row → column → a measure, taken at the first of the values: for stages that what is varied leaves alone."""


@dataclass(frozen=True)
class Knob:
    """What the learner may turn: the broken value, its range, and its words."""

    value: Any
    label: str
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class Question:
    """kind direction: up, flat or down, `flat` being how near to zero is flat. kind number: right within `within`."""

    id: str
    ask: str
    kind: str
    of: str
    flat: float = 0.02
    within: float = 0.5


@dataclass(frozen=True)
class Effect:
    """Shown where `when` holds on at least a share `level` of the bootstrap's resamples of prompts."""

    when: str
    level: float = 0.9


@dataclass(frozen=True)
class Mend:
    set: dict[str, Any]
    why: str


@dataclass(frozen=True)
class Scenario:
    """lab/NAME.yaml."""

    scenario: str
    order: int
    title: str
    about: str
    stages: list[Any]
    knobs: dict[str, Knob]
    measures: dict[str, dict[str, Any]]
    predict: list[Question]
    watch: list[str]
    effects: dict[str, Effect]
    explain: list[Sentence]
    mend: list[Mend]
    seconds: float = 120.0
    bypass: list[str] = field(default_factory=list)
    fast: dict[str, Any] = field(default_factory=dict)


def find(kind: str, name: str) -> Path:
    """studies/NAME.yaml or lab/NAME.yaml of the program, or a file of one's own."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    shipped = ROOT / kind / f"{name}.yaml"
    if not shipped.exists():
        known = names(kind)
        verb = {"studies": "study", "lab": "lab"}[kind]
        raise UserError(
            f"there is no {name!r}{did_you_mean(name, known)}",
            where=f"tutelage {verb}",
            mend=f"use one of: {', '.join(known)}",
        )
    return shipped


def names(kind: str) -> list[str]:
    return sorted(p.stem for p in (ROOT / kind).glob("*.yaml") if p.stem != "base")


def load_study(path: Path) -> Study:
    row = _inherited(path)
    where = str(path)
    _keys(row, Study, where)
    row["vary"] = _made(Vary, row["vary"], f"{where}, key vary")
    if bool(row["vary"].values) == bool(row["vary"].cases) or (row["vary"].cases and row["vary"].set):
        raise UserError(
            "varies nothing, or in two ways", where=f"{where}, key vary", mend="give values and set, or cases"
        )
    row["figure"] = _made(Figure, row["figure"], f"{where}, key figure")
    row["conclude"] = _sentences(row["conclude"], f"{where}, key conclude")
    if "over_optimization" in row:
        row["over_optimization"] = _made(OverOptimization, row["over_optimization"], f"{where}, key over_optimization")
    if "methods" in row:
        row["methods"] = _made(Methods, row["methods"], f"{where}, key methods")
    study = Study(**row)
    if study.methods is not None:
        _measured_methods(study.methods, study.stages, f"{where}, key methods")
    for value in study.fast.get("values", []):
        if study.vary.cases and value not in study.vary.cases:
            near = did_you_mean(str(value), list(study.vary.cases))
            raise UserError(
                f"there is no case {value!r}{near}", where=f"{where}, key fast", mend="name one of the cases"
            )
    _measures(study.measures, where)
    for title, rows in study.tables.items():
        for name, columns in rows.items():
            place = f"{where}, table {title!r}, row {name!r}"
            _measures(columns, place)
            for measure in columns.values():
                _among_stages(stage_measured(measure), study.stages, place)
    known = {f"{name}.{part}" for name in study.measures for part in ("first", "last", "change", "low", "high", "n")}
    for one in study.conclude:
        _sentence(one, known, f"{where}, key conclude")
    for name in study.figure.y:
        if name not in study.measures:
            raise UserError(
                f"draws {name!r}, which is not measured", where=f"{where}, key figure", mend="name a measure"
            )
    return study


def _measured_methods(methods: Methods, entries: list[Any], where: str) -> None:
    """Every stage that a method names is there, and the eval compares all of them and measures the KL from the baseline."""
    stages = {stage_name(entry): next(iter(entry.values())) for entry in entries if isinstance(entry, dict)}
    for name in (stage for needs in [[methods.stage], *methods.needs.values()] for stage in needs):
        _among_stages(name, entries, where)
    asked = stages[methods.stage]
    if asked.get("kl_from") != methods.baseline:
        mend = f"give stage {methods.stage} kl_from: {methods.baseline}"
        raise UserError(f"the KL from {methods.baseline!r} is not measured", where=where, mend=mend)
    compared = [*asked.get("models", []), f"{asked.get('prompted')}-prompted"]
    for name in (methods.baseline, *methods.needs):
        if name not in compared:
            mend = f"add it to the models of stage {methods.stage}"
            raise UserError(f"{name!r} is not compared", where=where, mend=mend)


def _among_stages(name: str, entries: list[Any], where: str) -> None:
    names = sorted(map(stage_name, entries))
    if name not in names:
        near = did_you_mean(name, names)
        raise UserError(f"there is no stage {name!r}{near}", where=where, mend=f"use: {', '.join(names)}")


def load_scenario(path: Path) -> Scenario:
    row = _inherited(path)
    where = str(path)
    _keys(row, Scenario, where)
    row["knobs"] = {name: _made(Knob, one, f"{where}, knob {name}") for name, one in row["knobs"].items()}
    row["predict"] = [_made(Question, one, f"{where}, key predict") for one in row["predict"]]
    row["effects"] = {name: _made(Effect, one, f"{where}, effect {name}") for name, one in row["effects"].items()}
    row["explain"] = _sentences(row["explain"], f"{where}, key explain")
    row["mend"] = [_made(Mend, one, f"{where}, key mend") for one in row["mend"]]
    scenario = Scenario(**row)
    _measures(scenario.measures, where)
    measured = set(scenario.measures)
    for name, effect in scenario.effects.items():
        check(effect.when, measured, f"{where}, effect {name}")
    known = measured | set(scenario.effects)
    for one in scenario.explain:
        _sentence(one, known, f"{where}, key explain")
    for question in scenario.predict:
        if question.of not in measured or question.kind not in ("direction", "number"):
            raise UserError(
                f"asks for {question.kind} of {question.of!r}",
                where=f"{where}, question {question.id}",
                mend="kind direction or number, of a measure",
            )
    return scenario


def all_scenarios() -> list[Scenario]:
    """In the order of the lessons."""
    return sorted((load_scenario(ROOT / "lab" / f"{name}.yaml") for name in names("lab")), key=lambda one: one.order)


def _inherited(path: Path) -> dict[str, Any]:
    """The file's keys over those of the file that `base` names, beside it; stages and measures come from either."""
    row = read_yaml(path)
    base = row.pop("base", None)
    if base is None:
        return row
    below = read_yaml(path.parent / str(base))
    stages = {stage_name(entry) for entry in row.get("stages", below.get("stages", []))}
    # A file that has other stages takes over what the base says about those that it kept.
    measures = {n: m for n, m in below.get("measures", {}).items() if stage_measured(m) in stages}
    fast = {n: v for n, v in below.get("fast", {}).items() if "." not in n or n.partition(".")[0] in stages}
    for key, inherited in (("measures", measures), ("fast", fast)):
        if inherited or key in row:
            row[key] = {**inherited, **row.get(key, {})}
    return {**below, **row}


def stage_name(entry: Any) -> str:
    """The name of a stage in a file's list: its verb, unless it has a name."""
    if isinstance(entry, dict) and len(entry) == 1:
        verb, values = next(iter(entry.items()))
        return str((values or {}).get("name", verb))
    return str(entry)


def _keys(row: Mapping[str, Any], cls: type, where: str) -> None:
    known = {f.name: f for f in fields(cls)}
    for key in row:
        if key not in known:
            near = did_you_mean(str(key), list(known))
            raise UserError(f"unknown key {key!r}{near}", where=where, mend=f"use: {', '.join(known)}")
    from dataclasses import MISSING

    for name, one in known.items():
        if name not in row and one.default is MISSING and one.default_factory is MISSING:
            raise UserError(f"has no {name}", where=where, mend=f"add the key {name}")


def _made(cls: Any, row: Any, where: str) -> Any:
    if not isinstance(row, dict):
        raise UserError("is no mapping", where=where, mend="write key: value")
    _keys(row, cls, where)
    return cls(**row)


def _sentences(rows: Any, where: str) -> list[Sentence]:
    if not isinstance(rows, list):
        raise UserError("is no list", where=where, mend="write - {if: …, say: …}")
    found = []
    for row in rows:
        if not isinstance(row, dict) or not {"say"} <= row.keys() <= {"if", "say"}:
            raise UserError("is not {if, say}", where=where, mend="write - {if: …, say: …}")
        found.append(Sentence(row["say"], str(row.get("if", ""))))
    return found


def _sentence(one: Sentence, known: set[str], where: str) -> None:
    if one.when:
        check(one.when, known, where)
    for name, _ in SLOT.findall(one.say):
        if name not in known:
            raise UserError(
                f"says {{{name}}}, which nothing measures", where=where, mend=f"use: {', '.join(sorted(known))}"
            )


def fill(text: str, values: Mapping[str, Any]) -> str:
    """A sentence with its numbers; a dash for one that was not measured."""

    def shown(found: re.Match[str]) -> str:
        value = values.get(found[1])
        return "–" if value is None else format(value, found[2] or ".3g")

    return SLOT.sub(shown, text)


def _measures(rows: Mapping[str, Mapping[str, Any]], where: str) -> None:
    for name, row in rows.items():
        place = f"{where}, measure {name}"
        kinds = [kind for kind in KINDS if kind in row]
        if len(kinds) != 1:
            raise UserError("is of no one kind", where=place, mend=f"give one of: {', '.join(KINDS)}")
        allowed = {kinds[0], *KINDS[kinds[0]]}
        for key in row:
            if key not in allowed:
                raise UserError(
                    f"unknown key {key!r}{did_you_mean(str(key), sorted(allowed))}",
                    where=place,
                    mend=f"use: {', '.join(sorted(allowed))}",
                )
        if "at" in row and row["at"] not in POINTS:
            raise UserError(f"at {row['at']!r}", where=place, mend=f"use: {', '.join(POINTS)}")
