"""Plans for GPUs by hand-computed numbers, beside the plan of one machine, and beside what others measured."""

import json

import pytest

from tutelage.cli.main import main
from tutelage.configs import PPOConfig, RLOOConfig, SampleConfig, SFTConfig
from tutelage.planning import cluster, memory
from tutelage.planning.cluster import Split, found_best, plan_on, plan_split, sent, trained_share
from tutelage.planning.gpus import DECODING, GPU, GPUS, TRAINING, Fleet
from tutelage.planning.memory import Work
from tutelage.planning.plan import Models, decoding_step, models_of, phases_of, plan_stage, seconds_of
from tutelage.planning.shape import Shape
from tutelage.planning.work import Load

HUGE = GPU(1e15, 1e10, 1e11, 1e11)


def transformer(parameters, vocabulary, hidden, layers, feed_forward, gated=True) -> Shape:
    names = [("q", hidden, hidden), ("k", hidden, hidden), ("v", hidden, hidden), ("o", hidden, hidden)]
    names += [(name, feed_forward, hidden) for name in (("gate", "up", "down") if gated else ("up", "down"))]
    return Shape(parameters, vocabulary, hidden, layers, hidden, hidden, feed_forward, tuple(names * layers), gated)


SMALL = transformer(1000, 50, 4, 2, 8)  # 2 layers of 4 · 16 + 3 · 32 = 160
SFT = SFTConfig(batch_size=8, dtype="bfloat16")
PPO = PPOConfig(batch_size=16, minibatch_size=4, max_new_tokens=10, reward_model="r")
# 100 tokens in each of 3 passes of an update; 16 answers of 10 tokens
LOAD = Load(Work(100, 50, 3, 16, 30), 1200.0, 5, 0, 160)


def test_the_share_of_one_process():
    assert trained_share(LOAD, 1) == LOAD
    two = trained_share(LOAD, 2)  # 150 tokens: a whole pass and half a one
    assert (two.work.tokens, two.work.targets, two.work.micros, two.step_tokens) == (100, 50, 2, 600)
    six = trained_share(LOAD, 6)
    assert (six.work.tokens, six.work.targets, six.work.micros, six.step_tokens) == (50, 25, 1, 200)
    four = cluster.sampled_share(PPO, LOAD, 4)
    assert (four.work.rows, four.sampled_tokens) == (4, 40)
    assert cluster.sampled_share(PPO, LOAD, 4, rows=3).work.rows == 3
    assert cluster.updates_of(PPO) == 4 and cluster.updates_of(SFT) == 1


def test_what_is_sent_by_hand():
    models = Models(SMALL, 1, 1000, 1, 2, False)
    assert sent(SFT, models, LOAD, 1, "data") == (0, 0) and sent(SFT, models, LOAD, 1, "fsdp") == (0, 0)
    assert sent(SFT, models, LOAD, 4, "data") == (2 * 0.75 * 4 * 1000, 0)
    # 3 passes: weights twice (2 · 2000), gradients once (4000)
    assert sent(SFT, models, LOAD, 4, "fsdp") == (0.75 * 3 * 8000, 0.75 * 2000)
    two = Models(SMALL, 4, 1000, 2, 2, False)
    assert sent(PPO, two, LOAD, 2, "fsdp") == (0.5 * 3 * 8000 * 2, 0.5 * 2000 * 2)


