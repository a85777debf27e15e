"""What a model can do, before and after: capability tasks of the world or of files, and how it is calibrated."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.configs import EvalConfig
from tutelage.data.task_files import read_questions
from tutelage.data.templates import Rendered, end_token_id, render_completions
from tutelage.engine.packing import context_of
from tutelage.engine.sampling import SamplingParams, row_seed, sample
from tutelage.errors import UserError, did_you_mean
from tutelage.evaluation.behaviors import rate
from tutelage.evaluation.capability import Choice, answers, as_outcomes, calibration, choice_rates, choose
from tutelage.evaluation.world_tasks import CATEGORIES, world_questions
from tutelage.models import Policy
from tutelage.records import Question
from tutelage.stages.reference import frozen_logprobs
from tutelage.stages.sample import text_of

QUESTIONS = 100  # of the world, a task
FILES = (".jsonl", ".jsonl.gz", ".ndjson", ".json", ".parquet")
CALIBRATED, CHAT = "facts", "facts, in chat"  # the world's confidence is measured on these, as a user asks them
MICRO_TOKENS = 16384
PREFIX = "task:"  # of a task's name among the behaviors

Tasks = Mapping[str, list[Question]]


@dataclass
class Measured:
    """rates: as of the other behaviors. outcomes: by question, for paired tests. calibration: by task."""

    rates: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, float]] = field(default_factory=dict)
    calibration: dict[str, dict[str, Any]] = field(default_factory=dict)


def own_tasks(config: EvalConfig) -> dict[str, list[Question]]:
    """The tasks of `--tasks` that we measure ourselves (the world's, files of questions); the world's where none is given."""
    found: dict[str, list[Question]] = {}
    for spec in config.tasks or (("world",) if config.data == "world" and not config.judge else ()):
        if spec == "none" or is_harness(spec):
            continue
        if spec.endswith(FILES):
            path = Path(spec).expanduser()
            if not path.is_file():
                raise UserError(
                    "there is no such file", where=f"option --tasks {spec}", mend="give a file of questions"
                )
            found[path.name.split(".")[0]] = read_questions(path)
            continue
        _, _, name = spec.partition(":")
        if name and name not in CATEGORIES:
            near = did_you_mean(name, list(CATEGORIES))
            mend = f"use world, or world: and one of {', '.join(CATEGORIES)}"
            raise UserError(f"the world has no task {name!r}{near}", where="option --tasks (tasks)", mend=mend)
        for one in [name] if name else CATEGORIES:
            found[one] = world_questions(one, config.split, QUESTIONS)
        if not name or name == CALIBRATED:
            found[CHAT] = world_questions(CALIBRATED, config.split, QUESTIONS, chat=True)
    return found


def is_harness(spec: str) -> bool:
    """Whether a task is one of EleutherAI's lm-eval: a YAML file, or a name of its own."""
    return spec != "none" and spec.partition(":")[0] != "world" and not spec.endswith(FILES)


def measure_tasks(policy: Policy, tasks: Tasks, config: EvalConfig) -> Measured:
    """Every question of every task. What outgrows the model's context is left out, and said."""
    found = Measured()
    for name, questions in tasks.items():
        chosen = _chosen(policy, [q for q in questions if q.options])
        written = _written(policy, [q for q in questions if not q.options], config)
        if short := len(questions) - len(chosen) - len(written):
            print(f"eval: task {name}: {short} of {len(questions)} questions do not fit the model", file=sys.stderr)
        if chosen and name not in CATEGORIES:
            _calibrate(found, CALIBRATED if name == CHAT else name, chosen)
        if name == CHAT:
            continue
        right = {q.id: float(one.right) for q, one in chosen} | {q.id: float(ok) for q, ok in written}
        if right:
            found.outcomes[PREFIX + name] = right
            found.rates[PREFIX + name] = (
                choice_rates([c for _, c in chosen]) if not written else rate([*right.values()])
            )
    return found


def _calibrate(found: Measured, name: str, chosen: Sequence[tuple[Question, Choice]]) -> None:
    """Confidence against being right."""
    choices = [one for _, one in chosen]
    table = calibration([one.confidence for one in choices], [float(one.right) for one in choices])
    found.calibration[name] = table
    found.rates[f"calibration_error:{name}"] = {key: table[key] for key in ("value", "ci95", "prompts")}
    found.outcomes |= as_outcomes({f"brier:{name}": [one.brier for one in choices]}, [q for q, _ in chosen])


def _chosen(policy: Policy, questions: Sequence[Question]) -> list[tuple[Question, Choice]]:
    room = context_of(policy.model)
    made = [(question, _options(policy, question)) for question in questions]
    rendered = [(q, rows) for q, rows in made if max(len(row.input_ids) for row in rows) <= room]
    values = frozen_logprobs(policy, [row for _, rows in rendered for row in rows], MICRO_TOKENS)
    found, start = [], 0
    for question, rows in rendered:
        found.append((question, choose(question, values[start : start + len(rows)])))
        start += len(rows)
    return found


def _options(policy: Policy, question: Question) -> list[Rendered]:
    """The text with each option, the mask on the option. As lm-eval does, a text and an option are tokenized together."""
    tokenizer = policy.tokenizer
    if question.chat:
        return render_completions(tokenizer, [{"role": "user", "content": question.text}], question.options)
    before = len(tokenizer(question.text, add_special_tokens=False)["input_ids"])
    rows = []
    for option in question.options:
        ids = tokenizer(question.text + option, add_special_tokens=False)["input_ids"]
        rows.append(Rendered(ids, [place >= before for place in range(len(ids))]))
    return rows


def _written(policy: Policy, questions: Sequence[Question], config: EvalConfig) -> list[tuple[Question, bool]]:
    """Greedy answers up to the end of a line."""
    tokenizer = policy.tokenizer
    ids = [tokenizer(q.text, add_special_tokens=False)["input_ids"] for q in questions]
    room = context_of(policy.model)
    fits = [i for i, one in enumerate(ids) if len(one) + config.max_new_tokens <= room]
    if not fits:
        return []
    params = SamplingParams(config.max_new_tokens, 0, 0.0, stop=("\n",))
    seeds = [[row_seed(config.seed, questions[i].id, 0)] for i in fits]
    ends = [end_token_id(tokenizer)]
    drawn = sample(policy.model, [ids[i] for i in fits], seeds, params, ends, decode=policy.decode)
    return [(questions[i], answers(questions[i], text_of(policy, one))) for i, (one,) in zip(fits, drawn, strict=True)]
