"""A checkpoint that cannot work is one clear error; a number that is not finite leaves the last good checkpoint."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tutelage.configs import SampleConfig, SFTConfig
from tutelage.data.templates import end_token_id, render_prompt
from tutelage.engine.optimizer import MasterAdam
from tutelage.engine.sampling import SamplingParams, sample
from tutelage.errors import UserError
from tutelage.models import load_policy, save_model
from tutelage.stages import sample as sampling_stage
from tutelage.stages import sft


@pytest.fixture
def broken(nano, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(nano, folder)
    return folder


def edit(path, **changes):
    about = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in about.items() if value is not None}))


def test_no_chat_template(broken):
    (broken / "chat_template.jinja").unlink(missing_ok=True)
    edit(broken / "tokenizer_config.json", chat_template=None)
    with pytest.raises(UserError, match=r"no chat template\n.*mend"):
        load_policy(broken)


def test_no_end_token_behind_an_answer(broken):
    (broken / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    with pytest.raises(UserError, match="no end token behind an answer"):
        end_token_id(load_policy(broken, "float32").tokenizer)
    with pytest.raises(UserError, match="no end token behind an answer"):
        sft.run(SFTConfig(model=str(broken), out=str(broken.parent / "run"), demonstrations=40, max_steps=1))
    assert not (broken.parent / "run").exists()


@pytest.mark.parametrize(
    "template", ["{% for m in messages %}{{ m['content'] }", "{{ raise_exception('No system role') }}"]
)
def test_a_chat_template_that_refuses_conversations(broken, template):
    (broken / "chat_template.jinja").write_text(template)
    with pytest.raises(
        UserError, match=r"(?s)chat template refuses a conversation \((unexpected|No system role).*mend"
    ):
        render_prompt(load_policy(broken, "float32").tokenizer, [{"role": "user", "content": "Who?"}])


def test_a_tokenizer_of_another_model(broken, tokenizer):
    state = load_file(broken / "model.safetensors")
    rows, kept = len(state["model.embed_tokens.weight"]), len(tokenizer) - 7
    fewer = {name: v[:kept].clone() if len(v) == rows else v for name, v in state.items()}
    save_file(fewer, broken / "model.safetensors", metadata={"format": "pt"})
    edit(broken / "config.json", vocab_size=kept)
    with pytest.raises(UserError, match=r"the tokenizer has \d+ tokens, the model's embedding only \d+"):
        load_policy(broken, "float32")


@pytest.mark.parametrize("keep", [0, 4, 5000])
def test_weights_that_cannot_be_read(broken, keep):
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"(does not load|no weights)"):
        load_policy(broken, "float32")


def test_weights_that_are_not_finite(broken):
    state = load_file(broken / "model.safetensors")
    state["model.norm.weight"][3] = float("nan")
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model.norm.weight holds NaN"):
        load_policy(broken, "float32")


def test_an_adapter_that_is_not_finite(nano, tmp_path):
    pytest.importorskip("peft")
    policy = load_policy(nano, "float32", {"r": 2, "lora_alpha": 4, "target_modules": ()})
    save_model(tmp_path / "adapter", policy, {"role": "policy"}, verify=False)
    state = load_file(tmp_path / "adapter/adapter_model.safetensors")
    next(iter(state.values()))[0] = float("nan")
    save_file(state, tmp_path / "adapter/adapter_model.safetensors", metadata={"format": "pt"})
    for lora in (None, {}):
        with pytest.raises(UserError, match="holds NaN or infinite values"):
            load_policy(tmp_path / "adapter", "float32", lora)


def test_a_prompt_longer_than_the_context(broken, tmp_path):
    edit(broken / "config.json", max_position_embeddings=24)
    data = tmp_path / "prompts.jsonl"
    data.write_text(json.dumps({"prompt": "Name it. " * 30}) + "\n")
    with pytest.raises(UserError, match=r"has \d+ tokens, the model's context holds 24"):
        sampling_stage.run(SampleConfig(model=str(broken), data=str(data), out=str(tmp_path / "c.jsonl")))
    assert not (tmp_path / "c.jsonl").exists()
    policy = load_policy(broken, "float32")
    short, full = sample(policy.model, [[2, 50, 3], [2] * 20], [[0], [1]], SamplingParams(12, 12), [1])
    assert len(short[0].tokens) == 12 and len(full[0].tokens) == 5 and full[0].finish == "length"
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"a sequence has \d+ tokens, the model's context holds 24\n.*at most 24"):
        sft.run(SFTConfig(model=str(broken), out=str(run), demonstrations=40, max_steps=1, dtype="float32"))
    assert not run.exists()


def test_a_gradient_that_is_not_finite_changes_nothing():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = MasterAdam([parameter])
    parameter.grad = torch.tensor([1.0, float("nan"), 1.0])
    optimizer.collect()
    with pytest.raises(FloatingPointError, match="norm is nan in update 1"):
        optimizer.step(1e-2, 1.0)
    assert torch.equal(parameter.detach(), torch.ones(3)) and optimizer.steps == 0


def test_after_it_the_last_good_checkpoint_is_there(nano, tmp_path, monkeypatch):
    real, calls = sft.backward_mean_nll, []

    def poisoned(policy, batch, micro_tokens, optimizer):
        row = real(policy, batch, micro_tokens, optimizer)
        calls.append(1)
        if len(calls) == 3:
            optimizer.gradients()[0].fill_(float("nan"))
        return row

    monkeypatch.setattr(sft, "backward_mean_nll", poisoned)
    out = tmp_path / "run"
    config = {"model": str(nano), "demonstrations": 40, "max_steps": 4, "save_every": 1, "dtype": "float32"}
    config["rollbacks"] = 0
    with pytest.raises(FloatingPointError, match="norm is nan in update 3"):
        sft.run(SFTConfig(out=str(out), **config))
    assert (out / "checkpoints/latest").resolve().parent.name == "step-2"
    assert all(torch.isfinite(p).all() for p in load_policy(out, "float32").model.parameters())
