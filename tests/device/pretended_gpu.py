"""`on_device` on a GPU that is pretended; and that a tensor left behind on the host is found. A process of its own."""

import pytest
import torch
from pretended import GPU, Pretending, waits

from tutelage.engine import device

_resolve = device.resolve_device
device.resolve_device = lambda name: GPU if name == "cuda" else _resolve("cpu")  # before others take it from there

from on_device import *  # noqa: E402, F403
from on_device import PROMPTS, SamplingParams, load_policy, load_scalar, load_step_model, pack, sample  # noqa: E402

from tutelage.engine import cache, decoding, sampling  # noqa: E402
from tutelage.models import roles  # noqa: E402


@pytest.fixture(autouse=True)
def pretending():
    with Pretending():
        yield


@pytest.fixture
def gpu():
    return GPU


def logprobs(nano):
    policy = load_policy(nano, "float32", device="cuda")
    return policy, lambda: policy.logprobs(pack(PROMPTS, share=True), torch.tensor([2, 6, 12]))[0].sum().backward()


def test_a_pass_waits_for_what_it_says_alone(nano):
    _, run = logprobs(nano)
    waits.clear()
    run()
    assert sum(waits.values()) == 2  # log-probabilities and entropies, which come together


def test_a_step_of_decoding_waits_once_for_its_tokens(nano):
    policy = load_policy(nano, "float32", device="cuda")
    asked = [[[1, 2, 3]] * 1, SamplingParams(8, 8)]
    waits.clear()
    sample(policy.model, PROMPTS[:1], asked[0], asked[1], [1])
    assert sum(waits.values()) == 8 + 2  # and for all tokens and log-probabilities of the rows that end together


@pytest.mark.parametrize("role", ["policy", "reward", "value", "process"])
def test_an_input_that_stays_on_the_host_is_found(nano, monkeypatch, role):
    packed, places = pack(PROMPTS, share=True), torch.tensor([2, 6, 12])
    scalar = load_scalar(nano, "float32", trained=False, device="cuda")
    step = load_step_model(nano, "float32", trained=False, device="cuda")
    passes = {
        "policy": logprobs(nano)[1],
        "reward": lambda: scalar.scores(packed).sum().backward(),
        "value": lambda: scalar.per_token(packed).sum().backward(),
        "process": lambda: step.logits(packed, places).sum().backward(),
    }
    passes[role]()
    monkeypatch.setattr(roles, "moved", lambda tensor, device: tensor)
    with pytest.raises(RuntimeError, match="same device"):
        passes[role]()


@pytest.mark.parametrize("module", [sampling, cache, decoding])
def test_a_part_of_the_samplers_state_that_stays_on_the_host_is_found(nano, monkeypatch, module):
    policy = load_policy(nano, "float32", device="cuda")
    seeds = [[1, 2], [3, 4], [5, 6]]
    sample(policy.model, PROMPTS, seeds, SamplingParams(4), [1])
    monkeypatch.setattr(module, "moved", lambda tensor, device: tensor)
    with pytest.raises(RuntimeError, match="same device"):
        sample(policy.model, PROMPTS, seeds, SamplingParams(4), [1])


def test_a_weight_that_stays_on_the_host_is_found(nano):
    policy, run = logprobs(nano)
    norm = policy.model.model.norm
    norm.weight = torch.nn.Parameter(torch.ones(norm.weight.shape))
    with pytest.raises(RuntimeError, match="same device"):
        run()
