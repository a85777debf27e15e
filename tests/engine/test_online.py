"""Rows that come and go: each as if it were alone, with the sampler's tokens and the trainer's log-probabilities."""

import pytest
import torch

from tutelage.engine.online import OnlineDecoder, Row
from tutelage.engine.packing import pack
from tutelage.engine.sampling import SamplingParams, sample
from tutelage.models import load_policy

PROMPTS = [[2, 50, 60, 1, 3], [2, 51, 61, 62, 63, 64, 1, 3], [2, 70, 1, 3], [2, 70, 1, 3]]
PARAMS = [
    SamplingParams(12, 12),
    SamplingParams(90, 90, 0.7),
    SamplingParams(30, 0, 1.0, 0.8),
    SamplingParams(12, 3, 0.0),
]


@pytest.fixture(scope="module")
def policy():
    return load_policy("world", "float32")


def rows(**more):
    return [Row(p, params, 100 + i, **more) for i, (p, params) in enumerate(zip(PROMPTS, PARAMS, strict=True))]


def drawn_alone(policy, row):
    return sample(policy.model, [row.prompt], [[row.seed]], row.params, [1])[0][0]


def test_rows_that_enter_at_any_step_get_the_samplers_tokens(policy):
    decoder, waiting = OnlineDecoder(policy.model, [1]), rows()
    everyone, bystander = list(waiting), Row([2, 99, 3], SamplingParams(80, 80), 7)
    decoder.admit([bystander, waiting.pop()])
    for step in range(100):
        if waiting and step % 3 == 0:
            decoder.admit([waiting.pop() for _ in range(min(2, len(waiting)))])
        if step == 5:
            decoder.cancel(bystander)
        if decoder.rows:
            decoder.step()
    assert not decoder.rows and len(bystander.tokens) < 80
    for row in everyone:
        alone = drawn_alone(policy, row)
        assert (row.tokens, row.finish) == (alone.tokens, alone.finish)


def test_equal_prompts_are_read_once_and_drawn_apart(policy):
    decoder = OnlineDecoder(policy.model, [1])
    twins = [Row(PROMPTS[0], SamplingParams(8, 8), seed) for seed in (1, 1, 2)]
    seen = []
    hook = policy.model.get_input_embeddings().register_forward_hook(lambda _, ids, __: seen.append(ids[0].numel()))
    decoder.admit(twins)
    hook.remove()
    while decoder.rows:
        decoder.step()
    assert seen == [len(PROMPTS[0])]
    assert twins[0].tokens == twins[1].tokens != twins[2].tokens


def test_logprobs_are_the_models_own_at_temperature_1(policy):
    decoder = OnlineDecoder(policy.model, [1])
    some = rows(alternatives=4, score_prompt=True)
    decoder.admit(some)
    while decoder.rows:
        decoder.step()
    for row in some:
        packed = pack([row.prompt + row.tokens])
        logprobs, _ = policy.logprobs(packed, torch.arange(1, row.length))
        torch.testing.assert_close(
            torch.tensor(row.prompt_logprobs + row.logprobs), logprobs.detach(), atol=1e-4, rtol=1e-4
        )
        assert len(row.tops) == len(row.tokens) and len(row.prompt_tops) == len(row.prompt) - 1
        for token, logprob, top in zip(row.tokens, row.logprobs, row.tops, strict=True):
            values = [value for _, value in top]
            assert len(top) == 4 and values == sorted(values, reverse=True)
            assert dict(top).get(token, logprob) == logprob <= values[0]


def test_scoring_alone_draws_nothing(policy):
    decoder = OnlineDecoder(policy.model, [1])
    row = Row(PROMPTS[1], SamplingParams(0), 0, alternatives=1, score_prompt=True)
    decoder.admit([row, Row(PROMPTS[0], SamplingParams(3, 3), 0)])
    assert row.finish == "length" and row.tokens == [] and len(row.prompt_logprobs) == len(row.prompt) - 1
    assert len(decoder.rows) == 1
