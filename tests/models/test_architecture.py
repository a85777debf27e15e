"""Architectures beyond those of tests/engine: right, or refused when they load with a reason; never silently wrong.

Those that cannot be packed are computed a padded batch at a time, which is said.
"""

import json

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertGenerationConfig,
    BloomConfig,
    CohereConfig,
    DiffLlamaConfig,
    DogeConfig,
    FalconConfig,
    Gemma3Config,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    Qwen2MoeConfig,
    RobertaConfig,
    RwkvConfig,
)

from tutelage.data.templates import render_completion
from tutelage.engine.packing import context_of, pack
from tutelage.engine.sampling import SamplingParams, sample
from tutelage.errors import UserError
from tutelage.models import load_policy, load_scalar, save_model

SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}


@pytest.fixture
def folder(tmp_path, tokenizer):
    """Writes a model of some configuration with the world's tokenizer; its folder."""

    def write(kind, **options):
        config = kind(**{**SIZE, "vocab_size": len(tokenizer), **options})
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return write


EXPERTS = {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
PADDED = {
    "a window in the mask alone": (
        Qwen2MoeConfig,
        {**EXPERTS, "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2},
        "has a sliding window of 64 tokens that does not go through",
    ),
    "chunks": (
        Llama4TextConfig,
        {
            "head_dim": 8,
            "num_local_experts": 2,
            "intermediate_size_mlp": 16,
            "attention_chunk_size": 4,
            "pad_token_id": None,
        },
        "attends in chunks",
    ),
    "a mask of its own": (DogeConfig, {}, "cannot be computed on packed sequences;"),
    "a table of attentions": (FalconConfig, {}, "attention does not go through transformers' interface"),
    "attention by hand": (MptConfig, {"d_model": 32, "n_heads": 4, "n_layers": 2}, "cannot be computed on packed"),
    "linear biases": (BloomConfig, {}, "attention does not go through transformers' interface"),
    "a convolution": (Lfm2Config, {"layer_types": ["full_attention", "conv"]}, "cannot be packed"),
    "a state": (MambaConfig, {"state_size": 4}, "cannot be packed"),
}
REFUSED = {
    "an encoder": (BertGenerationConfig, {}, "its attention looks ahead"),
    "positions of its own": (RobertaConfig, {"is_decoder": True}, "in a batch padded on the left, otherwise than"),
    "a state of its own": (RwkvConfig, {"attention_hidden_size": 32}, "it takes none of transformers' caches"),
}


@pytest.mark.parametrize("name", PADDED)
def test_what_cannot_be_packed_is_computed_as_transformers_does(folder, name, capsys):
    kind, options, reason = PADDED[name]
    path = folder(kind, **options)
    policy = load_policy(path, "float32")
    said = capsys.readouterr().err
    assert reason in said and said.endswith("; computed a padded batch at a time, slower\n") and said.count("\n") == 1
    load_policy(path, "float32")
    assert not capsys.readouterr().err  # once, however many roles load it
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    rows = [[5, 6, 7, 8, 9, 10], [20, 21, 22]]
    ours, _ = policy.logprobs(pack(rows, share=True), torch.tensor([1, 2, 3, 4, 5, 7, 8]))
    logprobs = [plain(input_ids=torch.tensor([row])).logits[0, :-1].log_softmax(-1) for row in rows]
    theirs = [some.gather(1, torch.tensor(row[1:])[:, None])[:, 0] for some, row in zip(logprobs, rows, strict=True)]
    torch.testing.assert_close(ours, torch.cat(theirs), rtol=1e-4, atol=1e-4)
    drawn = sample(policy.model, rows, [[0], [0]], SamplingParams(6, temperature=0.0), [])
    assert [row[0].tokens for row in drawn] == [generated(plain, row) for row in rows]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_computed_as_transformers_does_is_refused(folder, name):
    kind, options, reason = REFUSED[name]
    path = folder(kind, **options)
    with pytest.raises(UserError, match=rf"{reason}.*\n.*mend: .*another architecture"):
        load_policy(path, "float32")


def generated(plain, row):
    asked = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    return plain.generate(torch.tensor([row]), attention_mask=torch.ones(1, len(row)), **asked)[0, len(row) :].tolist()


def test_a_window_that_the_context_fits_into_is_none(folder):
    options = {**EXPERTS, "use_sliding_window": True, "sliding_window": 128, "max_window_layers": 2}
    assert load_policy(folder(Qwen2MoeConfig, **options), "float32").model.config.sliding_window == 128


def test_attention_twice_in_a_layer_samples_as_generate_does(folder):
    path = folder(DiffLlamaConfig)
    plain = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    prompts = [[5, 6, 7, 8, 9, 10], [20, 21, 22]]
    drawn = sample(load_policy(path, "float32").model, prompts, [[0], [0]], SamplingParams(6, temperature=0.0), [])
    assert [row[0].tokens for row in drawn] == [generated(plain, prompt) for prompt in prompts]


def test_a_model_of_text_and_images_has_its_texts_context_and_a_head(folder, tokenizer):
    image = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**SIZE, "vocab_size": len(tokenizer), "head_dim": 8, "sliding_window": 6}
    special = {"image_token_index": 7, "boi_token_index": 8, "eoi_token_index": 9}
    vision = {**image, "image_size": 28, "patch_size": 14}
    path = folder(Gemma3Config, text_config=text, vision_config=vision, mm_tokens_per_image=4, **special)
    assert context_of(load_policy(path, "float32").model) == 128
    reward = load_scalar(path, "float32", trained=False)
    assert reward.scores(pack([[5, 6, 7]])).shape == (1,)
    save_model(path.parent / "reward", reward, {"role": "reward"}, verify=True)
    assert "tutelage" not in (path.parent / "reward" / "config.json").read_text()


def test_no_class_for_a_reward_model_is_said(folder):
    with pytest.raises(UserError, match="has no ModelForSequenceClassification for a model of type cohere"):
        load_scalar(folder(CohereConfig), "float32", trained=False)


@pytest.mark.parametrize("lora", [None, {"r": 2, "lora_alpha": 4, "target_modules": []}])
def test_padding_with_the_end_token_does_not_move_the_score(folder, lora):
    """Plain transformers reads it at the last token that is not padding: that must be the end token, as here."""
    path = folder(LlamaConfig)
    about = json.loads((path / "tokenizer_config.json").read_text())
    about["pad_token"] = about["eos_token"]
    (path / "tokenizer_config.json").write_text(json.dumps(about))
    reward = load_scalar(path, "float32", trained=False, lora=lora)
    save_model(path.parent / "reward", reward, {"role": "reward"}, verify=True)
    assert reward.model.config.pad_token_id == reward.tokenizer.pad_token_id == 1  # training goes on as it was
    if lora is not None:
        return  # compared with what plain peft reads by save_model
    asked = [{"role": "user", "content": "Who is it?"}]
    rendered = [
        render_completion(reward.tokenizer, asked, answer).input_ids for answer in ("A man.", "Two women, I think.")
    ]
    tokenizer = AutoTokenizer.from_pretrained(path.parent / "reward")
    plain = AutoModelForSequenceClassification.from_pretrained(path.parent / "reward").eval()
    padded = tokenizer.pad({"input_ids": rendered}, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(plain(**padded).logits[:, 0], reward.scores(pack(rendered)), rtol=1e-4, atol=1e-5)
    again = load_scalar(path.parent / "reward", "float32")  # no gradient for the same row as before
    assert again.model.base_model.embed_tokens.padding_idx == reward.model.base_model.embed_tokens.padding_idx == 1
