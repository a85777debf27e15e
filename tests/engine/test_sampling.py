"""The sampler: same tokens whatever the batch, log-probs of the trainer, the chosen distribution, stop strings."""

import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tutelage.engine.cache import ROOM
from tutelage.engine.packing import pack
from tutelage.engine.sampling import SamplingParams, choose, row_seed, sample
from tutelage.engine.stopping import StopStrings
from tutelage.models import load_policy
from tutelage.models.roles import hidden_states

PROMPTS = [[2, 50, 60, 1, 3], [2, 51, 61, 62, 63, 64, 1, 3], [2, 70, 1, 3]]


def draw(policy, batch_size, prompts=PROMPTS, **params):
    seeds = [[row_seed(1, str(p), n) for n in range(3)] for p in prompts]
    return sample(
        policy.model, prompts, seeds, SamplingParams(**{"max_new_tokens": 12, **params}), [1], batch_size=batch_size
    )


def test_batch_does_not_change_the_samples(nano):
    policy = load_policy(nano, "float32")
    together, apart = draw(policy, 64), draw(policy, 2)
    assert [[s.tokens for s in row] for row in together] == [[s.tokens for s in row] for row in apart]
    alone = draw(policy, 1, prompts=PROMPTS[1:2])
    assert [s.tokens for s in alone[0]] == [s.tokens for s in together[1]]


def test_logprobs_equal_the_trainers(nano):
    policy = load_policy(nano, "float32")
    for prompt, row in zip(PROMPTS, draw(policy, 64, temperature=0.8), strict=True):
        for one in row:
            packed = pack([prompt + one.tokens])
            targets = torch.arange(len(prompt), len(prompt) + len(one.tokens))
            logprobs, _ = policy.logprobs(packed, targets, 0.8)
            torch.testing.assert_close(torch.tensor(one.logprobs), logprobs.detach(), atol=1e-4, rtol=1e-4)


def test_prompts_that_begin_alike_and_rows_that_outgrow_their_room(nano):
    policy, beginning = load_policy(nano, "float32"), list(range(40, 60))
    prompts = [[*beginning, 70, 71], [*beginning, 72], [*beginning, 70, 73, 74], [80, 81]]
    rows = draw(policy, 5, prompts, max_new_tokens=3 * ROOM, min_new_tokens=2 * ROOM)
    for prompt, row in zip(prompts, rows, strict=True):
        for one in row:
            assert len(one.tokens) >= 2 * ROOM
            targets = torch.arange(len(prompt), len(prompt) + len(one.tokens))
            logprobs, _ = policy.logprobs(pack([prompt + one.tokens]), targets, 1.0)
            # Before min_new_tokens the end token is out of the question, which the trainer does not know.
            some = slice(2 * ROOM, None)
            torch.testing.assert_close(torch.tensor(one.logprobs)[some], logprobs.detach()[some], atol=1e-4, rtol=1e-4)
            assert (torch.tensor(one.logprobs) - logprobs.detach() >= -1e-4).all()


def test_greedy_takes_the_best_and_min_new_tokens_holds_the_end_back(nano):
    policy = load_policy(nano, "float32")
    rows = draw(policy, 64, temperature=0.0, min_new_tokens=12)
    assert all(len(s.tokens) == 12 and 1 not in s.tokens and s.finish == "length" for row in rows for s in row)
    packed = pack([PROMPTS[0]])
    logits = hidden_states(policy.model, packed)[-1] @ policy.model.get_output_embeddings().weight.t()
    logits[1] = float("-inf")
    assert rows[0][0].tokens[0] == int(logits.argmax())


def test_choose_draws_in_proportion_and_top_p_cuts_the_tail():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(10_000, -1)
    uniform = torch.linspace(0, 1, 10_001)[:-1]
    tokens, logprobs = choose(logits.contiguous(), uniform, SamplingParams())
    shares = torch.bincount(tokens, minlength=3) / 10_000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=1e-3, rtol=0)
    torch.testing.assert_close(logprobs[0], torch.tensor(0.5).log())
    tokens, _ = choose(logits.contiguous(), uniform, SamplingParams(top_p=0.75))
    assert torch.bincount(tokens, minlength=3).tolist()[2] == 0


