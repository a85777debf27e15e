"""Plans by hand-computed numbers; sizes that equal the loaded model's; the commands."""

import json

import pytest
import torch

from tutelage.cli.main import main
from tutelage.configs import PPOConfig, RewardConfig, SFTConfig
from tutelage.engine.optimizer import MasterAdam
from tutelage.errors import UserError
from tutelage.models import load_policy
from tutelage.planning import memory
from tutelage.planning.machine import facts, gemm_rate
from tutelage.planning.memory import Work
from tutelage.planning.plan import plan_stage
from tutelage.planning.shape import Shape, read_shape

RATES = {"gemm_flops": {"float32": 1e11, "bfloat16": 1e11}, "memory_bytes_per_second": 1e10}
SMALL = Shape(
    parameters=1000,
    vocabulary=50,
    hidden=8,
    layers=2,
    query=8,
    key=4,
    feed_forward=16,
    matrices=(("q_proj", 8, 8), ("up_proj", 16, 8)),
)


def test_the_shape_is_that_of_the_loaded_model(nano):
    shape, model = read_shape(nano), load_policy(nano, "float32").model
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert (shape.layers, shape.hidden) == (model.config.num_hidden_layers, model.config.hidden_size)
    assert len(shape.matrices) == 7 * shape.layers and shape.gated


def test_an_adapters_size_is_that_of_the_trained_parameters(nano):
    pytest.importorskip("peft", reason="adapters need peft: pip install -e '.[adapters]'")
    options = {"r": 4, "lora_alpha": 8, "target_modules": ()}
    trained = sum(p.numel() for p in load_policy(nano, "float32", options).own_parameters())
    assert read_shape(nano).adapter(4, ()) == trained


def test_formulas_by_hand():
    assert SMALL.adapter(2, ()) == 2 * 16 + 2 * 24 and SMALL.adapter(2, ("up_proj",)) == 48
    assert SMALL.activation == 2 * (4 * 8 + 2 * 8 + 2 * 4 + 4 * 16)
    assert memory.optimizer(1000, 2, 4) == 12_000 and memory.optimizer(1000, 4, 4) == 8_000
    assert memory.optimizer(1000, 2, 2) == 8_000
    assert memory.gradients(1000, 2, 1) == 2_000 and memory.gradients(1000, 2, 3) == 6_000
    assert memory.activations(SMALL, Work(10, 5, 1), 2) == 2 * 10 * (240 + 120)
    assert memory.logits(SMALL, Work(10, 5, 1), 2, True) == 8 * 250 + 2 * 250 + 2 * 50 * 8
    assert memory.logits(SMALL, Work(10, 0, 1), 2, True) == 0
    assert memory.training_pass(SMALL, Work(10, 0, 1), 2, True) == round(1.3 * 2 * 10 * (240 + 120))
    assert memory.sampling(SMALL, Work(10, 0, 1, 3, 7), 2) == 2 * 2 * 2 * 4 * 3 * 7 + 2000 + 12 * 3 * 50


def test_the_optimizers_memory_is_what_it_holds():
    for dtype, state, moment in (
        (torch.bfloat16, "float32", 4),
        (torch.bfloat16, "bfloat16", 2),
        (torch.float32, "float32", 4),
    ):
        parameter = torch.nn.Parameter(torch.zeros(1000, dtype=dtype))
        held = MasterAdam([parameter], state=state)
        own = [m for m in held.masters if m is not parameter]
        size = sum(t.numel() * t.element_size() for t in (*own, *held.means, *held.squares))
        assert size == memory.optimizer(1000, dtype.itemsize, moment)


def test_a_stage_counts_its_own_batches_and_models(nano, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": "Say it again " * 20, "chosen": f"It is {i}.", "rejected": "No."} for i in range(50)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"model": str(nano), "data": str(pairs), "batch_size": 4, "dtype": "bfloat16"}
    reward = plan_stage(RewardConfig(max_steps=3, **options), RATES)
    lone = plan_stage(RewardConfig(max_steps=3, **{**options, "batch_size": 1}), RATES)
    assert lone["tokens_in_a_pass"] < reward["tokens_in_a_pass"] < 3 * lone["tokens_in_a_pass"]  # the prompt is shared
    assert reward["steps"] == 3 and reward["phases"]["update"] == reward["peak_bytes"] and not reward["guessed"]
    ppo = plan_stage(PPOConfig(reward_model=str(nano), minibatch_size=4, max_steps=2, **options), RATES)
    assert {"load", "sample", "score", "update", "save"} == set(ppo["phases"])
    size = read_shape(nano).parameters
    assert ppo["phases"]["save"] - reward["phases"]["save"] == pytest.approx((3 * 2 + 12 + 4 + 2) * size, rel=0.4)
    missing = plan_stage(SFTConfig(model="runs/none", data="none.jsonl", max_steps=2), RATES, str(nano))
    assert missing["guessed"]
    half = plan_stage(RewardConfig(max_steps=3, optimizer_state="bfloat16", **options), RATES)
    assert reward["peak_bytes"] - half["peak_bytes"] == 4 * size
    # 6 operations a parameter and token, at 0.6 of the rate
    tokens = reward["seconds"] * 1e11 * 0.6 / 6 / size
    assert tokens == pytest.approx(3 * reward["tokens_in_a_pass"], rel=0.2)


def test_weights_that_are_no_safetensors_are_one_error(nano, tmp_path):
    (tmp_path / "config.json").write_text((nano / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
    with pytest.raises(UserError, match="not a safetensors file"):
        read_shape(tmp_path)


def test_the_machine_is_measured():
    found = facts(0.05)
    assert found["cores"] >= 1 and found["memory_limit_bytes"] > 2**28 and found["versions"]["torch"]
    assert all(1e8 < rate < 1e14 for rate in found["gemm_flops"].values())
    assert 1e8 < gemm_rate(torch.float32, 0.01) < 1e14


def run(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    said = capsys.readouterr()
    assert left.value.code == 0, said.err
    return json.loads(said.out.splitlines()[-1]), said.err


def test_the_commands_print_json_last(capsys, nano):
    found, said = run(capsys, "doctor", "--seconds", "0.05", "--json")
    assert found["threads"] == torch.get_num_threads() and "GFLOP/s" in said
    found, said = run(capsys, "plan", "sft", "--model", nano, "--demonstrations", "40", "--json")
    assert found["stages"][0]["stage"] == "sft" and found["fits"] and "GiB" in said
    found, said = run(capsys, "plan", "quickstart", "--model", nano, "--json")
    names = [row["name"] for row in found["stages"]]
    assert "sft" in names and "ppo" in names and "label" not in names
    assert found["peak_bytes"] == max(row["peak_bytes"] for row in found["stages"])
