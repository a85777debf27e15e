"""Attempts at lessons: begun in a process, stopped after its step, gone on with, and known after the server began anew."""

import json
import time

import pytest

from pretended_lab import pretended
from tutelage.errors import UserError
from tutelage.workbench.lessons import Lessons


@pytest.fixture
def started(monkeypatch):
    with pretended(monkeypatch) as commands:
        yield commands


def until(check):
    end = time.monotonic() + 60
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_attempt_is_stopped_and_goes_on(tmp_path, started):
    lab = Lessons(tmp_path / "lab")
    scenario = lab.scenario("no-kl")
    name = lab.start(scenario, {"gold": "down"}, 80, {"ppo.kl_coef": 0.0}, 1)
    until(lambda: lab.attempt(name).said)
    assert lab.attempt(name).state == "running" and not lab.attempt(name).can_resume and lab.running() == name
    with pytest.raises(UserError, match=rf"{name}: a lesson is running already"):
        lab.start(scenario, {}, None, {}, 1)
    with pytest.raises(UserError, match="is running"):
        lab.resume(name)
    lab.stop(name)
    assert lab.attempt(name).state in ("stopping", "stopped")
    until(lambda: lab.attempt(name).state == "stopped")
    assert [(one.name, one.state) for one in lab.attempts("no-kl")] == [(name, "stopped")] and lab.running() is None
    assert lab.attempt(name).can_resume and lab.attempt(name).said[-2].startswith("stopped at step 3")
    with pytest.raises(UserError, match="is stopped"):
        lab.stop(name)
    lab.resume(name)
    until(lambda: lab.attempt(name).state == "done")
    assert started[0] == started[1]  # the very same command: the stages that are done are not done again
    assert "--predict" in started[0] and "gold=down" in started[0] and "ppo.kl_coef=0.0" in started[0]
    with pytest.raises(UserError, match="is done"):
        lab.resume(name)


def test_a_server_that_began_anew_knows_what_runs_and_can_stop_it(tmp_path, started):
    lab = Lessons(tmp_path / "lab")
    name = lab.start(lab.scenario("no-kl"), {}, None, {}, 1)
    until(lambda: lab.attempt(name).said)
    again = Lessons(tmp_path / "lab")
    assert again.attempt(name).state == "running"
    with pytest.raises(UserError, match="running already"):
        again.start(again.scenario("healthy"), {}, None, {}, 1)
    again.stop(name)
    until(lambda: again.attempt(name).state == "stopped")
    again.resume(name)
    until(lambda: again.attempt(name).state == "done")


def test_what_ended_by_a_signal_from_elsewhere_was_stopped_and_what_fell_has_failed(tmp_path):
    lab = Lessons(tmp_path)
    for name, said in (
        ("no-kl-1", "ppo 3\nstopped at step 3 of x; go on with:\n  tutelage lab no-kl\n"),
        ("no-kl-2", "boom"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.txt").write_text(said)
    assert lab.attempt("no-kl-1").state == "stopped" and lab.attempt("no-kl-2").state == "failed"
    assert not lab.attempt("no-kl-2").can_resume  # an older version wrote down nothing to begin it by
    (tmp_path / "no-kl-2" / "attempt.json").write_text(json.dumps({"scenario": "no-kl"}))
    assert lab.attempt("no-kl-2").can_resume


@pytest.mark.parametrize("stage", ["ppo-0a1b", "online-dpo-0a1b", "grpo-0a1b"])
def test_the_live_curves_are_the_running_stage_s(tmp_path, stage):
    folder = tmp_path / "stages" / stage
    folder.mkdir(parents=True)
    rows = [{"step": n, "objective/scores": n / 2, "objective/kl": 0.0} for n in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = f"lab x: sft → sft-77\nlab x: ppo → ppo-old\nlab x: {stage.rpartition('-')[0]} → {stage}\n"
    live = Lessons(tmp_path)._live(said)
    assert live["objective/scores"] == [(1.0, 0.5), (2.0, 1.0)] and live.keys() == {"objective/scores", "objective/kl"}
    assert Lessons(tmp_path)._live("lab x: dpo → dpo-77") == {}
