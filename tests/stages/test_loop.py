"""The whole loop on a nano model: every stage runs, and what it writes loads elsewhere."""

import json
from pathlib import Path

import pytest
import torch

from tutelage.configs import EvalConfig, LabelConfig, PPOConfig, RewardConfig, SampleConfig, SFTConfig
from tutelage.data.sources import prompts
from tutelage.data.templates import render_prompt
from tutelage.engine.packing import pack
from tutelage.engine.sampling import SamplingParams
from tutelage.errors import UserError
from tutelage.models import load_policy
from tutelage.stages import capability, evaluate, label, ppo, reward, sample, sft
from tutelage.stages.sample import draw


@pytest.fixture(scope="module")
def loop(nano, tmp_path_factory, little_text) -> Path:
    out = tmp_path_factory.mktemp("loop")
    common = {"seed": 3, "max_length": 96, "dtype": "float32"}
    sft.run(
        SFTConfig(
            model=str(nano),
            out=str(out / "sft"),
            max_steps=4,
            demonstrations=60,
            learning_rate=1e-3,
            dropout=0.1,
            **common,
        )
    )
    model = str(out / "sft")
    sample.run(
        SampleConfig(model=model, out=str(out / "completions.jsonl"), prompts=60, samples=3, max_new_tokens=8, **common)
    )
    label.run(LabelConfig(data=str(out / "completions.jsonl"), out=str(out / "comparisons.jsonl"), overlap=1.0))
    reward.run(
        RewardConfig(
            model=str(nano),
            data=str(out / "comparisons.jsonl"),
            out=str(out / "reward"),
            max_steps=3,
            batch_size=8,
            learning_rate=1e-3,
            **common,
        )
    )
    return out


def ppo_config(loop, out, **changes):
    values = {
        "model": str(loop / "sft"), "reward_model": str(loop / "reward"), "out": str(out), "max_steps": 4, "batch_size": 8, "minibatch_size": 4,
        "max_new_tokens": 8, "learning_rate": 1e-3, "eval_every": 2, "eval_prompts": 4, "save_every": 2, "force": True, "seed": 3, "max_length": 96, "dtype": "float32",
    }  # fmt: skip
    return PPOConfig(**{**values, **changes})


def test_checkpoints_load_in_plain_transformers_with_the_same_scores(loop):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from tutelage.data.templates import render_completion
    from tutelage.models import load_scalar
    from tutelage.stages.reward import score_groups

    AutoModelForCausalLM.from_pretrained(loop / "sft/checkpoints/latest")
    folder = loop / "reward/checkpoints/latest"
    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ours = load_scalar(folder, "float32")
    rendered = render_completion(tokenizer, [{"role": "user", "content": "Name two towns."}], "Oakton and Selby.")
    theirs = float(plain(input_ids=torch.tensor([rendered.input_ids])).logits)
    assert plain.config.num_labels == 1
    assert abs(score_groups(ours, [[rendered]])[0][0] - (theirs - plain.config.reward_bias)) < 1e-4


def test_ppo_starts_at_no_kl_and_ratio_one(loop, tmp_path):
    ppo.run(ppo_config(loop, tmp_path / "ppo", minibatch_size=8, max_steps=1))
    first = json.loads((tmp_path / "ppo" / "metrics.jsonl").read_text())
    assert abs(first["objective/kl"]) < 1e-4 and abs(first["val/ratio"] - 1) < 1e-4


def test_ppo_takes_several_answers_to_a_prompt(loop, tmp_path, monkeypatch):
    seen, collect = [], ppo.collect
    monkeypatch.setattr(ppo, "collect", lambda *a, **k: seen.append(collect(*a, **k)) or seen[-1])
    ppo.run(ppo_config(loop, tmp_path / "ppo", group_size=4, max_steps=2))
    for rollout in seen:
        names = [prompt.id for prompt in rollout.prompts]
        assert len(names) == 8 and names[:4] == names[:1] * 4 and names[4:] == names[4:5] * 4 and names[0] != names[4]
        assert len({tuple(sequence) for sequence in rollout.sequences}) > 4
    assert {p.id for p in seen[0].prompts}.isdisjoint(p.id for p in seen[1].prompts)
    with pytest.raises(UserError, match="multiple of group_size"):
        ppo_config(loop, tmp_path, group_size=3)


def test_ppo_refuses_a_reward_model_that_failed_its_gate(loop, tmp_path):
    about = loop / "reward/checkpoints/latest/tutelage.json"
    assert "gate" in json.loads(about.read_text())["card"]
    if json.loads(about.read_text())["card"]["gate"] != "passed":
        with pytest.raises(UserError, match="gate"):
            ppo.run(ppo_config(loop, tmp_path / "refused", force=False))
        assert not (tmp_path / "refused").exists()


def test_a_finished_folder_is_not_overwritten(loop, nano):
    with pytest.raises(UserError, match="--resume"):
        sft.run(SFTConfig(model=str(nano), out=str(loop / "sft"), max_steps=1))


