"""Every study and lesson in the repository is sound, and a faulty one is refused with its place."""

import shutil

import pytest
import yaml

from tutelage.errors import UserError
from tutelage.studies.lab import settings_of
from tutelage.studies.schema import ROOT, all_scenarios, fill, find, load_scenario, load_study, names
from tutelage.studies.study import check_settings, plan, put

STUDIES = [
    "alignment-tax",
    "approaches",
    "demonstration-budget",
    "figure-1",
    "good-answers",
    "label-budget",
    "reward-hacking",
    "sycophancy",
    "verbosity",
]


def test_the_studies_are_there_and_can_be_planned():
    assert names("studies") == STUDIES
    for name in STUDIES:
        study = load_study(find("studies", name))
        assert study.study == name and len(study.seeds) >= 3 and len(study.vary.values or study.vary.cases) >= 4
        for fast in (False, True):
            values, seeds, common = plan(study, fast=fast)
            check_settings({**dict.fromkeys(study.vary.options()), **common}, study.stages, name)
            assert values and seeds
        page = ROOT / "docs" / "studies" / f"{name}.md"
        assert f"tutelage study {name}" in page.read_text()


def test_the_seventeen_lessons_are_there_each_with_a_mend():
    found = all_scenarios()
    assert [one.order for one in found] == list(range(1, 18))
    for one in found:
        for fast in (False, True):
            broken = settings_of(one, {}, fast=fast)
            mended = {key: value for mend in one.mend for key, value in mend.set.items()}
            check_settings({**broken, **mended}, one.stages, one.scenario)
        assert one.predict and one.effects and any(s.when.startswith("not ") or "not " in s.when for s in one.explain)
        assert one.mend or one.scenario == "healthy"
        # The mend turns what was broken, not something else.
        assert set(mended) & set(one.knobs) or not one.mend, one.scenario


@pytest.fixture
def folder(tmp_path):
    for kind in ("studies", "lab"):
        shutil.copytree(ROOT / kind, tmp_path / kind)
    return tmp_path


def changed(path, **changes):
    row = yaml.safe_load(path.read_text())
    row.update(changes)
    path.write_text(yaml.safe_dump(row))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"watchh": []}, "unknown key 'watchh' (did you mean watch?)"),
        ({"effects": {"hacked": {"when": "proxi.change > 0"}}}, "proxi.change"),
        ({"effects": {"hacked": {"when": "proxy.change >"}}}, "cannot be read"),
        ({"explain": [{"if": "hackd", "say": "x"}]}, "hackd"),
        ({"explain": [{"say": "It rose by {gold.chnge}."}]}, "gold.chnge"),
        ({"measures": {"x": {"curve": "gold", "when": "last"}}}, "unknown key 'when'"),
        ({"measures": {"x": {"curve": "gold", "at": "sometime"}}}, "sometime"),
        ({"measures": {"x": {"stage": "ppo"}}}, "no one kind"),
        ({"predict": [{"id": "a", "ask": "?", "kind": "essay", "of": "gold.change"}]}, "essay"),
        ({"knobs": {"ppo.kl_coef": {"label": "x"}}}, "has no value"),
    ],
)
def test_a_faulty_lesson_names_its_fault(folder, changes, said):
    with pytest.raises(UserError) as error:
        load_scenario(changed(folder / "lab" / "no-kl.yaml", **changes))
    assert said in error.value.message and "no-kl.yaml" in error.value.message


def test_a_faulty_study_names_its_fault(folder):
    path = folder / "studies" / "verbosity.yaml"
    with pytest.raises(UserError, match="which is not measured"):
        load_study(changed(path, figure={"title": "t", "y": {"nothing": "x"}}))
    shutil.copy(ROOT / "studies" / "verbosity.yaml", path)
    with pytest.raises(UserError, match=r"words\.lst"):
        load_study(changed(path, conclude=[{"if": "words.lst > 0", "say": "x"}]))
    path = folder / "studies" / "approaches.yaml"
    with pytest.raises(UserError, match="in two ways"):
        load_study(changed(path, vary={"label": "x", "values": [1], "cases": {"a": {}}}))
    shutil.copy(ROOT / "studies" / "approaches.yaml", path)
    with pytest.raises(UserError, match="did you mean rloo"):
        load_study(changed(path, methods={"baseline": "sft", "needs": {"rloo": ["reward", "rlo"]}}))
    with pytest.raises(UserError, match="give stage eval kl_from: reward"):
        load_study(changed(path, methods={"baseline": "reward", "needs": {"dpo": ["dpo"]}}))
    with pytest.raises(UserError, match="'label' is not compared"):
        load_study(changed(path, methods={"baseline": "sft", "needs": {"label": ["label"]}}))
    shutil.copy(ROOT / "studies" / "approaches.yaml", path)
    with pytest.raises(UserError, match="did you mean 500 rankings"):
        load_study(changed(path, fast={"values": ["500 ranking"]}))
    with pytest.raises(UserError, match="in two ways"):
        load_study(changed(path, vary={"label": "x", "cases": {"a": {}}, "set": {"ppo.seed": 1}}))
    with pytest.raises(UserError, match="did you mean verbosity"):
        find("studies", "verbosty")


def test_settings_that_no_stage_has_are_refused_before_anything_runs():
    study = load_study(find("studies", "verbosity"))
    with pytest.raises(UserError, match=r"did you mean ppo\.kl_coef"):
        check_settings({"ppo.kl_coeff": 1}, study.stages, "here")
    scenario = load_scenario(find("lab", "no-kl"))
    for knobs in ({"ppo.kl_coef": 99}, {"ppo.kl": 1}, {"ppo.kl_coef": "low"}):
        with pytest.raises(UserError):
            settings_of(scenario, knobs, fast=False)
    assert settings_of(scenario, {"ppo.kl_coef": 0.5}, fast=False)["ppo.kl_coef"] == 0.5


def test_sentences_and_slots():
    assert fill("From {a:.1f} to {b.c}, {none}.", {"a": 1.25, "b.c": 0.12345, "none": None}) == "From 1.2 to 0.123, –."
    assert (
        put("{value}", 0.3) == 0.3
        and put("world:fair:length={value}", 0.3) == "world:fair:length=0.3"
        and put(7, 1) == 7
    )