def test_a_sharded_updates_memory_by_hand():
    models = Models(SMALL, 1, 1000, 1, 2, False)
    assert SMALL.layer == 160
    # the root has 1000 - 320 = 680: weights of root and two layers, and the root's gradient in two types
    assert memory.gathered(SMALL, 2) == 2 * (680 + 320) + 6 * 680
    whole, parted = (phases_of(SFT, models, LOAD, n) for n in (1, 4))
    # slices of weights, of masters and moments (12), of the sum of gradients (4); the pass itself is the same
    slices = 250 * (2 + 12 + 4) + memory.gathered(SMALL, 2)
    assert whole["update"] - parted["update"] == 1000 * (2 + 12 + 4) - slices
    assert whole["load"] == parted["load"]  # each process loads the whole model
    again = phases_of(SFTConfig(batch_size=8, activation_checkpointing=True), models, LOAD)
    # of 100 tokens in 2 bytes: 2 inputs of 4 and one whole layer in place of both layers
    assert whole["update"] - again["update"] == round(1.3 * 200 * (SMALL.activation // 2 - 8))


def test_times_by_hand():
    fleet = Fleet(HUGE, 4, 1e6)
    models = Models(SMALL, 4, 1000, 2, 2, False)
    shared = plan_split(PPO, models, LOAD, fleet, Split(4, 4, "data", "shared")).times
    rate, tokens = TRAINING * 1e11, 1200 * 5 / 4
    assert shared["score"] == pytest.approx(4 * 2 * 1000 * tokens / rate)
    added = 5 * 4 * 2 * 0.75 * 4 * 1000 * 2 / 1e6  # 5 steps of 4 updates of two models
    assert shared["update"] == pytest.approx(2 * 6 * 1000 * tokens / rate + added)
    # 4 rows for 10 steps; weights, and keys and values of 30 - 5 tokens: 2 · 2 · 2 · 4 a token of a row
    read = 2000 + 32 * 4 * 25
    assert shared["sample"] == pytest.approx(5 * 10 * read / (DECODING * 1e10)) and shared["weights"] == 0
    sharded = plan_split(PPO, models, LOAD, fleet, Split(4, 4, "fsdp", "shared")).times
    passes = trained_share(LOAD, 4).work.micros
    assert sharded["update"] == pytest.approx(5 * 4 * 0.75 * passes * 8000 * 2 / 1e6)  # longer than the products
    assert sharded["weights"] == pytest.approx(5 * 0.75 * 2000 * 2 / 1e6)
    apart = plan_split(PPO, models, LOAD, fleet, Split(3, 1, "data", "synchronous"))
    assert apart.times["weights"] == pytest.approx(5 * 2000 / 1e6)
    assert apart.seconds == pytest.approx(sum(apart.times.values()))
    ahead = plan_split(PPO, models, LOAD, fleet, Split(3, 1, "data", "one-step-off"))
    drawn, learned = ahead.times["sample"], ahead.times["score"] + ahead.times["update"]
    assert ahead.seconds == pytest.approx(max(drawn, learned) + ahead.times["weights"])


def test_gpus_that_score_by_hand():
    fleet, models = Fleet(HUGE, 4, 1e9), Models(SMALL, 4, 1000, 2, 2, False)
    without = plan_split(PPO, models, LOAD, fleet, Split(2, 1, "data", "synchronous"))
    with_one = plan_split(PPO, models, LOAD, fleet, Split(2, 1, "data", "synchronous", 1))
    # policy and value model here, reference and reward model there, at the same time
    assert with_one.times["score"] == pytest.approx(without.times["score"] / 2)
    assert {**with_one.times, "score": 0} == {**without.times, "score": 0}
    for phase in ("load", "update"):  # two sets of weights are elsewhere
        assert without.phases[phase] - with_one.phases[phase] == 2 * 2000
    assert with_one.phases["sample"] == without.phases["sample"]
    # one GPU's frozen models keep three that train waiting: 12 half passes there, 4 here
    few = plan_split(PPO, models, LOAD, fleet, Split(1, 3, "data", "synchronous", 1))
    assert few.times["score"] == pytest.approx(without.times["score"] / 2)
    found = list(cluster.splits(PPO, 4, scoring=1))
    apart = {(one.sampling, one.training) for one in found if one.mode != "shared"}
    assert apart == {(1, 2), (2, 1)} and {one.scoring for one in found if one.mode == "shared"} == {0}


def test_all_splits_are_looked_at_and_the_quickest_that_fits_wins():
    found = list(cluster.splits(PPO, 4))
    assert {(one.sampling, one.training) for one in found if one.mode != "shared"} == {(1, 3), (2, 2), (3, 1)}
    assert {one.parallel for one in found if one.training == 1} == {"data"}
    assert all(one.parallel == "data" for one in cluster.splits(PPO, 64) if one.training > 4)  # an example for each
    assert {one.mode for one in cluster.splits(RLOOConfig(), 4)} == {"shared", "synchronous", "one-step-off"}
    assert [one.sampling for one in cluster.splits(SampleConfig(), 4)] == [4]  # torchrun divides it
    assert [one.sampling for one in cluster.splits(SampleConfig(backend="vllm"), 4)] == [1]
    assert [one.sampling for one in cluster.splits(SampleConfig(), 4, placed=True)] == [1]

    models = models_of(PPO, SMALL, 2)
    fleet = Fleet(HUGE, 4, 1e9, price=2.0)
    plans = [plan_split(PPO, models, LOAD, fleet, one) for one in found]
    row = found_best(PPO, models, LOAD, fleet)
    allowed = [one for one in plans if one.split.mode != "one-step-off"]
    assert row["seconds"] == min(one.seconds for one in allowed)
    assert row["cost"] == pytest.approx(2.0 * 4 * row["seconds"] / 3600)
    everything = found_best(PPO, models, LOAD, fleet, "one-step-off")
    assert everything["seconds"] == min(one.seconds for one in plans)
    modes = {one["split"]["mode"] for one in [row, *row["others"]]}
    assert modes == {"shared", "synchronous", "one-step-off"}

    limit = min(one.peak for one in allowed)
    small = found_best(PPO, models, LOAD, Fleet(GPU(limit, 1e10, 1e11, 1e11), 4, 1e9))
    assert small["peak_bytes"] == limit and small["fits"]
    assert not found_best(PPO, models, LOAD, Fleet(GPU(limit - 1e6, 1e10, 1e11, 1e11), 4, 1e9))["fits"]


def test_fewer_rows_are_drawn_at_once_where_memory_ends():
    models, split = models_of(PPO, SMALL, 2), Split(3, 1, "data", "synchronous")
    load = Load(Work(100, 50, 3, 16, 30000), 1200.0, 5, 0, 160)
    free = plan_split(PPO, models, load, Fleet(HUGE, 4, 1e9), split)
    tight = GPU(free.phases["sample"] - 1, 1e10, 1e11, 1e11)
    less = plan_split(PPO, models, load, Fleet(tight, 4, 1e9), split)
    assert (free.rows, less.rows) == (6, 3) and less.times["sample"] > free.times["sample"]


def test_one_gpu_is_the_plan_of_one_machine_with_its_rates(nano, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": "Say it again " * 20, "chosen": f"It is {i}.", "rejected": "No."} for i in range(50)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {"model": str(nano), "data": str(pairs), "dtype": "bfloat16", "max_steps": 2}
    for config in (
        SFTConfig(batch_size=4, **common),
        PPOConfig(reward_model=str(nano), batch_size=32, minibatch_size=4, micro_tokens=500, **common),
        RLOOConfig(reward_model=str(nano), batch_size=32, activation_checkpointing=True, **common),
        PPOConfig(reward_model=str(nano), batch_size=32, minibatch_size=4, adapters=True, **common),
    ):
        many = plan_on(config, Fleet(GPUS["h100"], 1, float("inf")))
        one = plan_stage(config, GPUS["h100"].rates)
        assert many["phases"] == one["phases"] and many["peak_bytes"] == one["peak_bytes"]
        assert many["seconds"] == pytest.approx(one["seconds"]) and many["others"] == []


# What others published, on their own pages and papers; docs/scale.md has the same table.
TRAINED = [  # kind of GPU, parameters, tokens a second of one GPU
    ("a100", 65.2e9, 380),  # LLaMA 65B: "380 tokens/sec/GPU on 2048 A100 GPU with 80GB" (2302.13971, section 2.4)
    ("a100", 6.74e9, 2.0e12 / (184_320 * 3600)),  # Llama 2 7B: GPU hours for 2 T tokens (2307.09288, table 2)
    ("a100", 69.0e9, 2.0e12 / (1_720_320 * 3600)),  # Llama 2 70B
    ("h100", 405e9, 400e12 / 6 / 405e9),  # Llama 3.1 405B on 16 384 GPUs: 400 TFLOP/s a GPU (2407.21783, table 4)
]


@pytest.mark.parametrize("kind, parameters, published", TRAINED)
def test_training_is_as_quick_as_others_say(kind, parameters, published):
    """The share of the peak was chosen in the middle of these, so that they bound it and prove nothing more."""
    models = Models(transformer(int(parameters), 32000, 8192, 80, 22016), 1, int(parameters), 1, 2, False)
    seconds = seconds_of(SFT, models, Load(Work(4096, 4096, 1), 1e6, 1), GPUS[kind].rates)["update"]
    assert 1e6 / seconds == pytest.approx(published, rel=0.2)


def test_decoding_is_as_quick_as_gpt_fast():
    """Llama-2-7B in bfloat16, one row, a prompt of 5 tokens, A100-80GB: 104.9 tokens/s (README of gpt-fast)."""
    models = Models(transformer(6_738_415_616, 32000, 4096, 32, 11008), 1, 0, 0, 2, False)
    config = SampleConfig(max_new_tokens=200)
    load = Load(Work(5, 0, 1, 1, 205), 0, 1)
    assert 1 / decoding_step(config, models, load, GPUS["a100"].rates) == pytest.approx(104.9, rel=0.03)


DEEPSPEED = [(12.85e9, 5120, 40, 8, 9.0), (12.85e9, 5120, 40, 64, 1.25), (29.97e9, 7168, 48, 64, 4.0)]


def deepspeed_chat(parameters: float, hidden: int, layers: int, count: int) -> float:
    """Hours of step 3 of DeepSpeed-Chat: 135 M tokens, half of them queries of 256, 1024 answers a step, A100-80GB.

    (Its page also says 131.9 k queries, which make 67.5 M tokens with their answers: half of these hours.) Its reward and value models have 350 M parameters and do not count here: the policy is trained, and two of the
    three models that `rloo` scores with are its size.
    """
    shape = transformer(int(parameters), 50272, hidden, layers, 4 * hidden, gated=False)
    config = RLOOConfig(batch_size=1024, minibatch_size=1024, max_new_tokens=256)
    models = models_of(config, shape, 2)
    load = Load(Work(8192, 4096, 64, 256, 512), 1024 * 512, 258, 0, 1024 * 256)
    fleet = Fleet(GPUS["a100"], count, 100e9)
    times = plan_split(config, models, load, fleet, Split(count, count, "fsdp", "shared")).times
    return (times["sample"] + times["score"] * 2 / 3 + times["update"] + times["weights"]) / 3600


@pytest.mark.parametrize("parameters, hidden, layers, count, hours", DEEPSPEED)
def test_deepspeed_chat_took_longer_than_the_plan_but_not_twice_as_long(parameters, hidden, layers, count, hours):
    """No constant was set by these: blogs/deepspeed-chat/README.md of DeepSpeed, tables 1 and 2."""
    assert 0.5 < deepspeed_chat(parameters, hidden, layers, count) / hours < 0.9


def test_the_command_plans_a_recipe_on_gpus(nano, capsys):
    words = [
        "plan",
        "cluster",
        "--model",
        str(nano),
        "--gpu",
        "a100",
        "--count",
        "4",
        "--network",
        "50",
        "--price",
        "2",
    ]
    with pytest.raises(SystemExit) as left:
        main([*words, "--ppo.max-steps", "3", "--reward.max-steps", "3", "--json"])
    said = capsys.readouterr()
    assert left.value.code == 0, said.err
    found = json.loads(said.out.splitlines()[-1])
    ppo = next(row for row in found["stages"] if row["name"] == "ppo")
    assert ppo["steps"] == 3 and ppo["fits"] and ppo["split"]["mode"] in ("shared", "synchronous")
    assert found["cost"] == pytest.approx(2 * found["gpu_hours"])
    assert found["gpu_hours"] == pytest.approx(4 * found["seconds"] / 3600)
    assert "GPUs" in said.err and "in all" in said.err


@pytest.mark.parametrize(
    "words, said",
    [
        (["--gpu", "h10", "--count", "1"], "did you mean h100"),
        (["--gpu", "h100", "--count", "2"], "option --network"),
        (["--gpu", "h100", "--count", "0"], "option --count"),
        (["--gpu", "h100", "--price", "-1"], "option --price"),
        (["--count", "2", "--network", "1"], "give --gpu too"),
    ],
)
def test_what_cannot_be_planned_is_refused(words, said, capsys):
    with pytest.raises(SystemExit) as left:
        main(["plan", "cluster", *words])
    assert left.value.code == 2 and said in capsys.readouterr().err
