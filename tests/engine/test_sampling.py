"""The sampler: same tokens whatever the batch, log-probs of the trainer, the chosen distribution."""

import torch

from tutelage.engine.packing import pack
from tutelage.engine.sampling import SamplingParams, choose, row_seed, sample
from tutelage.models import load_policy

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


def test_greedy_takes_the_best_and_min_new_tokens_holds_the_end_back(nano):
    policy = load_policy(nano, "float32")
    rows = draw(policy, 64, temperature=0.0, min_new_tokens=12)
    assert all(len(s.tokens) == 12 and 1 not in s.tokens and s.finish == "length" for row in rows for s in row)
    packed = pack([PROMPTS[0]])
    from tutelage.models.roles import hidden_states

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
