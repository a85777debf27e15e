"""Bad input: exit status 2, one message that names the place and the mend, no traceback, nothing written."""

import json
import shutil

import pytest
import yaml

from tutelage.cli.main import main

PAIR = {"prompt": "Say 1", "chosen": "It is 1.", "rejected": "No."}


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """refused(mention, *words): runs the command and checks how it refuses."""
    monkeypatch.chdir(tmp_path)

    def run(mention, *words):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        said = capsys.readouterr()
        assert left.value.code == 2
        assert mention in said.err + said.out, said.err
        assert "Traceback" not in said.err
        assert sorted(tmp_path.rglob("*")) == before
        return said.err

    return run


@pytest.mark.parametrize(
    ("mention", "words"),
    [
        ("sft", "stf"),
        ("did you mean --learning-rate?", "sft --lerning-rate 1"),
        ("--learning-rate", "sft --learning-rate fast"),
        *((f"({name})", f"sft --{name.replace('_', '-')}=-1") for name in ("learning_rate", "max_steps", "epochs")),
        *((f"({name})", f"sft --{name.replace('_', '-')}=0") for name in ("batch_size", "max_length", "save_every")),
        *(("(learning_rate)", f"sft --learning-rate={value}") for value in ("0", "nan", "inf")),
        ("(dropout)", "sft --dropout 1"),
        ("(pretraining_mix)", "sft --pretraining-mix 1"),
        ("float8", "sft --dtype float8"),
        ("nowhere.yaml: there is no such file", "sft --config nowhere.yaml"),
        ("foo", "sft foo"),
        ("(reward_model)", "ppo --max-steps 1"),
        ("(reward_model)", "rloo --max-steps 1"),
        ("sigmoid", "dpo --loss sigmod"),
        ("(minibatch_size)", "ppo --batch-size 8 --minibatch-size 16"),
        ("(kl_target)", "ppo --kl-target=-1"),
        ("(top_p)", "sample --top-p 1.5"),
        ("(min_new_tokens)", "sample --min-new-tokens 9 --max-new-tokens 5"),
        ("tarin", "sample --split tarin"),
        ("(overlap)", "label --overlap 2"),
        ("(models): needs two models", "eval --models a=world"),
        ("option --out: is needed", "export --model world"),
        ("paint", "world paint"),
        ("option --workers: 2 processes cannot share the models", "serve --workers 2"),
        ("option --workers: 0 cannot be used", "feedback serve --workers 0"),
        ("did you mean tiny?", "world build --size tinny"),
        ("Missing from tutelage data check", "data check"),
        ("nowhere.yaml: there is no such file", "run nowhere.yaml"),
    ],
)
def test_words(refused, mention, words):
    refused(mention, *words.split())


@pytest.mark.parametrize(
    ("mention", "words"),
    [
        ("nowhere: there is no such folder", "sft --model nowhere"),
        ("nowhere.jsonl", "reward --data nowhere.jsonl"),
        ("the world has no comparisons", "reward"),
        ("the world has no completions", "label"),
        ("nobody", "label --by world:nobody --data x.jsonl"),
        ("is not a reward model", "ppo --reward-model world --force"),
        ("gate", "ppo --reward-model world"),
        ("nowhere", "eval --models a=world b=nowhere"),
        ("nowhere", "export --model nowhere --out x"),
        ("nowhere", "chat --model nowhere"),
    ],
)
def test_words_that_only_the_stage_can_judge(refused, mention, words):
    refused(mention, *words.split())


@pytest.mark.parametrize(
    ("mention", "text"),
    [
        ("bad.yaml: is not YAML", "stages: [\n"),
        ("bad.yaml: is not YAML", "stages:\n  - ppo: *nothing\n"),
        ("bad.yaml: is not YAML", b"\xff\xfe\x00"),
        ("does not hold a mapping", "[]"),
        ("does not hold a mapping", ""),
        ("did you mean stages?", "stage: []\n"),
        ("has no stages", "stages: []\n"),
        ("did you mean learning_rate?", "stages:\n  - sft: {lerning_rate: 1}\n"),
        ("did you mean sft?", "stages:\n  - stf: {}\n"),
        ("stage 1 (sft), key epochs: 'many' is not of type float", "stages:\n  - sft: {epochs: many}\n"),
        ("(learning_rate)", "stages:\n  - sft: {learning_rate: .nan}\n"),
        ("two stages are called sft", "stages:\n  - sft: {}\n  - sft: {}\n"),
        ("cannot name a folder", "stages:\n  - sft: {name: ../../x}\n"),
        ("key model: there is no model 'nowhere'", "model: nowhere\nstages:\n  - sft: {}\n"),
        ("stage ppo, key reward_model", "stages:\n  - sft: {}\n  - ppo: {reward_model: nowhere}\n"),
        ("stage ppo: has no reward model", "stages:\n  - sft: {}\n  - ppo: {}\n"),
        ("stage grpo: has no reward model", "stages:\n  - sft: {}\n  - grpo: {}\n"),
        ("stage cai: has no policy", "stages:\n  - cai: {}\n"),
        ("stage cai-label: has no critic", "stages:\n  - sft: {}\n  - cai: {}\n  - cai-label: {data: cai}\n"),
        ("key critic: there is no model 'nowhere'", "stages:\n  - sft: {}\n  - cai: {critic: nowhere}\n"),
        (
            "there is no constitution 'wrld'",
            "stages:\n  - sft: {}\n  - cai: {critic: 'openai:m', constitution: wrld}\n",
        ),
        ("key prm: there is no model 'nowhere'", "stages:\n  - rerank: {prm: nowhere}\n"),
        ("nowhere.jsonl", "data: nowhere.jsonl\nstages:\n  - sft: {}\n"),
    ],
)
def test_recipes(refused, tmp_path, mention, text):
    (tmp_path / "bad.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(mention, "run", "bad.yaml", "--out", "out")


def test_configs_of_another_verb_or_with_another_key(refused, tmp_path):
    (tmp_path / "ppo.yaml").write_text("stage: ppo\nmax_steps: 3\n")
    refused("ppo.yaml: holds options of ppo, not of sft", "sft", "--config", "ppo.yaml")
    (tmp_path / "sft.yaml").write_text("lerning_rate: 1\n")
    refused("sft.yaml: unknown key 'lerning_rate' (did you mean learning_rate?)", "sft", "--config", "sft.yaml")


def test_places_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "Say 1"}) + "\n")
    for place in ("file", "file/below"):
        refused("file: is a file, not a folder", "sft", "--out", place)
        refused("file: is a file, not a folder", "run", "quickstart", "--out", place)
    (tmp_path / "folder.jsonl").mkdir()
    refused("folder.jsonl: is a folder, not a file", "sample", "--out", "folder.jsonl")
    refused("answers: is of no known kind (no extension)", "sample", "--out", "answers")  # before anything is sampled
    refused("would be replaced", "sample", "--data", "prompts.jsonl", "--out", "prompts.jsonl")
    refused("folder: is there already", "export", "--model", "world", "--out", "folder")


