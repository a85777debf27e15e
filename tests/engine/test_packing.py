"""Packed equals padded: a sequence's hidden states do not depend on what it is packed with."""

import torch
from transformers import AutoModelForCausalLM

from tutelage.engine.packing import offsets_of, pack, positions_in, segment_sum
from tutelage.models import load_policy
from tutelage.models.roles import hidden_states


def test_offsets_and_positions_by_hand():
    offsets = offsets_of(torch.tensor([2, 1, 3]))
    assert offsets.tolist() == [0, 2, 3, 6]
    assert positions_in(offsets).tolist() == [0, 1, 0, 0, 1, 2]
    assert segment_sum(torch.tensor([1.0, 2, 3, 4, 5, 6]), offsets).tolist() == [3, 3, 15]


def test_packed_equals_plain_transformers(nano):
    policy = load_policy(nano, "float32")
    sequences = [[5 + i for i in range(n)] for n in (3, 17, 8, 40, 1, 9)]
    packed = pack(sequences)
    ours = hidden_states(policy.model, packed)
    plain = AutoModelForCausalLM.from_pretrained(nano, dtype=torch.float32).eval()
    for i, sequence in enumerate(sequences):
        alone = plain.model(input_ids=torch.tensor([sequence])).last_hidden_state[0]
        torch.testing.assert_close(ours[packed.offsets[i] : packed.offsets[i + 1]], alone, atol=1e-5, rtol=1e-4)


def test_packed_gradient_equals_the_sum_of_single_ones(nano):
    policy = load_policy(nano, "float32")
    sequences = [[7, 8, 9, 10], [20, 21, 22], [30, 31, 32, 33, 34]]

    def gradient(groups):
        policy.model.zero_grad()
        for group in groups:
            packed = pack(group)
            first = set(packed.offsets[:-1].tolist())
            targets = torch.tensor([i for i in range(len(packed.input_ids)) if i not in first])
            policy.logprobs(packed, targets)[0].sum().backward()
        return [p.grad.clone() for p in policy.model.parameters()]

    for a, b in zip(gradient([sequences]), gradient([[s] for s in sequences]), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_each_distinct_beginning_is_computed_once_as_in_a_tree(nano):
    system, one, other = [5, 6, 7, 8, 9, 10], [20, 21, 22], [30, 31]
    sequences = [[*system, *one, 40], [*system, *other, 41], [*system, *one, 42, 43], [70, 71], [*system, *other, 41]]
    packed = pack(sequences, share=True)
    assert packed.shared is not None
    assert len(packed.shared.kept) == 6 + 3 + 2 + 1 + 1 + 2 + 2  # the system message, two prompts, what follows each
    policy = load_policy(nano, "float32")
    torch.testing.assert_close(
        hidden_states(policy.model, packed), hidden_states(policy.model, pack(sequences)), atol=1e-5, rtol=1e-4
    )
    assert pack([[1, *range(10, 49)], [1, *range(50, 89)]], share=True).shared is None  # a token is not worth it
