"""Six architectures, tiny: packed, shared and chunked losses, gradients and samples equal plain padded transformers.

And five whose attention cannot be packed, which are computed a padded batch at a time.
"""

import copy
from pathlib import Path

import pytest
import torch
from torch.nn.functional import logsigmoid
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MptConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3NextConfig,
)

from tutelage.algorithms.dpo import dpo_loss
from tutelage.engine import attention, logprobs
from tutelage.engine.decoding import fusable
from tutelage.engine.packing import pack
from tutelage.engine.sampling import SamplingParams, row_seed, sample
from tutelage.engine.unpacked import packs
from tutelage.models import Policy, ScalarModel
from tutelage.models.architecture import check_architecture

SIZE = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZE, num_key_value_heads=2),
    "qwen2": Qwen2Config(**SIZE, num_key_value_heads=2, tie_word_embeddings=True),
    "gpt2": GPT2Config(
        vocab_size=120, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0, bos_token_id=1, eos_token_id=2
    ),
    "gpt_neox": GPTNeoXConfig(**SIZE),
    "gemma2": Gemma2Config(
        **SIZE,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=7,
        final_logit_softcapping=5.0,
    ),
    "gpt_oss": GptOssConfig(**SIZE, num_key_value_heads=2, head_dim=8, sliding_window=7, num_local_experts=4),
}
UNPACKED = {
    "bloom": BloomConfig(
        vocab_size=120, hidden_size=32, n_layer=2, n_head=4, pad_token_id=0, bos_token_id=1, eos_token_id=2
    ),
    "mpt": MptConfig(
        vocab_size=120,
        d_model=32,
        n_layers=2,
        n_heads=4,
        max_seq_len=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "falcon": FalconConfig(**SIZE, alibi=True),
    "qwen2_moe": Qwen2MoeConfig(  # its window is in its mask alone
        **SIZE,
        num_key_value_heads=2,
        num_experts=4,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        use_sliding_window=True,
        sliding_window=7,
        max_window_layers=1,
    ),
    "qwen3_next": Qwen3NextConfig(
        **SIZE,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention"],
    ),
}
CONFIGS |= UNPACKED
PREFIX = [5, 6, 7, 8, 9, 10, 11, 12]
# Two completions of one prompt, one of another, and a lone short one.
SEQUENCES = [[*PREFIX, 20, 21, 22, 23], [*PREFIX, 30, 31], [40, 41, 42, 43, 44, 45, 46, 47, 48, 49], [50, 51, 52]]
STARTS = [8, 8, 4, 1]


def build(auto, name):
    torch.manual_seed(3)
    attention = None if name == "falcon" else "tutelage"
    model = auto.from_config(copy.deepcopy(CONFIGS[name]), dtype=torch.float32, attn_implementation=attention).eval()
    for parameter in model.parameters():  # larger weights than fresh ones: attention and caps do something
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else parameter.data.add_(
            torch.randn_like(parameter) * 0.1
        )
    plain = copy.deepcopy(model)
    # transformers' `eager` adds Falcon's ALiBi twice, in the mask and to the scores: its default does not.
    plain.config._attn_implementation = "sdpa" if name == "falcon" else "eager"
    check_architecture(model, Path(name))
    assert packs(model) == (name not in UNPACKED)
    return model, plain


def padded():
    longest = max(map(len, SEQUENCES))
    ids = torch.tensor([s + [0] * (longest - len(s)) for s in SEQUENCES])
    return ids, torch.arange(longest) < torch.tensor([len(s) for s in SEQUENCES])[:, None]


def close(ours, plain):
    """Equal to 1e-5 of the largest element."""
    scale = float(plain.detach().abs().max())
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5 * max(scale, 1e-6))