@pytest.mark.parametrize(
    ("mention", "verb", "rows"),
    [
        ("holds no demonstrations", "sft", [{"prompt": "Say 1"}]),
        ("holds no demonstrations", "sft", [{"text": "Words."}]),
        ("holds no comparisons", "reward", [{"prompt": "Say 1", "completion": "1"}]),
        ("holds no plain text", "pretrain", [PAIR]),
        ("every comparison is a tie", "reward", [{"prompt": "p", "completions": ["a", "b"], "ranks": [1, 1]}]),
        ("row 1: is neither a prompt nor a completion", "label", [PAIR]),
        ("(max_length)", "sft", [{"prompt": "word " * 2000, "completion": "x"}]),
        ("(max_length)", "reward", [{**PAIR, "prompt": "word " * 2000}]),
        ("(max_length)", "sample", [{"prompt": "word " * 2000}]),
    ],
)
def test_data_of_the_wrong_kind_for_the_verb(refused, tmp_path, mention, verb, rows):
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    length = ["--max-length", "64"] if verb != "label" else []
    said = refused(
        mention, verb, "--data", "data.jsonl", "--out", "out.jsonl" if verb in ("label", "sample") else "out", *length
    )
    assert "data.jsonl" in said or "max-length" in said


def edited(folder, name, change):
    values = json.loads((folder / name).read_text())
    change(values)
    (folder / name).write_text(json.dumps(values))


def reweighted(folder, change):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without_a_layer(folder):
    reweighted(folder, lambda weights: weights.pop("model.layers.0.mlp.down_proj.weight"))


def with_a_wrong_shape(folder):
    key = "model.layers.0.mlp.down_proj.weight"
    reweighted(folder, lambda weights: weights.update({key: weights[key][1:].clone()}))


def with_nan(folder):
    reweighted(folder, lambda weights: weights["model.norm.weight"].fill_(float("nan")))


def with_a_small_embedding(folder):
    edited(folder, "config.json", lambda values: values.update(vocab_size=900))
    key = "model.embed_tokens.weight"
    reweighted(folder, lambda weights: weights.update({key: weights[key][:900].clone()}))


@pytest.mark.parametrize(
    ("mention", "spoil"),
    [
        ("has no config.json", lambda f: (f / "config.json").unlink()),
        ("config.json is not JSON", lambda f: (f / "config.json").write_text("{oops")),
        ("does not load", lambda f: edited(f, "config.json", lambda values: values.update(model_type="zorp"))),
        ("has no weights", lambda f: (f / "model.safetensors").unlink()),
        ("does not load", lambda f: (f / "model.safetensors").write_bytes(b"\0" * 100)),
        ("mlp.down_proj.weight is missing", without_a_layer),
        ("mlp.down_proj.weight has shape [47, 128] instead of [48, 128]", with_a_wrong_shape),
        ("model.norm.weight holds NaN", with_nan),
        ("the tokenizer has 1024 tokens, the model's embedding only 900", with_a_small_embedding),
        ("has no tokenizer", lambda f: [path.unlink() for path in f.glob("tokenizer*")]),
        ("the tokenizer does not load", lambda f: (f / "tokenizer.json").write_text("{oops")),
        ("has no chat template", lambda f: [path.unlink() for path in f.glob("chat_template*")]),
    ],
)
def test_spoiled_model_folders(refused, nano, tmp_path, mention, spoil):
    folder = tmp_path / "spoiled"
    shutil.copytree(nano, folder)
    spoil(folder)
    said = refused(mention, "sft", "--model", "spoiled", "--max-steps", "1", "--demonstrations", "10", "--out", "out")
    assert "spoiled" in said


def test_resuming_with_other_options(refused, nano, tmp_path):
    words = ["sft", "--model", nano, "--out", "run", "--max-steps", "2", "--demonstrations", "10", "--max-length", "96"]
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["demonstrations"] == 10
    refused("run: holds a run already", *words)
    refused("seed: 0 then, 1 now", *words, "--resume", "--seed", "1")
    refused("holds a run of sft, not of pretrain", "pretrain", "--out", "run", "--resume")
    refused("has done 2 steps already, more than the 1", *words, "--resume", "--max-steps", "1")
