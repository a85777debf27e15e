"""The command from outside: quick without torch, exit status 2 with a message and nothing written for bad input."""

import subprocess
import sys
import time

import pytest
import yaml

from tutelage.cli.main import main
from tutelage.errors import UserError
from tutelage.runs import Interrupted


def run(*words):
    return subprocess.run([sys.executable, "-m", "tutelage", *map(str, words)], capture_output=True, text=True)


def test_front_is_free_of_torch():
    code = "import sys; import tutelage.cli.main, tutelage.configs, tutelage.recipe, tutelage.data.sources, tutelage.data.check, tutelage.data.convert, tutelage.data.stats, tutelage.cli.data, tutelage.runs, tutelage.report, tutelage.world, tutelage.evaluation.win_rate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_and_version():
    assert run("--help").returncode == 0 and "ppo" in run("--help").stdout
    assert "--learning-rate" in run("sft", "--help").stdout
    assert run("--version").stdout.startswith("tutelage ")


@pytest.mark.parametrize(
    ("words", "mention"),
    [
        (["stf"], "sft"),
        (["sft", "--lerning-rate", "1"], "learning-rate"),
        (["sft", "--learning-rate", "fast"], "learning-rate"),
        (["sft", "--learning-rate", "-1"], "learning_rate"),
        (["sft", "--learning-rate", "nan"], "learning_rate"),
        (["ppo", "--max-steps", "1"], "reward_model"),
        (["sft", "--model", "nowhere"], "nowhere"),
        (["reward", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["run", "nowhere.yaml"], "nowhere.yaml"),
        (["label", "--by", "world:nobody", "--data", "x.jsonl"], "nobody"),
        (["world", "paint"], "paint"),
    ],
)
def test_bad_words(tmp_path, words, mention):
    out = tmp_path / "out"
    more = ["--out", out] if words[0] in ("sft", "reward", "ppo") else []
    done = run(*words, *more)
    assert done.returncode == 2 and mention in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("stages: [\n", "bad.yaml"),
        ("stages:\n  - sft: {lerning_rate: 1}\n", "lerning_rate"),
        ("stages:\n  - stf: {}\n", "sft"),
        ("stage: []\n", "stages"),
        ("[]", "mapping"),
        ("stages:\n  - sft: {epochs: many}\n", "epochs"),
    ],
)
def test_bad_recipes(tmp_path, text, mention):
    (tmp_path / "bad.yaml").write_text(text)
    done = run("run", tmp_path / "bad.yaml", "--out", tmp_path / "out")
    assert done.returncode == 2 and mention in done.stderr and "Traceback" not in done.stderr


def test_model_folders_that_are_none(tmp_path):
    (tmp_path / "modelless").mkdir()
    done = run("sft", "--model", tmp_path / "modelless", "--max-steps", "1", "--out", tmp_path / "out")
    assert done.returncode == 2 and "modelless" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["world"], ["chat", "--help"], ["run", "--help"], ["world", "show", "--help"]])
def test_help_of_the_other_verbs(words):
    done = run(*words)
    assert done.returncode == 0 and "usage" in done.stdout


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
        (Interrupted("runs/x", 7), 130, "stopped at step 7; go on with:\n  tutelage world show --resume"),
        (KeyboardInterrupt(), 130, "stopped"),
        (UserError("is wrong", where="x.jsonl, row 2", mend="mend it"), 2, "x.jsonl, row 2: is wrong\n  mend: mend it"),
    ],
)
def test_what_went_wrong_is_one_message_and_a_status(monkeypatch, capsys, error, status, said):
    def fail(verb, words):
        raise error

    monkeypatch.setattr("tutelage.cli.world.main", fail)
    with pytest.raises(SystemExit) as left:
        main(["world", "show"])
    err = capsys.readouterr().err
    assert left.value.code == status and said in err and "Traceback" not in err
