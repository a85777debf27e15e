"""Logits that are made in a way that is not known are refused when a model is loaded, never computed wrong."""

import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM

from tutelage.engine.attention import NAME
from tutelage.errors import UserError
from tutelage.models.architecture import check_architecture


def tiny(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.config._attn_implementation = NAME
    return model.eval()


def test_a_scaled_head_is_known_and_an_unknown_one_refused(tmp_path, monkeypatch):
    config = CohereConfig(
        vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, logit_scale=0.3
    )
    model = tiny(CohereForCausalLM(config))
    check_architecture(model, tmp_path)
    model.logit_scale = 2.0  # the forward pass reads this, the configuration says otherwise
    with pytest.raises(UserError, match="makes its logits"):
        check_architecture(model, tmp_path)
