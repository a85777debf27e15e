"""Rejection sampling: n answers to each prompt, the reward model's best of them as demonstrations.

(Touvron et al. 2023, Llama 2, section 3.2.3; Stiennon et al. 2020 call the choice best-of-n.) A prompt's answer is
kept only if it ended by itself. The summary holds what best-of-n is worth by the reward model for each n, from all
samples without bias, with log n - (n-1)/n, the *upper bound* of its KL.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.algorithms.best_of_n import best_of_n, kl_upper_bound
from tutelage.algorithms.schedules import cosine_to_fraction
from tutelage.configs import RejectionConfig
from tutelage.data.batches import batch_order
from tutelage.data.formats import write_jsonl
from tutelage.data.sources import data_hash, prompts
from tutelage.data.templates import preflight, render
from tutelage.engine.distributed import from_main, gather, part
from tutelage.engine.optimizer import MasterAdam
from tutelage.engine.sampling import Sample, SamplingParams
from tutelage.errors import UserError
from tutelage.judges.cache import key_of
from tutelage.models import (
    Policy,
    ScalarModel,
    StepModel,
    is_step_model,
    load_scalar,
    load_step_model,
    resolve,
    save_model,
)
from tutelage.processes import is_main
from tutelage.records import Demonstration, Prompt
from tutelage.runs import Progress, write_text
from tutelage.runs.files import whole_rows
from tutelage.runs.lineage import folder_hash
from tutelage.stages.gate import gated_reward_model
from tutelage.stages.language_modeling import backward_mean_nll
from tutelage.stages.loading import trained_policy
from tutelage.stages.rollout import score_answers
from tutelage.stages.sample import draw, rendered_prompts, text_of
from tutelage.stages.session import Session
from tutelage.stages.step_scores import process_rewards

CHUNK = 64  # prompts a line of the file of candidates


@dataclass
class Candidates:
    """The n answers to a prompt, with their scores."""

    texts: list[str]
    ended: list[bool]
    scores: list[float]


def run(config: RejectionConfig) -> dict[str, Any]:
    """Sample, choose, fine-tune; returns the run's summary with its checkpoint."""
    # 1. n answers to each prompt, scored by the reward model.
    source, reward_source = resolve(config.model), gated_reward_model(config)
    policy, reward = trained_policy(config, source), _reward_model(reward_source, config)
    asked = prompts(config.data, "train", config.prompts, config.seed)
    rendered_prompts(policy, asked, config.max_length)  # a prompt that does not fit is said before anything is written
    total = config.max_steps or max(1, round(config.epochs * len(asked) / config.batch_size))
    how = [config.samples, config.max_new_tokens, config.temperature, config.seed, config.max_length]
    key = key_of(folder_hash(source), folder_hash(reward_source), how)
    session = Session(config, "rejection", total)
    candidates = _candidates(session.run.path / "candidates.jsonl", key, policy, reward, asked, config)

    # 2. The best of each prompt as a demonstration; what best-of-n is worth.
    kept = [(prompt, best) for prompt in asked if (best := _best(candidates[prompt.id])) is not None]
    if not kept:
        session.run.abandon()
        raise UserError(
            "every answer was cut off", where="option --max-new-tokens", mend="raise it, or train sft longer"
        )
    demonstrations = [_demonstration(prompt, text) for prompt, text in kept]
    if is_main():
        write_jsonl(session.run.path / "demonstrations.jsonl", demonstrations)
    table = _table(candidates, config.samples)
    rendered = [render(policy.tokenizer, d.messages) for d in demonstrations]
    report = preflight(policy.tokenizer, rendered, config.max_length, [d.messages[:-1] for d in demonstrations])
    print("\n".join(f"rejection: {line}" for line in report.lines()), file=sys.stderr)
    about = {"role": "policy", "stage": "rejection", "parent": str(source), "reward_model": str(reward_source)}
    about |= {"data": data_hash(config.data), "template": report.template}

    # 3. Fine-tuning on them, from the policy that sampled.
    with session:
        if session.run.resume_model():
            policy = trained_policy(config, session.run.resume_model() or "")
        session.prepare(policy)
        optimizer = MasterAdam(policy.own_parameters(), state=config.optimizer_state)
        if session.state:
            optimizer.load(session.state["optimizer"])
        for step in session.steps():
            chosen = batch_order(len(report.kept), config.batch_size, config.seed, session.position(step))
            batch = [report.kept[i] for i in chosen]
            rate = config.learning_rate * cosine_to_fraction(step - 1, total, final_fraction=config.final_fraction)
            row = backward_mean_nll(policy, batch, config.micro_tokens, optimizer)
            row |= {"grad_norm": optimizer.step(rate, config.max_grad_norm), "learning_rate": rate}
            session.tokens += sum(len(r.input_ids) for r in batch)
            write = lambda path, verify: save_model(path, policy, about, verify=verify)  # noqa: E731
            session.done(step, row, write, {"optimizer": optimizer.state()})
        inputs: dict[str, Path | str | None] = {"model": source, "reward_model": reward_source, "data": config.data}
        counts = {"prompts": len(asked), "kept": len(kept), "best_of_n": table}
        return session.finish(inputs, **counts)


