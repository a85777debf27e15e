"""Architectures whose attention cannot be packed: like lengths share a pass, and rows come and go in the sampler.

That losses, gradients and samples are those of `transformers` is tested in test_architectures.py.
"""

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, MambaConfig, MptConfig

from forked import run_on
from tutelage.engine import sharding, unpacked
from tutelage.engine.dropout import residual_dropout
from tutelage.engine.online import OnlineDecoder, Row
from tutelage.engine.packing import pack
from tutelage.engine.sampling import SamplingParams, sample
from tutelage.models import Policy
from tutelage.models.roles import hidden_states
from tutelage.processes import rank

END = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
KINDS = {
    "bloom": lambda: BloomConfig(vocab_size=120, hidden_size=32, n_layer=2, n_head=4, **END),
    "mpt": lambda: MptConfig(vocab_size=120, d_model=32, n_layers=2, n_heads=4, max_seq_len=40, **END),
    "mamba": lambda: MambaConfig(vocab_size=120, hidden_size=32, state_size=4, num_hidden_layers=2, **END),
}
BEGINNING = list(range(40, 60))
PROMPTS = [[*BEGINNING, 70, 71], [*BEGINNING, 72], [5, 6, 7], [80, 81, 82, 83, 84, 85], [9, 8]]


def build(kind):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(KINDS[kind](), dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    assert not unpacked.packs(model)
    return model


def trainers(model, prompt, tokens):
    """Log-probabilities of tokens that go on from a prompt, as a stage computes them."""
    targets = torch.arange(len(prompt), len(prompt) + len(tokens))
    return Policy(model, None).logprobs(pack([[*prompt, *tokens]]), targets)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_come_and_go_are_drawn_as_if_alone(kind, monkeypatch):
    model = build(kind)
    monkeypatch.setattr(unpacked, "BATCHES", 2)  # batches become one now and then
    params, seeds = SamplingParams(18, min_new_tokens=3), [[10 * p + n for n in range(2)] for p in range(len(PROMPTS))]
    rows = sample(model, PROMPTS, seeds, params, [2], batch_size=3)
    for prompt, ours, some in zip(PROMPTS, rows, seeds, strict=True):
        alone = [sample(model, [prompt], [[seed]], params, [2])[0][0] for seed in some]
        assert [(one.tokens, one.finish) for one in ours] == [(one.tokens, one.finish) for one in alone]
        for one in ours:
            expected = trainers(model, prompt, one.tokens).detach()[3:]
            torch.testing.assert_close(torch.tensor(one.logprobs)[3:], expected, atol=1e-4, rtol=1e-4)


def test_columns_of_padding_are_dropped_where_the_context_ends(monkeypatch):
    model, read = build("mpt"), []
    whole = unpacked._Batch.read
    monkeypatch.setattr(unpacked._Batch, "read", lambda self: read.append(self.ids.shape) or whole(self))
    long, short = sample(model, [[*range(3, 33)], [5, 6, 7]], [[0], [0]], SamplingParams(30), [])
    assert (len(long[0].tokens), len(short[0].tokens)) == (11, 30)
    assert read == [(2, 30), (1, 14)]  # 40 columns: 27 of padding go, one of a new token comes


def test_a_server_draws_as_the_sampler_does():
    model = build("bloom")
    decoder, rows = OnlineDecoder(model, [2]), [Row(p, SamplingParams(12), 7 + n) for n, p in enumerate(PROMPTS)]
    scored = Row(BEGINNING, SamplingParams(0), 1, alternatives=1, score_prompt=True)
    for some in (rows[:2], rows[2:4], [scored, rows[4]]):
        decoder.admit(some)
        decoder.step()
    while decoder.rows:
        decoder.step()
    for row in rows:
        alone = sample(model, [row.prompt], [[row.seed]], row.params, [2])[0][0]
        assert (row.tokens, row.finish) == (alone.tokens, alone.finish)
    expected = trainers(model, BEGINNING[:1], BEGINNING[1:]).detach()
    torch.testing.assert_close(torch.tensor(scored.prompt_logprobs), expected, atol=1e-4, rtol=1e-4)


def test_little_padding_is_computed():
    model, lengths, computed = build("bloom"), [400, 380, 350, 120, 110, 30, 20, 8], []
    model.base_model.register_forward_pre_hook(
        lambda module, args, given: computed.append(given["input_ids"].numel()), with_kwargs=True
    )
    states = hidden_states(model, pack([[3 + i % 100 for i in range(length)] for length in lengths]))
    assert len(states) == sum(lengths) and sum(computed) < 1.15 * sum(lengths) and len(computed) == 3


@pytest.mark.parametrize("kind", ["bloom", "mpt"])
def test_dropout_spares_the_residual_stream(kind):
    model = build(kind)
    residual_dropout(model, 1.0)  # whole branches are dropped: what is left are the embeddings
    model.train()
    dropped = hidden_states(model, pack([PROMPTS[0]]))
    body = model.base_model
    left = body.wte(torch.tensor(PROMPTS[0])) if kind == "mpt" else body.word_embeddings(torch.tensor(PROMPTS[0]))
    left = body.norm_f(left) if kind == "mpt" else body.ln_f(body.word_embeddings_layernorm(left))
    torch.testing.assert_close(dropped, left)


def half(rows):
    """Of a sharded model: the loss of half of the rows in one pass, and a gradient of both halves."""
    model, mine = build("bloom"), rows[2 * rank() : 2 * rank() + 2]
    sharding.prepare(model, "fsdp", activation_checkpointing=True)
    packed = pack(mine)
    targets = [torch.arange(int(o) + 1, int(o) + len(row)) for o, row in zip(packed.offsets, mine, strict=False)]
    loss = -Policy(model, None).logprobs(packed, torch.cat(targets))[0].sum()
    loss.backward()
    return float(loss.detach()), model.base_model.ln_f.weight.grad.full_tensor()


def test_sharded_processes_make_the_same_passes(tmp_path):
    """One has rows of unlike lengths, the other of like ones."""
    rows = [[3 + (i * 7 + n) % 100 for i in range(length)] for n, length in enumerate((120, 5, 60, 61))]
    found, model = run_on(2, tmp_path, half, rows), build("bloom")
    loss = -sum(trainers(model, row[:1], row[1:]).sum() for row in rows)
    loss.backward()
    assert sum(part for part, _ in found) == pytest.approx(float(loss.detach()), rel=1e-5)
    for _, gradient in found:
        torch.testing.assert_close(gradient, model.base_model.ln_f.weight.grad, rtol=1e-4, atol=1e-4)
