"""Every option of every verb is a reviewed line of options.txt, says what it does, and is read by something."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from tutelage.cli.chat import ChatOptions
from tutelage.cli.export import ExportOptions
from tutelage.cli.machine import DoctorOptions, PlanOptions
from tutelage.cli.recipes import RunOptions
from tutelage.cli.serve import ServeOptions
from tutelage.cli.studies import LabOptions, StudyOptions
from tutelage.cli.template import TemplateOptions
from tutelage.cli.world import BuildOptions, ShowOptions
from tutelage.configs import STAGES, TrainingConfig

LIST = Path(__file__).with_name("options.txt")
SOURCE = Path(__file__).parents[2] / "src" / "tutelage"
OTHERS = {
    "run": RunOptions,
    "chat": ChatOptions,
    "export": ExportOptions,
    "serve": ServeOptions,
    "study": StudyOptions,
    "lab": LabOptions,
    "template": TemplateOptions,
    "doctor": DoctorOptions,
    "plan": PlanOptions,
    "world build": BuildOptions,
    "world show": ShowOptions,
}
VERBS = {**STAGES, **OTHERS}


def options_of(cls):
    return [f"--{field.name.replace('_', '-')}" for field in fields(cls)]


def test_the_list_of_all_options():
    now = [f"{verb} {option}" for verb, cls in VERBS.items() for option in options_of(cls)]
    listed = LIST.read_text().splitlines()
    new, gone = sorted(set(now) - set(listed)), sorted(set(listed) - set(now))
    assert not new and not gone, f"bring {LIST.name} up to date: new {new}, gone {gone}"


def test_what_every_training_verb_has():
    common = "--model --data --out --seed --max-steps --batch-size --max-length --dtype --learning-rate --resume --json"
    for cls in STAGES.values():
        if issubclass(cls, TrainingConfig):
            assert {*common.split(), "--dry-run"} <= set(options_of(cls))


@pytest.mark.parametrize("cls", VERBS.values(), ids=VERBS)
def test_every_option_says_what_it_does(cls):
    """A docstring under each field, here or in a class that it extends: --help shows it."""
    bodies = [inspect.getsource(base) for base in cls.__mro__[:-1]]
    for field in fields(cls):
        said = rf'^    {field.name}: .*\n    """'
        assert any(re.search(said, body, re.M) for body in bodies), field.name


@pytest.mark.parametrize("verb", STAGES)
def test_every_option_of_a_stage_is_read(verb):
    """`config.NAME` stands in the stages, or a property of the config gives it (json is the command's own)."""
    folders = [SOURCE / name for name in ("stages", "cli", "configs")]
    text = "".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    text = text.replace("return self.", "config.")
    for field in fields(STAGES[verb]):
        assert field.name == "json" or re.search(rf"\bconfig\.{field.name}\b", text), field.name
