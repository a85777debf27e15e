"""A small run of each training loop: what tests of processes and of devices compare."""

import json
from pathlib import Path

from tutelage.configs import (
    DPOConfig,
    KTOConfig,
    LabelConfig,
    PPOConfig,
    PretrainConfig,
    PRMConfig,
    RejectionConfig,
    RewardConfig,
    RLOOConfig,
    SampleConfig,
    SFTConfig,
)
from tutelage.records import StepLabel
from tutelage.stages import label, reward, sample
from tutelage.world import reasoning

COMMON = {"seed": 3, "max_length": 96, "dtype": "float32", "learning_rate": 1e-3, "batch_size": 8, "micro_tokens": 300}


def make_inputs(nano: Path, out: Path) -> Path:
    """A reward model, comparisons and step labels to train on, in the folder `out`."""
    drawn, common = str(out / "completions.jsonl"), {"seed": 3, "dtype": "float32"}
    sample.run(SampleConfig(model=str(nano), out=drawn, prompts=24, samples=3, max_new_tokens=8, **common))
    label.run(LabelConfig(data=drawn, out=str(out / "comparisons.jsonl"), overlap=1.0))
    options = {**COMMON, "max_steps": 1, "data": str(out / "comparisons.jsonl")}
    reward.run(RewardConfig(model=str(nano), out=str(out / "reward"), **options))
    with open(out / "steps.jsonl", "w") as file:
        for number, problem in enumerate(reasoning.problems("train", 20)):
            steps = ["7 + 5 = 12.", *["Then 1 more."] * (number % 3), f"Answer: {number}."]
            labels = [1 if (number + place) % 4 else -1 for place in range(len(steps))]
            judged = StepLabel(id=f"s{number}", prompt_id=problem.id, steps=steps, labels=labels)
            file.write("".join(json.dumps(one.to_json()) + "\n" for one in (problem, judged)))
    return out


def stages(inputs: Path, model: str) -> dict:
    """A small run of each training loop."""
    common = {**COMMON, "model": model}
    labels = {"data": str(inputs / "comparisons.jsonl"), "max_steps": 2, "eval_every": 2}
    against = {"reward_model": str(inputs / "reward"), "force": True, "max_new_tokens": 8, "max_steps": 2}
    sampled = {**against, "eval_every": 2, "eval_prompts": 3, "minibatch_size": 4}
    return {
        "pretrain": PretrainConfig(**common, max_steps=2, tokens=5000),
        "sft": SFTConfig(**common, max_steps=6, demonstrations=60, pretraining_mix=0.25),
        "reward": RewardConfig(**{**common, **labels}),
        "dpo": DPOConfig(**{**common, **labels}),
        "kto": KTOConfig(**{**common, **labels}),
        "prm": PRMConfig(**common, data=str(inputs / "steps.jsonl"), max_steps=2),
        "ppo": PPOConfig(**common, **sampled, ptx_coef=0.5),
        "rloo": RLOOConfig(**common, **sampled, group_size=2),
        "rejection": RejectionConfig(**{**common, **against, "max_new_tokens": 48}, prompts=12, samples=4),
    }


def rows(run: Path) -> list[dict]:
    """The metrics without what is timed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    left_out = {"seconds", "time/rollout", "time/update"}
    # Before the first update policy and reference are equal: which answer is preferred is a matter of rounding.
    first = {"rewards/accuracies", "rewards/margins"}
    return [
        {k: v for k, v in row.items() if k not in left_out | (first if row["step"] == 1 else set())} for row in lines
    ]
