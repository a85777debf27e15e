"""A program: every kind of stage for a step or two, on the CPU or on a pretended GPU; prints a line of JSON for each.

python -m tests.engine.every_stage cpu|gpu|mutant FOLDER
"""

import json
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

WHERE, OUT = sys.argv[1], Path(sys.argv[2])
if WHERE != "cpu":
    from tests.pretend import Making, pretended_gpu

import torch  # noqa: E402

from tutelage.configs import (  # noqa: E402
    DPOConfig,
    EvalConfig,
    GRPOConfig,
    LabelConfig,
    PPOConfig,
    RewardConfig,
    SampleConfig,
    SFTConfig,
)
from tutelage.data import sources  # noqa: E402
from tutelage.engine import packing  # noqa: E402
from tutelage.engine.online import OnlineDecoder, Row  # noqa: E402
from tutelage.engine.sampling import SamplingParams  # noqa: E402
from tutelage.models import Policy, checkpoint, load_policy, save_model  # noqa: E402
from tutelage.recipe import stage_function  # noqa: E402
from tutelage.stages import evaluate  # noqa: E402
from tutelage.world.build import SIZES, make_model, make_tokenizer  # noqa: E402

SHOWN = ("loss", "accuracy", "kl", "scores", "rewards/margins")


def run(verb: str, name: str, config: Any, **options: Any) -> None:
    made = config(out=str(OUT / name), max_length=96, dtype="float32", **options)
    done = stage_function(verb)(made)
    metrics = OUT / name / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    shown = [{k: row[k] for k in SHOWN if k in row} for row in rows]
    print(json.dumps({name: shown or done.get("win_rates", [{}])[0].get("win_rate")}), flush=True)


def everything() -> None:
    tokenizer = make_tokenizer(0)
    nano = Policy(make_model(SIZES["nano"], tokenizer, 0, "float32"), tokenizer)
    save_model(OUT / "nano", nano, {"role": "policy"}, verify=True)
    # What a library draws before it reads the weights differs between devices; the head is not what is tested.
    evaluate.SUITES = dict.fromkeys(evaluate.SUITES, 2)
    evaluate.CORPUS_TOKENS, sources.CHUNK = 500, 10
    checkpoint._new_head = lambda head: head.weight.data.copy_(torch.linspace(-0.1, 0.1, head.weight.numel()))
    sft, reward, labels = str(OUT / "sft"), str(OUT / "reward"), str(OUT / "labels.jsonl")
    short = {"max_steps": 2, "batch_size": 4}
    run("sft", "sft", SFTConfig, model=str(OUT / "nano"), demonstrations=8, **short)
    run("sft", "adapter", SFTConfig, model=str(OUT / "nano"), demonstrations=8, adapters=True, **short)
    run("sample", "answers.jsonl", SampleConfig, model=sft, prompts=8, samples=3, batch_size=16, max_new_tokens=6)
    stage_function("label")(LabelConfig(data=str(OUT / "answers.jsonl"), out=labels))
    run("reward", "reward", RewardConfig, model=sft, data=labels, **short)
    run("dpo", "dpo", DPOConfig, model=sft, data=labels, **short)
    rollout = {"model": sft, "reward_model": reward, "max_new_tokens": 6, "eval_every": 1, "eval_prompts": 4}
    run("ppo", "ppo", PPOConfig, minibatch_size=2, ptx_coef=0.1, force=True, **rollout, **short)
    run("grpo", "grpo", GRPOConfig, group_size=2, force=True, **rollout, **short)
    models = (f"a={OUT / 'sft'}", f"b={OUT / 'ppo'}")
    run("eval", "eval", EvalConfig, models=models, reward_model=reward, prompts=6, kl_from="a", max_new_tokens=6)
    served: list[Any] = []
    thread = threading.Thread(target=serve, args=(sft, served))  # as a server's: torch's default device is not there
    thread.start()
    thread.join()
    print(json.dumps({"serve": served}), flush=True)


def serve(model: str, served: list[Any]) -> None:
    with nullcontext() if WHERE == "cpu" else Making():
        served += served_by(load_policy(model, "float32"))


def served_by(policy: Policy) -> list[Any]:
    decoder = OnlineDecoder(policy.model, [0])
    rows = [Row([5, 6, 7], SamplingParams(3), 1), Row([5, 6], SamplingParams(2), 2, alternatives=2, score_prompt=True)]
    decoder.admit(rows)
    while decoder.rows:
        decoder.step()
    return [*(row.tokens for row in rows), [*rows[1].logprobs, *rows[1].prompt_logprobs]]


if WHERE == "mutant":  # positions that stay behind on the CPU
    there = packing.positions_in
    packing.positions_in = lambda offsets: there(offsets).cpu()
with nullcontext() if WHERE == "cpu" else pretended_gpu():
    everything()
