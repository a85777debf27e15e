"""The parts of a decoding step in C: the numbers of the definitions, the fallback, one library of threads."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import rms_norm, silu

from tutelage.engine import decoding, native
from tutelage.engine.cache import CacheLayout
from tutelage.engine.packing import pack
from tutelage.engine.sampling import SamplingParams, sample
from tutelage.models import load_policy

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="needs a C compiler")
CLOSE = {torch.float32: {"atol": 2e-6, "rtol": 2e-6}, torch.bfloat16: {"atol": 1e-6, "rtol": 2**-7}}
TYPES = pytest.mark.parametrize("dtype", CLOSE, ids=str)


def normal(*shape, dtype):
    return torch.randn(*shape).to(dtype)


@TYPES
def test_sum_and_norm(dtype):
    torch.manual_seed(0)
    x, more, weight = normal(9, 70, dtype=dtype), normal(9, 70, dtype=dtype), normal(70, dtype=dtype)
    own = x.clone()
    got = native.kernels(dtype).add_norm(own, more, weight, 1e-5)
    assert torch.equal(own, x + more)
    torch.testing.assert_close(got, rms_norm(x + more, (70,), weight, 1e-5), **CLOSE[dtype])
    torch.testing.assert_close(
        native.kernels(dtype).add_norm(x, None, weight, 1e-5), rms_norm(x, (70,), weight, 1e-5), **CLOSE[dtype]
    )


@TYPES
def test_gated(dtype):
    """Also where e^-x would overflow, or vanish."""
    torch.manual_seed(0)
    x = normal(5, 2 * 33, dtype=dtype)
    x[0, :6] = torch.tensor([-200.0, -88.5, -20.0, 20.0, 88.5, 200.0])
    gate, up = x.chunk(2, -1)
    torch.testing.assert_close(native.kernels(dtype).gated(x), silu(gate) * up, **CLOSE[dtype])


def test_what_is_no_number_stays_none():
    x = torch.tensor([[float("nan"), 1.0, 2.0, 3.0]]).to(torch.bfloat16)
    found = native.kernels(torch.bfloat16)
    assert found.gated(x).isnan().tolist() == [[True, False]]
    assert found.add_norm(x, None, torch.ones(4).to(torch.bfloat16), 1e-5).isnan().all()


@TYPES
@pytest.mark.parametrize("vocabulary, temperature", [(5, 1.0), (256, 0.7), (700, 1.3)])
def test_a_draw_is_the_inverse_transform(dtype, vocabulary, temperature):
    torch.manual_seed(0)
    logits, uniform = normal(400, vocabulary, dtype=dtype) * 3, torch.rand(400)
    logits[:, 1] = float("-inf")
    uniform[:2] = torch.tensor([0.0, 1 - 2**-24])
    weights = (logits.double() / temperature).softmax(-1)
    upto = weights.cumsum(-1)
    tokens, logprobs = native.kernels(dtype).draw(logits, uniform, temperature)
    place = tokens[:, None]
    assert (weights.gather(-1, place) > 0).all() and not (tokens == 1).any()
    inside = upto.gather(-1, place)[:, 0] - uniform
    assert (inside > -1e-5).all() and (inside < weights.gather(-1, place)[:, 0] + 1e-5).all()
    torch.testing.assert_close(logprobs.double(), weights.gather(-1, place)[:, 0].log(), atol=1e-5, rtol=1e-5)


def test_a_rest_without_weight_is_not_drawn():
    """Where the last parts of the vocabulary are ruled out, and the number next to one."""
    logits = torch.full((1, 900), float("-inf"))
    logits[0, 7] = 2.0
    tokens, logprobs = native.kernels(torch.float32).draw(logits, torch.tensor([1 - 2**-24]), 1.0)
    assert (int(tokens[0]), float(logprobs[0])) == (7, 0.0)


@pytest.mark.skipif(native.products() is None, reason="needs a processor with products of pairs")
@pytest.mark.parametrize("rows", [1, 12, 13, 16, 17, 33, 64])
@pytest.mark.parametrize("outputs, inputs", [(32, 64), (49, 96), (49, 100), (17, 2), (96, 258)])  # tiles take 32 inputs
def test_products(rows, outputs, inputs):
    torch.manual_seed(0)
    x, weight, bias = (
        normal(*shape, dtype=torch.bfloat16) for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    )
    for added in (None, bias):
        wanted = x.double() @ weight.double().t() + (0 if added is None else added.double())
        got = native.products().product(weight, added)(x)
        assert got.shape == (rows, outputs)
        torch.testing.assert_close(got.double(), wanted, atol=0.01, rtol=2**-8)
    sliced = normal(rows, 2 * inputs, dtype=torch.bfloat16)[:, ::2]  # of any strides
    got = native.products().product(weight, None)(sliced)
    torch.testing.assert_close(got.double(), sliced.double() @ weight.double().t(), atol=0.01, rtol=2**-8)


def defined(qkv, keys, values, rotation, lengths, scale):
    """Rotation, the caches with the new keys and values, and attention in float64 over what is in them."""
    rows, key_heads, room, size = keys.shape
    each = qkv.view(rows, -1, size)
    turning, place = each[:, :-key_heads], torch.arange(rows)
    half = torch.cat([-turning[..., size // 2 :], turning[..., : size // 2]], -1)
    turned = turning * rotation[0][:, None] + half * rotation[1][:, None]
    keys, values = keys.clone(), values.clone()
    keys[place, :, lengths], values[place, :, lengths] = turned[:, -key_heads:], each[:, -key_heads:]
    query = turned[:, :-key_heads].unflatten(1, (key_heads, -1))
    scores = (query.double() @ keys.double().transpose(2, 3)) * scale
    hidden = torch.arange(room) > lengths[:, None]
    weights = scores.masked_fill_(hidden[:, None, None], float("-inf")).softmax(-1)
    return (weights @ values.double()).view(rows, -1), keys, values


@TYPES
@pytest.mark.parametrize("rows, heads, key_heads, size", [(5, 9, 3, 64), (40, 4, 4, 6), (3, 8, 1, 80)])
def test_attention(dtype, rows, heads, key_heads, size):
    torch.manual_seed(0)
    room = 3 * native.BLOCK
    lengths = torch.randint(0, room, (rows,))
    lengths[:3] = torch.tensor([0, native.BLOCK - 1, room - 1])
    qkv = normal(rows, (heads + 2 * key_heads) * size, dtype=dtype)
    keys = normal(rows + 1, key_heads, size, room, dtype=dtype).transpose(2, 3)
    values = normal(rows + 1, key_heads, room, size, dtype=dtype)
    angles = torch.rand(rows, size // 2).repeat(1, 2) * 7
    rotation = angles.cos().to(dtype), angles.sin().to(dtype)
    wanted, new_keys, new_values = defined(qkv, keys[:rows], values[:rows], rotation, lengths, size**-0.5)
    untouched = keys[rows:].clone(), values[rows:].clone()
    got = native.kernels(dtype).attend(qkv, keys, values, rotation, lengths, size**-0.5)
    assert torch.equal(values[:rows], new_values) and torch.equal(values[rows:], untouched[1])
    torch.testing.assert_close(keys[:rows], new_keys, atol=1e-6, rtol=0)
    assert torch.equal(keys[rows:], untouched[0])
    rounding = 1e-5 if dtype == torch.float32 else 0.02  # of scores, weights and their sum, as in training
    torch.testing.assert_close(got.double(), wanted, atol=rounding, rtol=rounding)


def test_a_step_is_the_step_of_torch(nano, monkeypatch):
    prompts, seeds = [[2, 50, 60, 1, 3], [2, 51, 61, 62, 63, 64, 1, 3]], [[1, 2, 3], [4, 5]]
    policy, params = load_policy(nano, "float32"), SamplingParams(70, 70)  # beyond a block of keys
    kinds, drawn = [], []
    for found in (native.kernels, lambda dtype: None):
        monkeypatch.setattr(decoding, "kernels", found)
        kinds.append(type(decoding.decoder_step(policy.model, CacheLayout())))
        drawn.append([one for row in sample(policy.model, prompts, seeds, params, [1]) for one in row])
    assert kinds == [decoding.NativeStep, decoding.FusedStep]
    for own, torchs in zip(*drawn, strict=True):
        assert own.tokens == torchs.tokens and own.logprobs == pytest.approx(torchs.logprobs, abs=1e-4)


def test_in_bfloat16_the_log_probabilities_are_the_trainers_within_rounding(nano):
    """With everything of ours in the step: products, norms, attention, draws."""
    policy, prompt = load_policy(nano, "bfloat16"), [2, 51, 61, 62, 63, 64, 1, 3]
    (row,) = sample(policy.model, [prompt], [[1, 2, 3]], SamplingParams(70), [1])
    for one in row:
        targets = torch.arange(len(prompt), len(prompt) + len(one.tokens))
        trainers, _ = policy.logprobs(pack([prompt + one.tokens]), targets, 1.0)
        apart = (torch.tensor(one.logprobs) - trainers.detach()).abs()
        assert apart.mean() < 0.02 and apart.max() < 0.1


@pytest.mark.parametrize("environment", [{"TUTELAGE_NATIVE": "0"}, {"CC": "no-such-compiler"}, {"CC": "false"}])
def test_without_it_torch_decodes(environment, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "_library", native._library.__wrapped__)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert native.kernels.__wrapped__(torch.float32) is None and native.products.__wrapped__() is None


def test_compiled_once_whoever_asks_and_with_torchs_threads(tmp_path, monkeypatch):
    """Two processes at the same time; neither loads a second library of threads."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = (
        "import torch; from pathlib import Path; from tutelage.engine import native\n"
        "assert native.kernels(torch.bfloat16)\n"
        "maps = Path('/proc/self/maps')\n"
        "print(len({x.split()[-1] for x in maps.open() if 'libgomp' in x}) if maps.exists() else 1)"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    own = Path(native._library.__wrapped__()._name)
    assert (other.communicate()[0].strip(), other.returncode) == ("1", 0)
    ways = [native._compiled(native.compiler(), threads) for threads in native.THREADS]
    tried = ways[: ways.index(own) + 1]  # clang's threads are not torch's: there the second way is taken
    for path in set(ways) - set(tried):
        path.unlink()
    assert sorted(own.parent.iterdir()) == sorted(tried)  # each once, and what they were made in is gone


def test_other_processors_are_not_asked_for_what_only_x86_has(monkeypatch):
    monkeypatch.setattr(native.platform, "machine", lambda: "aarch64")
    assert native._flags() == native.FLAGS and not any(flag.startswith("-mprefer") for flag in native.FLAGS)
