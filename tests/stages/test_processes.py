"""Every training stage takes the same steps on 1 and 2 processes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from forked import run_on
from small_stages import make_inputs, rows, stages
from tutelage.configs import LabelConfig, SampleConfig, SFTConfig
from tutelage.runs import Interrupted
from tutelage.stages import sft
from tutelage.stages.session import Session
from tutelage.verbs import stage_function


@pytest.fixture(scope="module")
def inputs(nano, tmp_path_factory, little_text) -> Path:
    return make_inputs(nano, tmp_path_factory.mktemp("inputs"))


def train_all(configs: dict, out: Path) -> None:
    for name, config in configs.items():
        stage_function(config.verb)(replace(config, out=str(out / name)))


@pytest.fixture(scope="module")
def trained(inputs, nano, tmp_path_factory) -> Path:
    """The runs of every stage on 1 and 2 processes, two of them sharded as well (test_curves.py has 4 of both kinds)."""
    out = tmp_path_factory.mktemp("trained")
    configs = stages(inputs, str(nano))
    train_all(configs, out / "1")
    run_on(2, out, train_all, configs, out / "2")
    sharded = {name: replace(configs[name], parallel="fsdp", activation_checkpointing=True) for name in ("sft", "ppo")}
    run_on(2, out, train_all, sharded, out / "fsdp")
    return out


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward", "dpo", "kto", "prm", "ppo", "rloo", "rejection"])
def test_processes_do_not_change_the_numbers(trained, stage):
    alone = rows(trained / "1" / stage)
    weights = load_file(trained / "1" / stage / "checkpoints/latest/model.safetensors")
    for count in ("2", "fsdp"):
        run = trained / count / stage
        if not run.exists():
            continue
        for one, many in zip(alone, rows(run), strict=True):
            assert many.keys() == one.keys(), count
            for name, value in one.items():
                # RLOO's loss is what is left of sums of both signs, tens of nats an answer, each of which is rounded.
                least = 4e-6 if (stage, name) == ("rloo", "loss") else 2e-6
                assert many[name] == pytest.approx(value, rel=1e-5, abs=least), (count, name)
        for name, tensor in load_file(run / "checkpoints/latest/model.safetensors").items():
            # Adam divides by the gradient's size: where that is near zero, rounding shows in the step.
            assert float((tensor - weights[name]).abs().mean()) < 1e-5, name
        assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in (trained / "1" / stage).iterdir())


def test_answers_are_the_same_whatever_the_number_of_processes(trained):
    alone = (trained / "1/ppo/samples.jsonl").read_text().splitlines()
    for count in ("2", "fsdp"):
        many = (trained / count / "ppo/samples.jsonl").read_text().splitlines()
        assert [json.loads(line)["text"] for line in many] == [json.loads(line)["text"] for line in alone]


def draw_and_label(model: str, out: Path) -> dict:
    """What each process is told of stages that do not train."""
    drawn = out / "completions.jsonl"
    options = {"model": model, "seed": 3, "dtype": "float32", "max_new_tokens": 8}
    told = {"sample": stage_function("sample")(SampleConfig(out=str(drawn), prompts=7, samples=2, **options))}
    labels = LabelConfig(data=str(drawn), out=str(out / "comparisons.jsonl"), overlap=1.0)
    return told | {"label": stage_function("label")(labels)}


def test_several_processes_write_one_file_of_answers_and_one_of_labels(nano, tmp_path):
    for name in ("one", "three"):
        (tmp_path / name).mkdir()
    draw_and_label(str(nano), tmp_path / "one")
    told = run_on(3, tmp_path, draw_and_label, str(nano), tmp_path / "three")
    one, three = ((tmp_path / name / "completions.jsonl").read_text() for name in ("one", "three"))
    assert one == three and one.count("\n") == 7 + 14
    assert [found["sample"]["completions"] for found in told] == [14] * 3
    labels = [(tmp_path / name / "comparisons.jsonl").read_text().splitlines() for name in ("one", "three")]
    ranks = [[json.loads(line).get("ranks") for line in lines] for lines in labels]
    assert ranks[0] == ranks[1] and told[0]["label"] == told[1]["label"] == told[2]["label"]


def train_in_two_sittings(config: SFTConfig) -> str:
    """Only one process is told to stop; all of them stop at the same step, and go on."""
    done = Session.done

    def told(self: Session, step: int, *more, **options) -> None:
        self.interrupt.requested |= step == 2 and torch.distributed.get_rank() == 1 and not self.run.start_step
        done(self, step, *more, **options)

    Session.done = told
    try:
        sft.run(config)
        raise AssertionError("was not stopped")
    except Interrupted as error:
        assert error.step == 2
    return sft.run(replace(config, resume=True))["checkpoint"]


def test_one_process_that_is_told_to_stop_stops_all(inputs, nano, trained, tmp_path):
    config = replace(stages(inputs, str(nano))["sft"], out=str(tmp_path / "run"))
    first, second = run_on(2, tmp_path, train_in_two_sittings, config)
    assert first == second
    for one, again in zip(rows(trained / "1/sft"), rows(tmp_path / "run"), strict=True):
        assert again == pytest.approx(one, rel=1e-5, abs=2e-6)