def test_evaluation_has_both_judges_and_all_behaviors(loop, nano, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate, "SUITES", dict.fromkeys(evaluate.SUITES, 5))
    monkeypatch.setattr(capability, "QUESTIONS", 8)
    models = (f"base={nano}", f"sft={loop / 'sft'}", f"copy={nano}")
    more = {"prompts": 12, "max_new_tokens": 6, "dtype": "float32", "probes": 6, "kl_from": "sft"}
    result = evaluate.run(EvalConfig(models=models, out=str(tmp_path / "eval"), **more))
    assert {w["judge"] for w in result["win_rates"]} == {"gold", "held-out-labelers"}
    assert {"instruction_following", "harmful_refusal", "over_refusal", "sycophancy", "length_tokens"} <= result[
        "behaviours"
    ]["sft"].keys()
    for measured in ("gold", "corpus_loss"):
        entry = result["behaviours"]["sft"][measured]
        assert entry["ci95"][0] < entry["value"] < entry["ci95"][1]
    assert result["corpus_loss"]["sft"] == pytest.approx(result["behaviours"]["sft"]["corpus_loss"]["value"])
    tax = [row for row in result["changes"] if row["behavior"] == "corpus_loss"]
    assert [(row["policy"], row["baseline"]) for row in tax] == [("sft", "base"), ("copy", "base"), ("copy", "sft")]
    assert tax[1]["difference"] == 0 and tax[1]["p"] == 1
    loss = result["corpus_loss"]
    for row in tax:
        assert row["difference"] == pytest.approx(loss[row["policy"]] - loss[row["baseline"]], abs=1e-9)
        assert row["ci95"][0] <= row["difference"] <= row["ci95"][1] and row["p"] <= row["p_holm"] <= 1
    assert {len(table) for table in result["ratings"].values()} == {3} and len(result["ratings"]) == 2
    assert [step.get("stage") for step in result["models"]["sft"]["made_by"]] == ["sft", None]
    page = (tmp_path / "eval" / "report.html").read_text("utf-8")
    assert '<section id="wins">' in page and "http" not in page.replace("http-equiv", "")


def test_a_prompted_model_reads_demonstrations_before_each_prompt(loop, nano, monkeypatch):
    monkeypatch.setattr(evaluate, "SUITES", dict.fromkeys(evaluate.SUITES, 2))
    read = []
    real = evaluate.draw
    monkeypatch.setattr(evaluate, "draw", lambda policy, asked, *rest: read.append(asked) or real(policy, asked, *rest))
    models = (f"base={nano}", f"sft={loop / 'sft'}")
    common = {"models": models, "prompts": 6, "max_new_tokens": 6, "dtype": "float32"}
    found = evaluate.run(EvalConfig(**common, prompted="base", kl_from="sft"))
    assert {(w["policy"], w["baseline"]) for w in found["win_rates"]} >= {
        ("base-prompted", "base"),
        ("sft", "base-prompted"),
    }
    assert found["kl"].keys() == {"base", "sft"}
    alone, after = (next(asked for asked in read if len(asked) == 6 and len(asked[0].messages) == n) for n in (1, 7))
    for plain, prompted in zip(alone, after, strict=True):
        assert prompted.messages[-1] == plain.messages[-1] and prompted.messages[:6] == after[0].messages[:6]
        assert [m["role"] for m in prompted.messages] == ["user", "assistant"] * 3 + ["user"]
    assert alone[0].messages != after[0].messages
    with pytest.raises(UserError, match="name one of the models: base, sft"):
        evaluate.run(EvalConfig(**common, prompted="bas"))
    with pytest.raises(UserError, match="give that model another name"):
        evaluate.run(EvalConfig(**{**common, "models": (*models, f"base-prompted={nano}")}, prompted="base"))
    with pytest.raises(UserError, match="without --judge"):
        EvalConfig(**common, prompted="base", judge=("gold",)).check()


def test_kl_of_each_model_is_measured_from_the_named_one(loop, nano, monkeypatch):
    monkeypatch.setattr(evaluate, "SUITES", dict.fromkeys(evaluate.SUITES, 2))
    models = (f"base={nano}", f"sft={loop / 'sft'}")
    common = {"models": models, "prompts": 24, "max_new_tokens": 6, "dtype": "float32"}
    found = evaluate.run(EvalConfig(**common, kl_from="base"))["kl"]
    assert found["base"]["value"] == pytest.approx(0, abs=1e-5)
    # A second route: what the sampler says of each token that it drew, against the base's forward pass.
    policy, base = (load_policy(path, "float32") for path in (loop / "sft", nano))
    asked = prompts("world", "report", 24, seed=77)[:24]
    gaps = []
    for prompt, (one,) in zip(asked, draw(policy, asked, 1, SamplingParams(6), 0, 1024), strict=True):
        ids = render_prompt(base.tokenizer, prompt.messages)
        targets = torch.arange(len(ids), len(ids) + len(one.tokens))
        theirs, _ = base.logprobs(pack([ids + one.tokens]), targets, 1.0)
        gaps.append(sum(one.logprobs) - float(theirs.detach().sum()))
    assert found["sft"]["value"] == pytest.approx(sum(gaps) / len(gaps), abs=1e-3)
    with pytest.raises(UserError, match="name one of the models: base, sft"):
        evaluate.run(EvalConfig(**common, kl_from="bas"))
    with pytest.raises(UserError, match="without --judge"):
        EvalConfig(**common, kl_from="base", judge=("gold",)).check()
    with pytest.raises(UserError, match="temperature"):
        EvalConfig(**common, kl_from="base", temperature=0.0).check()


def test_training_runs_on_foreign_pairs(nano, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(
            json.dumps({"prompt": f"Say {i}", "chosen": f"It is {i}.", "rejected": "No."}) + "\n" for i in range(50)
        )
    )
    done = reward.run(
        RewardConfig(
            model=str(nano), data=str(pairs), out=str(tmp_path / "rm"), max_steps=2, batch_size=4, dtype="float32"
        )
    )
    assert done["comparisons"] > 30 and done["reward_model"]["pairs"] > 0
