"""Studies and lessons run from their files at a toy size: every cell, the figure, the sentences; equal stages once."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import partial

import pytest

from tutelage.cli.studies import main
from tutelage.errors import UserError
from tutelage.evaluation.ratings import ratings
from tutelage.stages import capability, evaluate, rejection
from tutelage.studies.lab import direction, run_lesson, score
from tutelage.studies.measures import prompt_weights
from tutelage.studies.schema import find, load_scenario, load_study, stage_name
from tutelage.studies.study import run_study, summarize
from tutelage.world import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(autouse=True)
def small(monkeypatch, tokenizer, little_text):
    monkeypatch.setattr(evaluate, "SUITES", dict.fromkeys(evaluate.SUITES, 3))
    monkeypatch.setattr(evaluate, "ratings", partial(ratings, resamples=20))
    monkeypatch.setattr(capability, "QUESTIONS", 4)
    monkeypatch.setattr(build, "make_tokenizer", lambda seed=0: tokenizer)
    monkeypatch.setenv("TUTELAGE_QUIET", "1")


@pytest.mark.parametrize(
    "name",
    [
        "verbosity",
        "sycophancy",
        "reward-hacking",
        "label-budget",
        "demonstration-budget",
        "alignment-tax",
        "figure-1",
        "good-answers",
    ],
)
def test_a_study_runs_to_its_figure(name, folder, nano):
    study = load_study(find("studies", name))
    result = run_study(study, folder / name, fast=True, model=str(nano))
    assert len(result["cells"]) == len(study.fast["values"]) and json.loads((folder / name / "study.json").read_text())
    # An untrained model knows no answer that it could give up: that one is measured on trained ones only.
    measured = [m for m in study.figure.y if all(row[m]["seeds"] == 1 for row in result["summary"])]
    assert {*study.figure.y} - {*measured} <= {"gives_up"} and len(measured) >= 2
    assert result["conclusions"] and "{" not in " ".join(result["conclusions"])
    if name == "reward-hacking":
        found = result["over_optimization"]
        assert (
            [g["kl_coef"] for g in found["groups"]] == [0.0, 0.15] and len(found["best_of_n"]) >= 3 and found["verdict"]
        )
    ET.fromstring((folder / name / "figure.svg").read_text())
    assert "its numbers say nothing" in (folder / name / "study.md").read_text()


def test_equal_stages_ran_once_and_a_second_run_runs_nothing(folder, nano, monkeypatch):
    study, out = load_study(find("studies", "verbosity")), folder / "alone" / "verbosity"
    run_study(study, out, fast=True, model=str(nano))
    names = [path.name for path in (out.parent / "stages").iterdir()]
    assert sum(name.startswith("sample-") for name in names) == 1  # two cells, the same samples
    monkeypatch.setattr("tutelage.stages.recipe_run.run_stage", None)  # would fail
    again = run_study(study, out, fast=True, model=str(nano))
    assert [c["value"] for c in again["cells"]] == [0.0, 0.45]


@pytest.mark.parametrize("name", ["no-kl", "template", "harmlessness-only", "one-rate", "cold-groups"])
def test_a_lesson_predicts_runs_explains_and_mends(name, folder, nano, monkeypatch):
    monkeypatch.setattr(rejection, "_best", lambda c: c.texts[0] or None)  # an untrained model ends no answer
    scenario = load_scenario(find("lab", name))
    guess = {q.id: "up" if q.kind == "direction" else 0.5 for q in scenario.predict}
    out, stages, knobs = folder / f"lesson-{name}", folder / "stages", {}
    if "ppo.max_steps" in scenario.knobs:  # a knob is kept in a fast run too
        knobs = {"ppo.max_steps": 4}
    result = run_lesson(scenario, out, stages, guesses=guess, sure=80, knobs=knobs, model=str(nano), fast=True)
    assert result["said"].endswith("you were 80 % sure") and f"of {len(guess)} right" in result["said"]
    assert result["explanation"] and "{" not in " ".join(result["explanation"])
    assert result["mended"].keys() == result["measures"].keys() and result["why_mend"]
    for effect in result["effects"].values():
        assert effect["share"] is not None and 0 <= effect["share"] <= 1
    locked = json.loads((folder / f"lesson-{name}" / "guess.json").read_text())
    assert locked["guesses"] == guess and locked["sure"] == 80
    if name == "no-kl":
        first = result["curves"]["broken"]["ppo"][0]
        assert first.keys() == {"step", "gold", "proxy", "kl", "length", "ci95"} and result["texts"][0]["prompt"]
        assert first["ci95"]["gold"][0] - 1e-9 <= first["gold"] <= first["ci95"]["gold"][1] + 1e-9
        low, high = result["measures_ci95"]["gold.last"]
        assert low - 1e-9 <= result["measures"]["gold.last"] <= high + 1e-9
    if name == "harmlessness-only":
        assert result["measures_ci95"]["over_refusal"] is not None  # a share that eval gave an interval
    html = (out / "lesson.html").read_text()
    assert "data:text/csv" in html and "http" not in html.split("</style>")[1].replace("http-equiv", "")


def test_a_bad_guess_or_knob_writes_nothing(folder, nano):
    scenario = load_scenario(find("lab", "no-kl"))
    for bad in (
        {"guesses": {"gold": "sideways"}},
        {"guesses": {"peak": "up"}},
        {"guesses": {"x": 1}},
        {"sure": 20},
        {"knobs": {"x": 1}},
    ):
        with pytest.raises(UserError):
            run_lesson(scenario, folder / "bad", folder / "stages", model=str(nano), **bad)
    assert not (folder / "bad").exists()


def test_predictions_are_scored_by_hand():
    scenario = load_scenario(find("lab", "no-kl"))
    values = {"gold.change": -0.3, "proxy.change": 0.05, "gold.kl_of_best": 4.0}
    rows = score(scenario, {"gold": "down", "proxy": "up", "peak": 6.5}, values)
    assert [(r["came"], r["right"]) for r in rows] == [("down", True), ("flat", False), (4.0, True)]
    assert score(scenario, {}, values)[0]["right"] is None
    assert (direction(0.02, 0.02), direction(0.021, 0.02), direction(-0.021, 0.02)) == ("flat", "up", "down")


def test_means_over_seeds_have_intervals():
    cells = [{"value": v, "seed": s, "m": v + s} for v in (1.0, 2.0) for s in (0, 1, 2)]
    first, _ = summarize(cells, ["m"], [1.0, 2.0])
    # mean 2, sd 1, error 1/sqrt(3), t(2) = 4.3027
    assert first["m"]["mean"] == 2 and first["m"]["ci95"] == pytest.approx([2 - 2.4841, 2 + 2.4841], abs=1e-3)
    assert summarize([{"value": 1.0, "m": None}], ["m"], [1.0])[0]["m"] == {"mean": None, "ci95": None, "seeds": 0}


def test_the_bootstrap_draws_prompts_with_replacement():
    draws = prompt_weights(["a", "b", "c", "a"], resamples=50)
    assert all(sum(draw.values()) == 3 for draw in draws) and draws == prompt_weights(["a", "b", "c"], resamples=50)
    assert any(len(draw) < 3 for draw in draws)


def test_the_command_lists_the_lessons_and_shows_questions(capsys):
    assert main("lab", []) is None
    listed = capsys.readouterr().out
    assert "no-kl" in listed and listed.count("\n") >= 15
    assert main("lab", ["no-kl", "--dry-run"]) is None
    assert "knob ppo.kl_coef = 0.0" in capsys.readouterr().out
    with pytest.raises(UserError, match="did you mean no-kl"):
        main("lab", ["no-lk"])


def test_methods_stand_beside_each_other_with_what_they_cost(folder, nano):
    study = load_study(find("studies", "approaches"))
    # An untrained model ends no answer, and rejection sampling keeps those that end.
    left_out = (
        "rejection",
        "ppo-ptx",
        "ipo",
        "ppo-short",
        "rloo",
        "dpo-half",
        "kto-half",
    )  # the others are like those that stay
    left_out += ("critic", "cai", "red-team", "helpful", "helpfulness", "ai-label", "cai-reward", "rl-cai")
    left_out += ("solver", "solutions", "steps", "prm", "orm", "candidates", "rerank", "prm-ppo", "orm-ppo")
    left_out += ("after-prm", "after-orm", "solved-prm", "solved-orm")  # tests/studies/test_study_tables.py
    stages = [one for one in study.stages if stage_name(one) not in left_out]
    compared = [name for name in stages[-1]["eval"]["models"] if name not in left_out]
    stages[-1] = {"eval": {**stages[-1]["eval"], "models": compared}}
    needs = {name: needed for name, needed in study.methods.needs.items() if name not in left_out}
    cases = {"3000 rankings": {"sample.prompts": 24}, "500 noisy rankings": {"sample.prompts": 12}}
    quick = {**study.fast, "values": list(cases)}
    quick["set"] = {k: v for k, v in quick["set"].items() if k != "sample.prompts" and k.split(".")[0] not in left_out}
    small = replace(
        study,
        stages=stages,
        fast=quick,
        vary=replace(study.vary, cases=cases),
        methods=replace(study.methods, needs=needs),
        tables={},
    )
    result = run_study(small, folder / "approaches", fast=True, model=str(nano))
    for rows in result["methods"].values():
        assert [row["method"] for row in rows] == ["sft", *needs]
        baseline, *others = rows
        assert baseline["win"]["mean"] is None and abs(baseline["kl"]["mean"]) < 1e-6
        assert all(0 <= row["win"]["mean"] <= 1 for row in others)
        by_name = {row["method"]: row for row in rows}
        assert by_name["ppo"]["seconds_in_all"]["mean"] > by_name["ppo"]["seconds"]["mean"]
        assert by_name["dpo"]["seconds_in_all"] == by_name["dpo"]["seconds"]
        assert all(0.05 < by_name[name]["gib"]["mean"] < 20 for name in needs if not name.startswith("base"))
        learned = {name: row["labels"]["mean"] for name, row in by_name.items()}
        assert learned["base"] == 0 and learned["ppo"] == learned["grpo"] > 0 and learned["dpo"] > 0
    # The table's numbers are those that the eval of that case wrote.
    first = result["methods"]["3000 rankings"]
    by_name = {row["method"]: row for row in first}
    assert by_name["base-prompted"]["kl"]["mean"] is None and by_name["base"]["seconds"]["mean"] is None
    evals = [json.loads(p.read_text()) for p in (folder / "stages").glob("eval-*/eval.json")]
    (own,) = (e for e in evals if "kl" in e and e["kl"]["dpo"]["value"] == by_name["dpo"]["kl"]["mean"])
    gold = {w["policy"]: w["win_rate"] for w in own["win_rates"] if w["judge"] == "gold" and w["baseline"] == "sft"}
    assert {row["method"]: row["win"]["mean"] for row in first[1:]} == gold
    said = (folder / "approaches" / "study.md").read_text()
    assert "## 500 noisy rankings" in said and "| kto |" in said
    drawn = ET.fromstring((folder / "approaches" / "figure.svg").read_text())
    assert "Gold win rate against KL: 3000 rankings" in "".join(drawn.itertext())