def compare_gradients(model, plain, ours, theirs):
    close(ours, theirs)
    ours.backward()
    theirs.backward()
    for (name, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None and float(b.grad.abs().max()) > 1e-7:
            close(a.grad, b.grad)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_supervised_and_weighted_losses_and_every_gradient(name, share, monkeypatch):
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", 360)  # chunks of three tokens
    monkeypatch.setattr(logprobs, "PRODUCT_BYTES", 4 * 360)
    monkeypatch.setattr(logprobs, "GRADIENT_ELEMENTS", 840)  # products of seven
    monkeypatch.setattr(attention, "BLOCK", 5)  # sequences of three blocks of queries
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 300)  # and one sequence at a time
    model, plain = build(AutoModelForCausalLM, name)
    packed = pack(SEQUENCES, share=share)
    assert (packed.shared is not None) == share
    targets = torch.cat(
        [torch.arange(int(o) + s, int(o) + len(q)) for o, s, q in zip(packed.offsets, STARTS, SEQUENCES, strict=False)]
    )
    weights = torch.linspace(-1, 2, len(targets))  # signed, as advantages are
    got, entropy = Policy(model, None).logprobs(packed, targets, 0.7)

    ids, mask = padded()
    full = (plain(input_ids=ids, attention_mask=mask.long()).logits / 0.7).log_softmax(-1)
    rows = [(i, t) for i, (s, q) in enumerate(zip(STARTS, SEQUENCES, strict=True)) for t in range(s, len(q))]
    want = torch.stack([full[i, t - 1, SEQUENCES[i][t]] for i, t in rows])
    plain_entropy = torch.stack([-(full[i, t - 1].exp() * full[i, t - 1]).sum() for i, t in rows])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, plain_entropy.detach(), rtol=1e-4, atol=1e-5)
    compare_gradients(model, plain, (weights * got).sum() + got.mean(), (weights * want).sum() + want.mean())


@pytest.mark.parametrize("name", CONFIGS)
def test_reward_loss_and_every_gradient(name):
    model, plain = build(AutoModelForSequenceClassification, name)
    scores = ScalarModel(model, None).scores(pack(SEQUENCES, share=True))
    ids, mask = padded()
    hidden = plain.base_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    want = plain.score(hidden)[torch.arange(len(ids)), mask.sum(1) - 1, 0]
    torch.testing.assert_close(scores, want, rtol=1e-5, atol=1e-5)

    def loss(s):
        return -logsigmoid(s[0] - s[1]) - logsigmoid(s[3] - s[2])

    compare_gradients(model, plain, loss(scores), loss(want))


@pytest.mark.parametrize("name", CONFIGS)
def test_dpo_loss_and_every_gradient(name):
    model, plain = build(AutoModelForCausalLM, name)
    pair, start = SEQUENCES[:2], STARTS[0]
    packed = pack(pair, share=True)
    lengths = [len(s) - start for s in pair]
    targets = torch.cat(
        [torch.arange(int(o) + start, int(o) + len(s)) for o, s in zip(packed.offsets, pair, strict=False)]
    )
    got, _ = Policy(model, None).logprobs(packed, targets)
    ids, mask = (x[:2] for x in padded())
    full = plain(input_ids=ids, attention_mask=mask.long()).logits.log_softmax(-1)
    want = torch.cat(
        [full[i, start - 1 : len(s) - 1].gather(-1, ids[i, start : len(s), None])[:, 0] for i, s in enumerate(pair)]
    )

    def loss(logprobs):
        chosen, rejected = (part.sum()[None] for part in logprobs.split(lengths))
        return dpo_loss(chosen + 20.0, rejected + 18.0, 0.1).mean()

    compare_gradients(model, plain, loss(got), loss(want))


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_equals_generate_and_logprobs_the_trainers(name):
    model, plain = build(AutoModelForCausalLM, name)
    assert fusable(model) == (name in ("llama", "qwen2"))
    prompts = [s[:n] for s, n in zip(SEQUENCES, (8, 3, 9, 2), strict=True)]
    greedy = sample(model, prompts, [[0]] * 4, SamplingParams(8, temperature=0.0), [], batch_size=3)
    for prompt, row in zip(prompts, greedy, strict=True):
        whole = plain.generate(
            torch.tensor([prompt]), max_new_tokens=8, min_new_tokens=8, do_sample=False, eos_token_id=None
        )
        assert row[0].tokens == whole[0, len(prompt) :].tolist()
    seeds = [[row_seed(0, str(i), n) for n in range(3)] for i in range(4)]
    params = SamplingParams(8, temperature=0.8, top_p=0.9)
    drawn = sample(model, prompts, seeds, params, [2], batch_size=5)
    again = sample(model, prompts, seeds, params, [2], batch_size=64)
    assert [[s.tokens for s in row] for row in drawn] == [[s.tokens for s in row] for row in again]
    for prompt, row in zip(prompts, drawn, strict=True):
        for one in row:
            targets = torch.arange(len(prompt), len(prompt) + len(one.tokens))
            trainers, _ = Policy(model, None).logprobs(pack([prompt + one.tokens]), targets, 0.8)
            torch.testing.assert_close(torch.tensor(one.logprobs), trainers.detach(), atol=1e-4, rtol=1e-4)
