"""The command from outside: quick without torch, exit status 2 with a message and nothing written for bad input."""

import subprocess
import sys

import pytest


def run(*words):
    return subprocess.run([sys.executable, "-m", "tutelage", *map(str, words)], capture_output=True, text=True)


def test_front_is_free_of_torch():
    code = "import sys; import tutelage.cli.main, tutelage.configs, tutelage.recipe, tutelage.data.sources, tutelage.runs, tutelage.report, tutelage.world, tutelage.evaluation.win_rate; sys.exit('torch' in sys.modules)"
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
