"""The losses of 20 steps are those of one process on 2 and 4, with whole and with sharded models, also across stops."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from forked import run_on
from tutelage.configs import DPOConfig, LabelConfig, PPOConfig, RewardConfig, SampleConfig, SFTConfig, TrainingConfig
from tutelage.runs import Interrupted
from tutelage.stages import label, reward, sample
from tutelage.stages.session import Session
from tutelage.verbs import stage_function

STEPS = 20
COMMON = {"seed": 5, "max_length": 64, "dtype": "float32", "batch_size": 4, "micro_tokens": 256, "learning_rate": 3e-4}
KINDS = [(2, "data"), (2, "fsdp"), (4, "data"), (4, "fsdp")]
LOSSES = {  # and means of both signs, which may be near zero, of numbers of size one (the KL's: of thirty nats)
    "sft": (("loss",), ()),
    "reward": (("loss",), ()),
    "dpo": (("loss",), ()),
    "ppo": (("loss/value_avg", "objective/entropy"), ("loss/policy_avg", "objective/scores", "objective/kl")),
}


@pytest.fixture(scope="module")
def configs(nano, tmp_path_factory) -> dict[str, TrainingConfig]:
    """Each stage's 20 steps."""
    out = tmp_path_factory.mktemp("curves")
    drawn, few = str(out / "completions.jsonl"), {"seed": 5, "dtype": "float32", "model": str(nano)}
    sample.run(SampleConfig(out=drawn, prompts=24, samples=2, max_new_tokens=8, **few))
    label.run(LabelConfig(data=drawn, out=str(out / "comparisons.jsonl"), overlap=1.0))
    common = {**COMMON, "model": str(nano), "save_every": 100}
    labels = {"data": str(out / "comparisons.jsonl"), "max_steps": STEPS, "eval_every": 100}
    reward.run(RewardConfig(**{**common, **labels, "max_steps": 1}, out=str(out / "reward")))
    sampled = {
        "data": labels["data"],
        "reward_model": str(out / "reward"),
        "force": True,
        "max_new_tokens": 4,
        "minibatch_size": 4,
    }
    sampled["inner_epochs"] = 2  # the second looks at a policy that has moved
    return {
        "sft": SFTConfig(**common, max_steps=STEPS, demonstrations=40, eval_every=100),
        "reward": RewardConfig(**common, **labels),
        "dpo": DPOConfig(**common, **labels),
        "ppo": PPOConfig(**common, **sampled, max_steps=STEPS, eval_every=100, eval_prompts=4),
    }


def train(configs: dict[str, TrainingConfig], out: Path, parallel: str) -> None:
    for name, config in configs.items():
        config = replace(config, out=str(out / name), parallel=parallel, activation_checkpointing=parallel == "fsdp")
        stage_function(config.verb)(config)


def same(wanted: Path, found: Path, stage: str) -> None:
    relative, absolute = LOSSES[stage]
    one, many = (
        [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]
        for run in (wanted, found)
    )
    assert [row["step"] for row in one] == [row["step"] for row in many] == list(range(1, STEPS + 1))
    for names, near in ((relative, {"rel": 1e-5}), (absolute, {"rel": 0, "abs": 1e-5})):
        for name in names:
            assert [row[name] for row in many] == pytest.approx([row[name] for row in one], **near), (stage, name)


@pytest.fixture(scope="module")
def alone(configs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    train(configs, out, "data")
    return out


@pytest.mark.parametrize("count, parallel", KINDS)
def test_the_curves_are_those_of_one_process(count, parallel, configs, alone, tmp_path):
    run_on(count, tmp_path, train, configs, tmp_path, parallel)
    for stage in LOSSES:
        same(alone, tmp_path, stage)


def train_until(config: TrainingConfig, last: int) -> None:
    """As if it were told to stop (a job's time is up, say) at step `last`; the checkpoint of that step stays."""
    done = Session.done

    def told(self: Session, step: int, *more, **options) -> None:
        self.interrupt.requested |= step == last
        done(self, step, *more, **options)

    Session.done = told
    try:
        stage_function(config.verb)(config)
        assert last == STEPS
    except Interrupted as error:
        assert error.step == last
    finally:
        Session.done = done


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_a_stage_begun_on_4_processes_goes_on_on_2_and_on_1(stage, configs, alone, tmp_path):
    config = replace(configs[stage], out=str(tmp_path / stage), parallel="fsdp")
    for count, last in ((4, 5), (2, 10)):
        run_on(count, tmp_path, train_until, config, last)
        slices = tmp_path / stage / f"checkpoints/step-{last}/state/shards"
        assert len(list(slices.glob("*.distcp"))) == count
        config = replace(config, resume=True)
    train_until(config, STEPS)
    same(alone, tmp_path, stage)
