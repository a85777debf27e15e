"""The first step of SFT, reward modelling and DPO loses what TRL's trainers lose on the same rows, where TRL is installed."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from tutelage.configs import DPOConfig, RewardConfig, SFTConfig
from tutelage.models import Policy, resolve, save_model
from tutelage.stages import preference, reward, sft
from tutelage.world.build import SIZES, make_model

trl = pytest.importorskip("trl", reason="TRL is not installed")
datasets = pytest.importorskip("datasets", reason="TRL's datasets are not installed")

ROWS = [
    ("Tell me the color of the ring.", "The ring is brown.", "It is a ring, and rings are many things to many people."),
    ("Name a fruit.", "Apple.", "Go away."),
    ("What does the king hold? Answer in one word.", "A sword of gold.", "Sword."),
    ("Say something about the sea, please.", "The sea is deep and blue.", "No."),
]


@pytest.fixture
def files(tmp_path):
    """The rows as both sides read them; and a second model, as a reference."""
    said = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    pairs = [{"prompt": [{"role": "user", "content": p}], "chosen": said(c), "rejected": said(r)} for p, c, r in ROWS]
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return folder / "train.jsonl", pairs


@pytest.fixture
def other(tmp_path, tokenizer):
    folder = tmp_path / "other"
    model = make_model(SIZES["nano"], tokenizer, 1, "float32")
    for parameter in model.parameters():  # far enough from the first that the log-ratios are not all near zero
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    save_model(folder, Policy(model, tokenizer), {"role": "policy"}, verify=True)
    return folder


def ours(stage, config):
    """The loss of the first step."""
    stage.run(config)
    return json.loads((Path(config.out) / "metrics.jsonl").read_text().splitlines()[0])["loss"]


def theirs(trainer):
    """The loss that TRL's trainer computes of its first batch, with all of the rows in it."""
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.eval()
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, batch))


def settings(tmp_path):
    common = {"output_dir": str(tmp_path / "trl"), "per_device_train_batch_size": len(ROWS), "report_to": "none"}
    return common | {"use_cpu": True, "bf16": False, "max_length": 256, "gradient_checkpointing": False}


def same(config_type, nano, files, tmp_path, **options):
    common = {"model": str(nano), "data": str(files[0]), "out": str(tmp_path / "ours"), "max_steps": 1, "seed": 0}
    return config_type(**common, batch_size=len(ROWS), max_length=256, dtype="float32", **options)


def test_sft(nano, files, tmp_path, tokenizer):
    got = ours(sft, same(SFTConfig, nano, files, tmp_path, dropout=0.0))
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in files[1]]
    trainer = trl.SFTTrainer(
        transformers.AutoModelForCausalLM.from_pretrained(nano),
        args=trl.SFTConfig(**settings(tmp_path), completion_only_loss=True),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    assert got == pytest.approx(theirs(trainer), rel=1e-5)


def test_reward(nano, files, tmp_path, tokenizer):
    config = same(RewardConfig, nano, files, tmp_path, learning_rate=1e-30)  # the weights saved are those it began with
    got = ours(reward, config)
    trainer = trl.RewardTrainer(
        transformers.AutoModelForSequenceClassification.from_pretrained(resolve(config.out), num_labels=1),
        args=trl.RewardConfig(**settings(tmp_path)),
        train_dataset=datasets.Dataset.from_list(files[1]),
        processing_class=tokenizer,
    )
    assert got != pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-4)
    assert got == pytest.approx(theirs(trainer), rel=1e-5)


def test_dpo(nano, other, files, tmp_path, tokenizer):
    got = ours(preference, same(DPOConfig, nano, files, tmp_path, reference=str(other), beta=0.1))
    trainer = trl.DPOTrainer(
        transformers.AutoModelForCausalLM.from_pretrained(nano),
        ref_model=transformers.AutoModelForCausalLM.from_pretrained(other),
        args=trl.DPOConfig(**settings(tmp_path), beta=0.1),
        train_dataset=datasets.Dataset.from_list(files[1]),
        processing_class=tokenizer,
    )
    assert got != pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-4)
    assert got == pytest.approx(theirs(trainer), rel=1e-5)
