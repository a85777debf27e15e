"""Scores of answers that somebody has: of every step of a solution by a process reward model, of whole answers by any.

The scores are the model's, without the guards that `rerank` and `ppo` put on them (stages/step_scores.py). Of an outcome
reward model the last score alone means something, so that no other is written.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutelage.configs import ScoreConfig
from tutelage.data.foreign import stepwise
from tutelage.data.formats import Row, check_file, data_files, read_rows, write_rows
from tutelage.data.rows import is_unranked, items_of
from tutelage.data.steps import render_steps
from tutelage.data.templates import render_completion
from tutelage.errors import UserError
from tutelage.evaluation.step_card import Judged, step_card
from tutelage.judges.reward import RewardJudge, reward_judge
from tutelage.models import is_step_model, load_step_model
from tutelage.records import Comparison, Completion, Demonstration, Message, Prompt, Record, StepLabel, Thumb
from tutelage.solutions import split_steps
from tutelage.stages.step_scores import score_steps, whole_scores

SHOWN = 3  # solutions whose steps are told with the summary


@dataclass
class Answer:
    """An answer to score, and what is known of it. messages is None until its prompt was read."""

    where: str
    id: str
    prompt_id: str
    text: str
    messages: list[Message] | None = None
    steps: list[str] | None = None  # where the row has them apart
    labels: list[int] | None = None
    outcome: bool | None = None


def run(config: ScoreConfig) -> dict[str, Any]:
    """Score a file of answers; writes a row for each, in their order, and returns counts."""
    # 1. The model, and answers with their prompts.
    if config.model is None:
        mend = "give a checkpoint that `tutelage prm` or `tutelage reward` wrote"
        raise UserError("is not given", where="option --model (model)", mend=mend)
    if config.data.startswith("world"):
        mend = "tutelage sample --data world:reasoning --out FILE, then --data FILE"
        raise UserError("the world has no answers by itself", where="option --data (data)", mend=mend)
    out = Path(config.out or "runs/score/scores.jsonl").expanduser()
    check_file(out, config.data)
    by_steps = is_step_model(config.model)
    answers = read_answers(config.data, in_steps=by_steps)
    # 2. A score for each, and for each of its steps.
    rows, left_out, more = _by_steps(config, answers) if by_steps else _whole(config, answers)
    if not rows:
        reasons = ", ".join(f"{count} {why}" for why, count in left_out.items())
        raise UserError(
            f"nothing can be scored: {reasons}", where=config.data, mend="give steps a line each, or raise --max-length"
        )
    write_rows(out, rows)
    return {
        "stage": "score",
        "out": str(out),
        "answers": len(rows),
        "left_out": dict(left_out),
        "mean_score": sum(row["score"] for row in rows) / len(rows),
        **more,
        "first": [{key: value for key, value in row.items() if key != "messages"} for row in rows[:SHOWN]],
    }


def read_answers(spec: str, *, in_steps: bool) -> list[Answer]:
    """Every answer of a file or folder, in order: of samples, labeled steps, demonstrations, thumbs and comparisons.

    in_steps: `prompt` and `completions` without labels are the steps of one solution, as in TRL's stepwise rows; else
    several answers.
    """
    asked: dict[str, list[Message]] = {}
    found: list[Answer] = []
    for path in data_files(spec):
        for number, row in read_rows(path):
            where = f"{path}, row {number}"
            for item in _items(row, where, in_steps):
                if isinstance(item, Prompt):
                    asked[item.id] = item.messages
                elif isinstance(item, str):
                    raise UserError(
                        "is plain text, no answer to a prompt", where=where, mend="give prompt and completion"
                    )
                else:
                    found += _answers(item, where)
    for one in found:
        one.messages = one.messages or asked.get(one.prompt_id)
        if one.messages is None:
            what, mend = f"its prompt {one.prompt_id!r} is not in the data", "put the prompt's row into it"
            raise UserError(what, where=one.where, mend=mend)
    if not found:
        mend = "give rows with prompt and completion, steps as TRL writes them, or what `tutelage sample` wrote"
        raise UserError("holds no answers", where=spec, mend=mend)
    return found


def _items(row: Row, where: str, in_steps: bool) -> list[Record | str]:
    if not (in_steps and is_unranked(row)):
        return items_of(row, where, unranked=True)
    steps = row["completions"] if isinstance(row["completions"], list) else []
    items = stepwise({**row, "labels": [0] * len(steps)}, where)
    return [replace(one, labels=[]) if isinstance(one, StepLabel) else one for one in items]  # nobody labeled them


def _answers(record: Record, where: str) -> list[Answer]:
    match record:
        case Completion():
            return [Answer(where, record.id, record.prompt_id, record.text)]
        case StepLabel():
            text = record.solution or "\n".join(record.steps)
            about = (record.messages, record.steps, record.labels or None, record.outcome)
            return [Answer(where, record.id, record.prompt_id, text, *about)]
        case Demonstration():
            *messages, answer = record.messages
            return [Answer(where, record.id, record.prompt_id, answer["content"], messages)]
        case Thumb():
            return [Answer(where, record.id, record.prompt_id, record.completion, record.messages)]
        case Comparison(completions=list(texts)):
            pairs = zip(record.completion_ids, texts, strict=True)
            return [Answer(where, name, record.prompt_id, text, record.messages) for name, text in pairs]
    raise UserError("holds no text to score", where=where, mend="give the answer's text with its prompt")


def _by_steps(config: ScoreConfig, answers: list[Answer]) -> tuple[list[Row], Counter[str], dict[str, Any]]:
    model = load_step_model(config.model or "", config.dtype, device=config.device)
    if not model.each_step and config.aggregation not in (None, "last"):
        what = f"{config.aggregation!r} cannot be made of an outcome reward model's score, which is one"
        raise UserError(what, where="option --aggregation (aggregation)", mend="leave it out")
    model.aggregation = config.aggregation or model.aggregation
    kept, left_out = [], Counter[str]()
    for one in answers:
        one.steps = one.steps or split_steps(one.text)
        if not one.steps:
            left_out["without a step"] += 1
        elif len(render_steps(model.tokenizer, one.messages or [], one.steps)[0]) > config.max_length:
            left_out["longer than max_length"] += 1
        else:
            kept.append(one)
    scores = score_steps(model, [(one.messages or [], one.steps or []) for one in kept], config.max_length)
    whole = whole_scores(model, scores).tolist() if kept else []
    rows: list[Row] = []
    for one, steps, score in zip(kept, scores, whole, strict=True):
        row: Row = {"id": one.id, "prompt_id": one.prompt_id, "messages": one.messages, "steps": one.steps}
        row |= {"step_scores": steps} if model.each_step else {}
        row |= {"labels": one.labels} if one.labels else {}
        rows.append({**row, "score": score})
    told: dict[str, Any] = {"kind": "process" if model.each_step else "outcome", "aggregation": model.aggregation}
    told["steps"] = sum(map(len, scores))
    judged: list[Judged] = [
        (steps, [label >= 0 for label in one.labels or []], one.outcome)
        for one, steps in zip(kept, scores, strict=True)
        if (one.labels if model.each_step else one.outcome is not None)
    ]
    return rows, left_out, told | ({"card": step_card(judged, model.each_step)} if judged else {})


def _whole(config: ScoreConfig, answers: list[Answer]) -> tuple[list[Row], Counter[str], dict[str, Any]]:
    judge: RewardJudge = reward_judge(config.model or "", config.dtype, config.max_length, device=config.device)
    if config.aggregation is not None:
        what = f"{config.aggregation!r} is for a process reward model, and {config.model} is a reward model"
        raise UserError(what, where="option --aggregation (aggregation)", mend="leave it out")
    kept, left_out = [], Counter[str]()
    for one in answers:
        rendered = render_completion(judge.reward.tokenizer, one.messages or [], one.text)
        if len(rendered.input_ids) > config.max_length:
            left_out["longer than max_length"] += 1
        else:
            kept.append(one)
    prompts = [Prompt(id=one.prompt_id, messages=one.messages or []) for one in kept]
    scores = judge.scorer(prompts, [one.text for one in kept]) if kept else []
    rows = [
        {"id": one.id, "prompt_id": one.prompt_id, "messages": one.messages, "text": one.text, "score": score}
        for one, score in zip(kept, scores, strict=True)
    ]
    return rows, left_out, {"kind": "reward"}
