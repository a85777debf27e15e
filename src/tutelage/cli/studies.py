"""`tutelage study NAME` and `tutelage lab NAME`: experiments that are files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from tutelage.cli.options import parse_words, show
from tutelage.errors import UserError
from tutelage.recipe import from_text
from tutelage.runs import check_folder


@dataclass(kw_only=True)
class StudyOptions:
    """Run a study: every value and seed of its file, the figure, and what follows. What is done is not done again."""

    study: Annotated[str, tyro.conf.Positional]
    """figure-1, good-answers, reward-hacking, sycophancy, verbosity, label-budget, demonstration-budget, alignment-tax,
    approaches, or a file of one's own."""
    out: str | None = None
    """The folder to write; runs/studies/NAME when not given."""
    model: str | None = None
    """A base model in place of the study's."""
    fast: bool = False
    """A toy size, to see that everything works; its numbers say nothing."""
    json: bool = False
    """Print one JSON object last."""


@dataclass(kw_only=True)
class LabOptions:
    """Break RLHF on purpose: predict, run broken and mended, and see whether it showed and why."""

    scenario: Annotated[str, tyro.conf.Positional]
    """The lesson (`tutelage lab` lists them), or a file of one's own."""
    predict: tuple[str, ...] = ()
    """Guesses, QUESTION=up, flat, down or a number; --dry-run shows the questions."""
    sure: int | None = None
    """How sure you are, 50 to 100 percent."""
    set: tuple[str, ...] = ()
    """Knobs to turn, STAGE.OPTION=VALUE."""
    seeds: int = 1
    """How many."""
    model: str = "world"
    """The base model."""
    out: str | None = None
    """The folder to write; runs/lab/NAME when not given. Stages are shared in its neighbor `stages`."""
    fast: bool = False
    """A toy size, to see that everything works; its numbers say nothing."""
    dry_run: bool = False
    """Show the questions and knobs, and stop."""
    json: bool = False
    """Print one JSON object last."""


def main(verb: str, arguments: list[str]) -> dict[str, Any] | None:
    if verb == "study":
        return study(arguments)
    if not arguments:
        lessons()
        return None
    return lab(arguments)


def study(arguments: list[str]) -> dict[str, Any]:
    options = parse_words(StudyOptions, "study", arguments)
    from tutelage.studies.schema import find, load_study
    from tutelage.studies.study import run_study

    found = load_study(find("studies", options.study))
    out = Path(options.out or f"runs/studies/{found.study}{'-fast' if options.fast else ''}").expanduser()
    check_folder(out)
    result = run_study(found, out, fast=options.fast, model=options.model)
    for said in result["conclusions"]:
        show(f"study: {said}")
    show(f"study: {out / 'study.md'}")
    return result


def lessons() -> None:
    """What `tutelage lab` can show."""
    from tutelage.studies.schema import all_scenarios

    print("usage: tutelage lab SCENARIO [options]   (tutelage lab SCENARIO --help)\n")
    for one in all_scenarios():
        print(f"  {one.order:>2}  {one.scenario:<18} {one.title}")


def lab(arguments: list[str]) -> dict[str, Any] | None:
    options = parse_words(LabOptions, "lab", arguments)
    from tutelage.studies.lab import run_lesson
    from tutelage.studies.schema import find, load_scenario

    scenario = load_scenario(find("lab", options.scenario))
    guesses, knobs = pairs(options.predict, "--predict"), pairs(options.set, "--set")
    if options.seeds < 1:
        raise UserError(f"{options.seeds} seeds", where="option --seeds", mend="give 1 or more")
    if options.dry_run:
        print(f"{scenario.title}\n{scenario.about}\n")
        for name, knob in scenario.knobs.items():
            print(f"knob {name} = {knob.value}: {knob.label}")
        for question in scenario.predict:
            print(f"question {question.id} ({question.kind}): {question.ask}")
        return None
    out = Path(options.out or f"runs/lab/{scenario.scenario}").expanduser()
    check_folder(out)
    result = run_lesson(
        scenario,
        out,
        out.parent / "stages",
        knobs=knobs,
        guesses=guesses,
        sure=options.sure,
        seeds=range(options.seeds),
        model=options.model,
        fast=options.fast,
    )
    for line in (result["said"], *result["tripped"], *result["explanation"]):
        if line:
            show(f"lab: {line}")
    show(f"lab: {out / 'lesson.html'}")
    return result


def pairs(words: tuple[str, ...], where: str) -> dict[str, Any]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is no NAME=VALUE", where=f"option {where}", mend="write NAME=VALUE")
        found[name] = from_text(value)
    return found