@pytest.mark.parametrize("params", [{"top_k": 7}, {"min_p": 0.08}, {"top_k": 40, "top_p": 0.8, "min_p": 0.02}])
def test_frequencies_are_those_that_transformers_filters_leave(params):
    """Chi-square of 4,000 first tokens against the model's distribution, filtered by another implementation."""
    policy = load_policy("world", "float32")
    drawn = sample(policy.model, [[2, 9, 3]], [list(range(4000))], SamplingParams(1, temperature=1.3, **params), [1])[0]
    scores = policy.model.lm_head(hidden_states(policy.model, pack([[2, 9, 3]]))[-1:]).detach() / 1.3
    for warper, name in ((TopKLogitsWarper, "top_k"), (TopPLogitsWarper, "top_p"), (MinPLogitsWarper, "min_p")):
        if name in params:
            scores = warper(params[name])(None, scores)
    expected = scores.softmax(-1)[0] * 4000
    seen = torch.bincount(torch.tensor([one.tokens[0] for one in drawn]), minlength=len(expected))
    assert int(seen[expected == 0].sum()) == 0
    often = expected > 5
    assert int(often.sum()) > 4
    statistic = float(((seen - expected).square() / expected)[often].sum())
    freedom = int(often.sum()) - bool(seen[~often].sum() == 0)
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5


def strings(policy, stop, batch_size=64, **params):
    seeds = [[row_seed(1, str(p), n) for n in range(3)] for p in PROMPTS]
    asked = SamplingParams(**{"max_new_tokens": 24, "stop": stop, **params})
    return sample(policy.model, PROMPTS, seeds, asked, [1], decode=policy.decode, batch_size=batch_size)


def test_a_stop_string_ends_the_row_across_token_borders(nano):
    policy = load_policy(nano, "float32")
    filters = {"top_k": 300, "min_p": 1e-6}
    whole = [one for row in strings(policy, (), **filters) for one in row]
    first = policy.decode(whole[0].tokens)
    # The end of one token and the beginning of the next, from inside of both.
    texts = [policy.decode(whole[0].tokens[:n]) for n in range(25)]
    border = next(
        n for n in range(3, 24) if len(texts[n]) - len(texts[n - 1]) > 1 and len(texts[n + 1]) > len(texts[n])
    )
    stop = first[len(texts[border]) - 2 : len(texts[border]) + 1]
    cut = [one for row in strings(policy, (stop, "never there"), **filters) for one in row]
    alone = [one for row in strings(policy, (stop, "never there"), batch_size=1, **filters) for one in row]
    assert [(o.tokens, o.finish, o.cut) for o in cut] == [(o.tokens, o.finish, o.cut) for o in alone]
    for one, long in zip(cut, whole, strict=True):
        text = policy.decode(long.tokens)
        assert one.tokens == long.tokens[: len(one.tokens)]
        assert one.logprobs == pytest.approx(long.logprobs[: len(one.tokens)], abs=1e-4)
        if one.finish == "stop_sequence":
            assert policy.decode(one.tokens)[: one.cut] == text.partition(stop)[0]
            assert stop in policy.decode(one.tokens) and stop not in policy.decode(one.tokens[:-1])
        else:
            assert one.tokens == long.tokens and one.cut is None
            assert stop not in policy.decode(long.tokens[:-1] if one.finish == "stop" else long.tokens)
    assert cut[0].finish == "stop_sequence" and len(cut[0].tokens) < 24


def test_no_stop_string_ends_an_answer_before_min_new_tokens(nano):
    policy = load_policy(nano, "float32")
    for row in strings(policy, ("e", "a"), min_new_tokens=9):
        for one in row:
            held, text = policy.decode(one.tokens[:9]), policy.decode(one.tokens)
            assert len(one.tokens) > 9
            if one.finish == "stop_sequence":
                assert one.cut >= len(held) and text[one.cut] in "ea"
                assert not set(text[len(held) : one.cut]) & set("ea")


def test_characters_of_several_tokens_and_stops_that_end_in_a_space():
    pieces = {0: b"caf", 1: b"\xc3", 2: b"\xa9 ", 3: b"x"}
    decode = lambda tokens: b"".join(pieces[t] for t in tokens).decode("utf-8", "replace")  # noqa: E731
    assert StopStrings(["\u00e9"], decode).cut([0, 1]) is None
    assert StopStrings(["\u00e9"], decode).cut([3, 0, 1, 2]) == 4
    assert StopStrings(["zz", "f\u00e9 "], decode).cut([0, 1, 2]) == 2
    assert StopStrings(["x"], decode, held=1).cut([3]) is None
    assert StopStrings(["x"], decode, held=1).cut([3, 3]) == 1  # the one that ends behind the held token
