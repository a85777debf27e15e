"""Every training loop on a tiny BLOOM, whose attention cannot be packed."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BloomConfig

from small_stages import make_inputs, rows, stages
from tutelage.stages import ppo, preference, reward, sft


@pytest.fixture(scope="module")
def bloom(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bloom") / "model"
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    torch.manual_seed(3)
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4, **special)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_each_loop_trains_it_and_leaves_a_checkpoint_of_transformers(bloom, tmp_path, little_text):
    """Each save is scored again by plain transformers, and PPO ends where sampler and trainer disagree."""
    small = stages(make_inputs(bloom, tmp_path), str(bloom))
    for name, stage in (("sft", sft), ("reward", reward), ("dpo", preference), ("ppo", ppo)):
        stage.run(replace(small[name], out=str(tmp_path / f"{name}-run")))
        assert all(row["loss"] == row["loss"] for row in rows(tmp_path / f"{name}-run"))
        folder = tmp_path / f"{name}-run" / "checkpoints" / "latest"
        auto = AutoModelForSequenceClassification if name == "reward" else AutoModelForCausalLM
        assert auto.from_pretrained(folder).config.model_type == "bloom"