def _reward_model(path: Path, config: RejectionConfig) -> ScalarModel | StepModel:
    load = load_step_model if is_step_model(path) else load_scalar
    return load(path, config.dtype, device=config.device)


def _demonstration(prompt: Prompt, text: str) -> Demonstration:
    messages = [*prompt.messages, {"role": "assistant", "content": text}]
    return Demonstration(id=f"best-{prompt.id}", prompt_id=prompt.id, messages=messages, labeler="reward-model")


def _candidates(
    path: Path,
    key: str,
    policy: Policy,
    reward: ScalarModel | StepModel,
    asked: list[Prompt],
    config: RejectionConfig,
) -> dict[str, Candidates]:
    """Answers and scores by prompt; what an earlier sitting wrote is not sampled again (each has its own seed).

    key: of all that they depend on beside their prompt; rows of another are replaced.
    """
    found = from_main(lambda: _read(path, key))
    missing = [prompt for prompt in asked if prompt.id not in found]
    params = SamplingParams(config.max_new_tokens, 0, config.temperature)
    with Progress(len(asked), "candidates", done=len(asked) - len(missing), unit="prompt") as bar:
        for start in range(0, len(missing), CHUNK):
            some = missing[start : start + CHUNK]
            mine = list(part(some))
            drawn = draw(policy, mine, config.samples, params, config.seed, config.max_length) if mine else []
            lines: dict[str, Any] = {}
            for prompt, row in zip(mine, drawn, strict=True):
                scores = _scores(reward, policy, [prompt] * len(row), row, config)
                texts, ended = [text_of(policy, one) for one in row], [one.finish == "stop" for one in row]
                lines[prompt.id] = {"texts": texts, "ended": ended, "scores": scores.tolist()}
            lines = {name: row for share in gather(lines) for name, row in share.items()}
            found |= {name: Candidates(**row) for name, row in lines.items()}
            if is_main():
                with open(path, "a", encoding="utf-8") as file:
                    file.write(
                        "".join(
                            json.dumps({"prompt_id": name, **row, "key": key}) + "\n" for name, row in lines.items()
                        )
                    )
            bar.update(len(asked) - len(missing) + start + len(some))
    return found


def _scores(
    reward: ScalarModel | StepModel, policy: Policy, asked: list[Prompt], row: list[Sample], config: RejectionConfig
) -> Tensor:
    """The reward of each answer; of a process reward model the aggregate over its steps, with the guards. [N]"""
    if isinstance(reward, StepModel):
        return process_rewards(reward, policy, asked, row, config.max_length)[0]
    return score_answers(reward, policy, asked, row, config.max_length, config.micro_tokens)


def _read(path: Path, key: str) -> dict[str, Candidates]:
    """The file's rows; those of another policy, reward model or way of sampling are dropped from it."""
    rows = whole_rows(path)
    ours = [row for row in rows if row.get("key", key) == key]
    if len(ours) < len(rows):
        print(f"rejection: {len(rows) - len(ours)} candidates of other models or options are replaced", file=sys.stderr)
        write_text(path, "".join(json.dumps(row) + "\n" for row in ours))
    return {row["prompt_id"]: Candidates(row["texts"], row["ended"], row["scores"]) for row in ours}


def _best(candidates: Candidates) -> str | None:
    """The text with the highest score of those that ended by themselves."""
    rows = zip(candidates.scores, candidates.texts, candidates.ended, strict=True)
    ended = [(score, text) for score, text, done in rows if done and text.strip()]
    return max(ended)[1] if ended else None


def _table(candidates: dict[str, Candidates], samples: int) -> list[dict[str, float]]:
    """Mean score of the best of n over prompts, for n = 1, 2, 4, … up to the samples that there are."""
    sizes = sorted({*(2**k for k in range(samples.bit_length()) if 2**k <= samples), samples})
    scores = [torch.tensor(c.scores) for c in candidates.values()]
    return [
        {
            "n": n,
            "proxy": sum(best_of_n(s, s, n) for s in scores) / len(scores),
            "kl_upper_bound": kl_upper_bound(n),
        }
        for n in sizes
    ]
