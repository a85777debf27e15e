"""The command from outside: quick without torch, exit status 2 with a message and nothing written for bad input."""

import subprocess
import sys
import time

import pytest
import yaml

from tutelage.cli.main import main
from tutelage.errors import UserError
from tutelage.runs import DiskFullError, Interrupted


def run(*words):
    return subprocess.run([sys.executable, "-m", "tutelage", *map(str, words)], capture_output=True, text=True)


def test_front_is_free_of_torch():
    code = "import sys; import tutelage.cli.main, tutelage.configs, tutelage.recipe, tutelage.data.sources, tutelage.data.check, tutelage.data.convert, tutelage.data.stats, tutelage.cli.data, tutelage.runs, tutelage.report, tutelage.world, tutelage.evaluation.win_rate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_and_version():
    assert run("--help").returncode == 0 and "ppo" in run("--help").stdout
    assert "--learning-rate" in run("sft", "--help").stdout
    assert run("--version").stdout.startswith("tutelage ")


@pytest.mark.parametrize("words", [["world"], ["chat", "--help"], ["run", "--help"], ["world", "show", "--help"]])
def test_help_of_the_other_verbs(words):
    done = run(*words)
    assert done.returncode == 0 and "usage" in done.stdout


@pytest.mark.parametrize("verb", ["study", "feedback", "world"])
def test_what_is_one_process_refuses_to_be_several(monkeypatch, capsys, verb):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit) as end:
        main([verb])
    assert end.value.code == 2
    assert f"rank 3: error: environment: {verb} is one process, and 4 were started" in capsys.readouterr().err


def test_the_front_answers_at_once():
    """Best of three, so that a busy machine does not fail it: half a second, nothing heavy loaded."""

    def seconds():
        start = time.perf_counter()
        assert run("--help").returncode == 0
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.5


def test_dry_run_prints_what_config_reads(tmp_path):
    shown = run("sft", "--dry-run", "--max_steps", "3", "--learning-rate=2e-5").stdout
    assert yaml.safe_load(shown)["max_steps"] == 3
    (tmp_path / "sft.yaml").write_text(shown)
    again = run("sft", "--dry-run", "--config", tmp_path / "sft.yaml", "--max-steps", "4").stdout
    assert yaml.safe_load(again) == {**yaml.safe_load(shown), "max_steps": 4}
    (tmp_path / "sft.yaml").write_text("lerning_rate: 1\n")
    bad = run("sft", "--config", tmp_path / "sft.yaml")
    assert bad.returncode == 2 and "sft.yaml" in bad.stderr and "learning_rate" in bad.stderr


def test_any_option_of_a_recipe_can_be_set(tmp_path):
    words = ["run", "quickstart", "--dry-run", "--label.by", "world:length", "--ppo.kl_coef=1e-1"]
    shown = dict(part.split("\n", 1) for part in run(*words).stdout.removeprefix("# ").split("\n# "))
    assert yaml.safe_load(shown["label: label"])["by"] == "world:length"
    assert yaml.safe_load(shown["ppo: ppo"])["kl_coef"] == 0.1
    assert yaml.safe_load(shown["ppo-no-kl: ppo"])["kl_coef"] == 0
    for wrong, mention in (("--lable.by", "label"), ("--label.bye", "by")):
        done = run("run", "quickstart", "--dry-run", wrong, "world:length")
        assert done.returncode == 2 and f"did you mean {mention}?" in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Interrupted("runs/x", 7), 130, "stopped at step 7 of runs/x; go on with:\n  tutelage sft --seed 1 --resume"),
        (KeyboardInterrupt(), 130, "stopped; go on with:\n  tutelage sft --seed 1 --resume"),
        (RuntimeError("PytorchStreamWriter failed writing file"), 1, "error: PytorchStreamWriter failed writing file"),
        (DiskFullError("the disk is full: x"), 1, "error: the disk is full: x; go on with:\n  tutelage sft"),
        (UserError("is wrong", where="x.jsonl, row 2", mend="mend it"), 2, "x.jsonl, row 2: is wrong\n  mend: mend it"),
    ],
)
def test_what_went_wrong_is_one_message_and_a_status(monkeypatch, capsys, error, status, said):
    def fail(verb, words):
        raise error

    monkeypatch.setattr("tutelage.cli.stage.main", fail)
    monkeypatch.setattr("sys.argv", ["tutelage"])
    with pytest.raises(SystemExit) as left:
        main(["sft", "--seed", "1"])
    err = capsys.readouterr().err
    assert left.value.code == status and said in err and "Traceback" not in err


@pytest.mark.parametrize("verb", ["lab", "study"])
def test_a_lesson_or_study_that_was_stopped_is_gone_on_with_by_its_own_words(monkeypatch, capsys, verb):
    def fail(verb, words):
        raise Interrupted("runs/x", 7)

    monkeypatch.setattr("tutelage.cli.studies.main", fail)
    monkeypatch.setattr("sys.argv", ["tutelage"])
    with pytest.raises(SystemExit) as left:
        main([verb, "name", "--fast"])
    assert left.value.code == 130 and f"go on with:\n  tutelage {verb} name --fast\n" in capsys.readouterr().err
