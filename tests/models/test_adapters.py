"""Adapters: a step equals peft's own, the reference is the plain weights, and what is saved loads in plain peft."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2Config, GPT2LMHeadModel

from tutelage.data.templates import Rendered
from tutelage.engine.attention import NAME
from tutelage.engine.optimizer import BETAS, MasterAdam
from tutelage.engine.packing import pack
from tutelage.engine.sampling import SamplingParams, sample
from tutelage.errors import UserError
from tutelage.models import Policy, export_model, load_policy, load_scalar, save_model
from tutelage.models.checkpoint import load_scalar_beside
from tutelage.models.roles import Lora
from tutelage.stages.language_modeling import backward_mean_nll

peft = pytest.importorskip("peft", reason="adapters need peft: pip install -e '.[adapters]'")
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ()}
IDS = [[2, 50, 60, 1, 3, 70, 71, 72, 1], [2, 51, 61, 62, 1, 3, 80, 1]]


def shaken(policy):
    """An adapter that does something: fresh ones have B = 0."""
    torch.manual_seed(5)
    for parameter in policy.own_parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return policy


def plain_logits(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0].detach()


def test_one_step_equals_pefts_own(nano):
    """peft's model, a padded loss and torch's AdamW on one side; packed and fused on the other."""
    policy = shaken(load_policy(nano, "float32", LORA))
    config = policy.lora.adapters.configs["role0"]
    theirs = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(nano), copy.deepcopy(config)).train()
    start = {f"base_model.model.model.{k}": v.clone() for k, v in policy.lora.adapters.state("role0").items()}
    peft.set_peft_model_state_dict(theirs, start)

    ours = MasterAdam(policy.own_parameters())
    batch = [Rendered(ids, [False] * 5 + [True] * (len(ids) - 5)) for ids in IDS]
    loss = backward_mean_nll(policy, batch, 8192, ours)["loss"]
    norm = ours.step(1e-2, None)

    optimizer = torch.optim.AdamW(
        [p for p in theirs.parameters() if p.requires_grad], lr=1e-2, betas=BETAS, weight_decay=0
    )
    total = sum(
        cross_entropy(theirs(input_ids=torch.tensor([ids])).logits[0, 4:-1], torch.tensor(ids[5:]), reduction="sum")
        for ids in IDS
    )
    total = total / sum(len(ids) - 5 for ids in IDS)
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-5)
    grads = [p.grad for p in theirs.parameters() if p.requires_grad]
    assert norm == pytest.approx(float(torch.nn.utils.get_total_norm(grads)), rel=1e-4)
    optimizer.step()
    stepped = peft.get_peft_model_state_dict(theirs)
    for key, value in policy.lora.adapters.state("role0").items():
        torch.testing.assert_close(value, stepped[f"base_model.model.model.{key}"], rtol=1e-3, atol=1e-5)


def test_only_the_adapter_is_trained_and_held(nano):
    policy = load_policy(nano, "float32", LORA)
    optimizer = MasterAdam(policy.own_parameters())
    linear = [m for m in policy.model.base_model.modules() if hasattr(m, "lora_A")]
    expected = sum(4 * (m.in_features + m.out_features) for m in linear)
    held = sum(t.numel() for t in (*optimizer.masters, *optimizer.means, *optimizer.squares))
    assert held == 3 * expected and len(linear) == 7 * policy.model.config.num_hidden_layers
    policy.logprobs(pack(IDS), torch.tensor([5, 6]))[0].sum().backward()
    assert {id(p) for p in policy.model.parameters() if p.grad is not None} <= {id(p) for p in policy.own_parameters()}
    few = load_policy(nano, "float32", {**LORA, "target_modules": ("q_proj", "v_proj")})
    assert len(few.own_parameters()) == 2 * 2 * policy.model.config.num_hidden_layers


def test_the_reference_is_the_plain_model_to_the_bit(nano):
    policy = load_policy(nano, "float32", LORA)
    packed, targets = pack(IDS), torch.tensor([5, 6, 7, 14])
    plain = load_policy(nano, "float32").logprobs(packed, targets)[0]
    assert torch.equal(policy.logprobs(packed, targets)[0], plain)  # a fresh adapter changes nothing
    reference = Policy(policy.model, policy.tokenizer, Lora(policy.lora.adapters, None))
    shaken(policy)
    trained = policy.logprobs(packed, targets)[0]
    assert float((trained - plain).abs().max().detach()) > 1e-2
    assert torch.equal(reference.logprobs(packed, targets)[0], plain)
    assert torch.equal(policy.logprobs(packed, targets)[0], trained)  # and back
    copied = Policy(policy.model, policy.tokenizer, policy.beside())  # a reference that starts at an adapter
    for parameter in policy.own_parameters():
        parameter.data.mul_(2)
    assert torch.equal(copied.logprobs(packed, targets)[0], trained)


def test_the_sampler_folds_the_adapter_in(nano):
    policy = shaken(load_policy(nano, "float32", LORA))
    for one in sample(policy.model, [IDS[0][:5]], [[1, 2]], SamplingParams(8), [])[0]:
        packed = pack([IDS[0][:5] + one.tokens])
        truth = policy.logprobs(packed, torch.arange(5, 13))[0].detach()
        assert one.logprobs == pytest.approx(truth.tolist(), abs=1e-4)


def test_the_weights_for_a_sampler_elsewhere_have_the_adapter_in_them(nano, tmp_path):
    policy, plain = shaken(load_policy(nano, "float32", LORA)), load_policy(nano, "float32")
    save_model(tmp_path, policy, {}, verify=False)
    merged = load_policy(tmp_path, "float32")
    found = policy.plain_weights()
    assert found.keys() == dict(plain.model.named_parameters()).keys()
    for name, parameter in merged.model.named_parameters():
        assert torch.allclose(found[name], parameter, atol=1e-6), name
    same = plain.plain_weights()
    for name, parameter in plain.model.named_parameters():
        assert torch.equal(same[name], parameter) and same[name].data_ptr() != parameter.data_ptr()


def test_a_saved_policy_loads_in_plain_peft_and_merges(nano, tmp_path):
    policy = shaken(load_policy(nano, "float32", LORA))
    save_model(tmp_path / "adapter", policy, {"role": "policy"}, verify=True)
    assert not (tmp_path / "adapter/model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(nano)
    theirs = plain_logits(peft.PeftModel.from_pretrained(base, tmp_path / "adapter"), IDS[0])
    targets = torch.arange(1, len(IDS[0]))
    ours = policy.logprobs(pack(IDS[:1]), targets)[0].detach()
    expected = theirs.log_softmax(-1)[:-1].gather(-1, torch.tensor(IDS[0][1:])[:, None])[:, 0]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    direct = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")  # transformers finds the base itself
    torch.testing.assert_close(plain_logits(direct, IDS[0]), theirs)

    again = load_policy(tmp_path / "adapter", "float32", {**LORA, "r": 64})  # goes on with its own rank
    assert torch.equal(again.logprobs(pack(IDS[:1]), targets)[0], policy.logprobs(pack(IDS[:1]), targets)[0])
    assert again.lora.adapters.configs["role0"].r == 4
    export_model(str(tmp_path / "adapter"), str(tmp_path / "whole"))
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(plain_logits(whole, IDS[0]), theirs, rtol=1e-4, atol=1e-4)


def test_four_models_on_one_set_of_weights(nano, tmp_path):
    torch.manual_seed(1)
    reward = load_scalar(nano, "float32", trained=False, lora=LORA)
    shaken(reward).bias = 0.25
    save_model(tmp_path / "reward", reward, {"role": "reward"}, verify=True)
    names = set(load_file(tmp_path / "reward/adapter_model.safetensors"))
    assert "base_model.model.score.weight" in names
    base = AutoModelForSequenceClassification.from_pretrained(nano, num_labels=1)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "reward")
    expected = [float(theirs(input_ids=torch.tensor([ids])).logits) - 0.25 for ids in IDS]
    packed = pack(IDS)

    policy = shaken(load_policy(nano, "float32", LORA))
    shared = load_scalar_beside(policy, tmp_path / "reward")
    value = shared.second()
    assert shared.scores(packed).tolist() == pytest.approx(expected, abs=1e-4)
    assert torch.equal(value.scores(packed), shared.scores(packed))
    before = policy.logprobs(packed, torch.tensor([5]))[0].detach()
    optimizer = MasterAdam(value.own_parameters())
    value.per_token(packed).square().sum().backward()
    optimizer.collect()
    optimizer.step(1e-2, None)
    assert float((value.scores(packed) - shared.scores(packed)).abs().max().detach()) > 1e-3
    assert shared.scores(packed).tolist() == pytest.approx(expected, abs=1e-4)  # neither head nor adapter moved
    assert torch.equal(policy.logprobs(packed, torch.tensor([5]))[0], before)
    assert value.model.base_model is policy.model.base_model
    alone = load_scalar(tmp_path / "reward", "float32")  # merged
    assert alone.scores(packed).tolist() == pytest.approx(expected, abs=1e-4)


def test_layers_of_gpt2_are_found_and_reload(tokenizer, tmp_path):
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64, eos_token_id=1)
    model = GPT2LMHeadModel(config).eval()
    model.config._attn_implementation = NAME
    save_model(tmp_path / "gpt2", Policy(model, tokenizer), {}, verify=False)
    policy = shaken(load_policy(tmp_path / "gpt2", "float32", LORA))
    assert len(policy.own_parameters()) == 2 * 2 * 4
    save_model(tmp_path / "adapter", policy, {}, verify=True)


def test_what_cannot_work_is_one_error(nano, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no linear layers called w_proj.*\n.*q_proj"):
        load_policy(nano, "float32", {**LORA, "target_modules": ("w_proj",)})
    save_model(tmp_path / "adapter", load_policy(nano, "float32", LORA), {}, verify=False)
    with pytest.raises(UserError, match="adapter of a policy"):
        load_scalar(tmp_path / "adapter", "float32", trained=False)
    with pytest.raises(UserError, match="not a reward model"):
        load_scalar(tmp_path / "adapter", "float32")
    about = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps({**about, "base_model_name_or_path": "/gone"}))
    with pytest.raises(UserError, match="base model '/gone' is not there"):
        load_policy(tmp_path / "adapter")
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(UserError, match=r"tutelage\[adapters\]"):
        load_policy(nano, "float32", LORA)
