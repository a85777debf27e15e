"""What holds on a GPU: these tests run on a real one (`test_cuda.py`) and on one that is pretended (`pretended_gpu.py`).

Every test compares `--device cuda` with the processor, whose numbers other tests compare with definitions.
"""

import copy
import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

from small_stages import COMMON, make_inputs, rows, stages
from tutelage.configs import CAIConfig, EvalConfig, LabelConfig, RerankConfig, SampleConfig, SFTConfig, StepLabelConfig
from tutelage.data.formats import write_jsonl
from tutelage.data.templates import Rendered
from tutelage.engine import memory
from tutelage.engine.online import OnlineDecoder, Row
from tutelage.engine.optimizer import MasterAdam
from tutelage.engine.packing import pack
from tutelage.engine.sampling import SamplingParams, row_seed, sample, stream
from tutelage.engine.sharding import read_state
from tutelage.judges.cache import Reply
from tutelage.models import Policy, load_policy, load_scalar, load_step_model
from tutelage.records import Completion
from tutelage.stages import cai, evaluate, label, language_modeling, rerank, sft, step_label
from tutelage.stages import sample as sampling_stage
from tutelage.verbs import stage_function
from tutelage.world import reasoning

PROMPTS = [[2, 50, 60, 1, 3], [2, 51, 61, 62, 63, 64, 1, 3], [2, 51, 61, 62, 63, 64, 70, 1, 3]]
SIZE = {
    "vocab_size": 120, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
KINDS = {
    "llama": LlamaConfig(**SIZE),
    "gemma2": Gemma2Config(**SIZE, head_dim=8, query_pre_attn_scalar=8, sliding_window=7, final_logit_softcapping=5.0),
}
PREFIX = [5, 6, 7, 8, 9, 10, 11, 12]
SEQUENCES = [[*PREFIX, 20, 21, 22, 23], [*PREFIX, 30, 31], [40, 41, 42, 43, 44, 45, 46, 47, 48, 49], [50, 51, 52]]
NAMES = ("pretrain", "sft", "reward", "dpo", "kto", "prm", "ppo", "rloo", "rejection")
# The same arithmetic in another order, and two updates after it: near zero Adam's steps show its rounding.
CLOSE = {"rel": 1e-3, "abs": 1e-4}


@pytest.fixture(scope="module")
def inputs(nano, tmp_path_factory, little_text):
    return make_inputs(nano, tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("stage", NAMES)
def test_a_stage_takes_the_processors_steps(inputs, nano, tmp_path, stage):
    config = stages(inputs, str(nano))[stage]
    for device in ("cpu", "cuda"):
        stage_function(config.verb)(replace(config, device=device, out=str(tmp_path / device)))
    for host, gpu in zip(rows(tmp_path / "cpu"), rows(tmp_path / "cuda"), strict=True):
        assert gpu == pytest.approx(host, **CLOSE)


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
@pytest.mark.parametrize("more", [{"dtype": "bfloat16"}, {"adapters": True}, {"activation_checkpointing": True}])
def test_other_ways_of_training_run(inputs, nano, tmp_path, stage, more):
    if "adapters" in more:
        pytest.importorskip("peft")
    config = replace(stages(inputs, str(nano))[stage], device="cuda", out=str(tmp_path / "run"), max_steps=2, **more)
    assert stage_function(config.verb)(config)["steps"] == 2


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_on_the_gpu_equals_padded_transformers_on_the_host(gpu, kind, share):
    """Log-probabilities and the gradient of every weight, in float32."""
    torch.manual_seed(3)
    plain = AutoModelForCausalLM.from_config(KINDS[kind], dtype=torch.float32, attn_implementation="eager").eval()
    ours = copy.deepcopy(plain)
    ours.set_attn_implementation("tutelage")
    ours = ours.to(gpu)
    packed = pack(SEQUENCES, share=share)
    targets = torch.cat(
        [torch.arange(int(o) + 1, int(o) + len(q)) for o, q in zip(packed.offsets, SEQUENCES, strict=False)]
    )
    got, _ = Policy(ours, None).logprobs(packed, targets, 0.7)
    longest = max(map(len, SEQUENCES))
    ids = torch.tensor([s + [0] * (longest - len(s)) for s in SEQUENCES])
    mask = torch.arange(longest) < torch.tensor([len(s) for s in SEQUENCES])[:, None]
    full = (plain(input_ids=ids, attention_mask=mask.long()).logits / 0.7).log_softmax(-1)
    want = torch.stack([full[i, t - 1, s[t]] for i, s in enumerate(SEQUENCES) for t in range(1, len(s))])
    assert got.device.type == "cpu"
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    got.sum().backward(), want.sum().backward()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert a.grad.device == gpu
        torch.testing.assert_close(a.grad.cpu(), b.grad, rtol=1e-4, atol=1e-5)


SAMPLINGS = [
    {}, {"temperature": 0.0}, {"temperature": 0.8, "top_p": 0.7}, {"top_k": 20, "min_p": 0.01}, {"min_new_tokens": 9},
    {"stop": ("a", "e")},
]  # fmt: skip


@pytest.mark.parametrize("params", SAMPLINGS, ids=str)
def test_a_seed_draws_the_processors_tokens_in_any_batch(nano, params):
    drawn = []
    for device, batch in (("cpu", 64), ("cuda", 64), ("cuda", 2)):
        policy = load_policy(nano, "float32", device=device)
        seeds = [[row_seed(1, str(p), n) for n in range(3)] for p in PROMPTS]
        asked = SamplingParams(max_new_tokens=12, **params)
        drawn.append(sample(policy.model, PROMPTS, seeds, asked, [1], decode=policy.decode, batch_size=batch))
    host, *others = ([one for row in found for one in row] for found in drawn)
    for other in others:
        assert [(one.tokens, one.finish, one.cut) for one in other] == [(s.tokens, s.finish, s.cut) for s in host]
        for a, b in zip(other, host, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.mark.parametrize("kind", ["nano", *KINDS])
def test_log_probabilities_of_what_was_sampled_are_the_trainers(gpu, nano, kind):
    if kind == "nano":
        policy = load_policy(nano, "float32", device="cuda")
    else:
        model = AutoModelForCausalLM.from_config(KINDS[kind], dtype=torch.float32, attn_implementation="tutelage")
        policy = Policy(model.eval().to(gpu), None)
    (row,) = sample(policy.model, [PROMPTS[0]], [[5, 6]], SamplingParams(20, 10, 0.8), [1])
    for one in row:
        packed = pack([PROMPTS[0] + one.tokens])
        targets = torch.arange(5, 5 + len(one.tokens))
        logprobs, _ = policy.logprobs(packed, targets, 0.8)
        some = slice(10, None)  # before, the end token was out of the question
        torch.testing.assert_close(torch.tensor(one.logprobs)[some], logprobs.detach()[some], atol=1e-4, rtol=1e-4)
        assert (torch.tensor(one.logprobs) - logprobs.detach() >= -1e-4).all()


def test_a_server_draws_the_processors_tokens(nano):
    found = []
    for device in ("cpu", "cuda"):
        policy = load_policy(nano, "float32", device=device)
        decoder = OnlineDecoder(policy.model, [1])
        asked = [Row(p, SamplingParams(9, 2, 1.0, 0.9), i, 2, True) for i, p in enumerate([*PROMPTS, PROMPTS[0]])]
        decoder.admit(asked[:2])
        decoder.step()
        decoder.admit(asked[2:])
        while decoder.rows:
            decoder.step()
        found.append([(row.tokens, row.finish) for row in asked])
        found[-1] += [pytest.approx(row.logprobs + row.prompt_logprobs, abs=1e-4) for row in asked]
        found[-1].append(list(stream(policy, PROMPTS[0], SamplingParams(6), [1], 3)))
    assert [one.expected if hasattr(one, "expected") else one for one in found[0]] == found[1]


def test_every_role_says_what_it_says_on_the_host(inputs, nano):
    packed, ends = pack(PROMPTS, share=True), torch.tensor([4, 9])
    said = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(1)
        reward = load_scalar(nano, "float32", trained=False, device=device)
        torch.manual_seed(1)
        step = load_step_model(nano, "float32", trained=False, device=device)
        assert reward.model.score.weight.device == next(step.model.parameters()).device
        said.append([reward.scores(packed), reward.per_token(packed), step.logits(packed, ends)])
    for host, gpu in zip(*said, strict=True):  # a fresh head is the same on every device
        torch.testing.assert_close(gpu, host, atol=1e-5, rtol=1e-4)


def test_stages_that_do_not_train(inputs, nano, tmp_path):
    common = {"device": "cuda", "dtype": "float32", "max_length": 96}
    drawn = str(tmp_path / "drawn.jsonl")
    done = sampling_stage.run(
        SampleConfig(model=str(nano), out=drawn, prompts=6, samples=2, max_new_tokens=6, **common)
    )
    assert done["completions"] == 12
    reward = str(inputs / "reward")
    out = str(tmp_path / "labels.jsonl")
    assert label.run(LabelConfig(by=f"model:{reward}", data=drawn, out=out, device="cuda"))["comparisons"] == 6
    models = (f"a={nano}", f"b={nano}")
    judged = {"prompts": 4, "max_new_tokens": 4, "out": str(tmp_path / "eval")}
    found = evaluate.run(EvalConfig(models=models, judge=(f"reward:{reward}",), **judged, **common))
    assert found["win_rates"][0]["win_rate"] == 0.5  # a model against itself, from the same seeds


def test_stages_of_reasoning(inputs, nano, tmp_path):
    common = {"device": "cuda", "dtype": "float32"}
    config = replace(stages(inputs, str(nano))["prm"], out=str(tmp_path / "prm"), device="cuda")
    stage_function("prm")(config)
    asked = reasoning.problems("train", 3)
    answers = [
        Completion(id=f"{p.id}-{n}", prompt_id=p.id, text=f"1 + {n} = 2.\nAnswer: {n}.")
        for p in asked
        for n in range(2)
    ]
    data = tmp_path / "solutions.jsonl"
    write_jsonl(data, [*asked, *answers])
    found = rerank.run(RerankConfig(data=str(data), prm=str(tmp_path / "prm"), orm=str(inputs / "reward"), **common))
    assert found["solutions"] == 6 and set(found["auc"]) >= {"prm-min", "orm"}
    more = {"by": "completions", "model": str(nano), "data": str(data), "out": str(tmp_path / "steps.jsonl")}
    more |= {"completions": 2, "max_new_tokens": 4}
    assert step_label.run(StepLabelConfig(**more, **common))["solutions"] > 0


def test_a_run_goes_on_on_another_device(inputs, nano, tmp_path, monkeypatch):
    config = replace(stages(inputs, str(nano))["sft"], device="cpu", max_steps=4, dropout=0.0)
    sft.run(replace(config, out=str(tmp_path / "whole")))
    sft.run(replace(config, out=str(tmp_path / "moved"), max_steps=4, device="cuda", save_every=2))
    half = tmp_path / "moved" / "checkpoints" / "step-2" / "state"
    held = read_state(half)["optimizer"]
    assert all(x.device.type == "cpu" for x in held["means"])  # what is saved belongs to no device
    _cut_after(tmp_path / "moved", 2)
    sft.run(replace(config, out=str(tmp_path / "moved"), device="cpu", save_every=2, resume=True))
    for one, other in zip(rows(tmp_path / "whole"), rows(tmp_path / "moved"), strict=True):
        assert other == pytest.approx(one, **CLOSE)


def _cut_after(run, step):
    """As if the run had been killed after a step."""
    (run / "summary.json").unlink()
    for folder in (run / "checkpoints").glob("step-*"):
        if int(folder.name.removeprefix("step-")) > step:
            for path in sorted(folder.rglob("*"), reverse=True):
                path.unlink() if path.is_file() or path.is_symlink() else path.rmdir()
            folder.rmdir()
    latest = run / "checkpoints" / "latest"
    latest.unlink()
    latest.symlink_to(f"step-{step}/model")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= step))


def test_dropout_of_a_step_hangs_on_the_seed(nano, tmp_path):
    """Random numbers of the GPU are set anew at each step: two runs drop the same elements."""
    for name in ("a", "b"):
        torch.rand(7)
        common = {**COMMON, "model": str(nano), "device": "cuda", "dropout": 0.3}
        sft.run(SFTConfig(**common, max_steps=2, demonstrations=40, out=str(tmp_path / name)))
    for one, other in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        assert other == pytest.approx(one, rel=1e-5)


class Critic:
    """Criticizes and revises in one sentence."""

    name = "rule"

    def answers(self, conversations, answered=None):
        return [Reply("That does harm.") for _ in conversations]


def test_constitutional_revisions(nano, tmp_path, monkeypatch):
    monkeypatch.setattr(cai, "open_chat", lambda *_, **__: Critic())
    values = {"model": str(nano), "policy": str(nano), "constitution": "world", "prompts": 4, "max_new_tokens": 4}
    values |= {"out": str(tmp_path / "cai"), "max_steps": 1, "batch_size": 2, "dtype": "float32", "max_length": 96}
    values |= {"helpful_data": "world:helpful", "helpful_prompts": 4, "helpful_samples": 1}
    assert cai.run(CAIConfig(**values, device="cuda"))["steps"] == 1


def test_a_pass_that_the_gpu_does_not_hold_is_halved(nano, monkeypatch, capsys):
    """torch.OutOfMemoryError in the backward pass of a batch: the halves give its gradient."""
    batch = [Rendered([5 + i, 6, 7 + i, 8], [False, True, True, True]) for i in range(4)]
    real, found = language_modeling.token_logprobs, []
    monkeypatch.setattr(memory, "_limit", None)

    def tight(policy, some):
        logprobs, entropy = real(policy, some)
        if len(some) > 2:
            logprobs.sum().backward()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return logprobs, entropy

    for work in (real, tight):
        policy = load_policy(nano, "float32", device="cuda")
        adam = MasterAdam(policy.model.parameters())
        monkeypatch.setattr(language_modeling, "token_logprobs", work)
        language_modeling.backward_mean_nll(policy, batch, 1000, adam)
        found.append(adam.gradients())
    assert "16 tokens in one pass do not fit; going on with at most 8" in capsys.readouterr().err
    for whole, halved in zip(*found, strict=True):
        torch.testing.assert_close(halved.cpu(), whole.cpu(), atol=1e-6, rtol=1e-5)
