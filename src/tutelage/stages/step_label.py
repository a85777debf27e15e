"""Labels for the steps of sampled solutions, without people.

`completions` (Math-Shepherd, Wang et al. 2023, section 3.3): from the beginning of a solution up to each step a model
completes it several times; the share that comes to the right answer is the soft label, and any that does makes the hard
one. Such a label is the value of the steps so far under that model, not their correctness.
`world`: the embedded world's own check of every step, the truth for problems of `world:reasoning`.
"""

import sys
from pathlib import Path
from typing import Any

from tutelage.algorithms.process import first_error
from tutelage.configs import StepLabelConfig
from tutelage.data.formats import check_file, write_jsonl
from tutelage.data.templates import end_token_id, render_prompt
from tutelage.engine.sampling import SamplingParams, row_seed, sample
from tutelage.errors import UserError
from tutelage.judges.cache import key_of
from tutelage.models import Policy, load_policy, resolve
from tutelage.records import Completion, Prompt, StepLabel
from tutelage.runs import Progress
from tutelage.runs.files import append_rows, whole_rows
from tutelage.runs.lineage import folder_hash
from tutelage.solutions import final_answer, solves, split_steps
from tutelage.stages.label import read_completions
from tutelage.stages.sample import text_of

CHUNK = 64  # solutions whose labels are written together


def run(config: StepLabelConfig) -> dict[str, Any]:
    """Label a file of prompts and solutions (`tutelage sample` writes one); returns counts."""
    # 1. Solutions that come to an answer, of problems whose answer is known.
    out = Path(config.out or "runs/step-label/steps.jsonl").expanduser()
    check_file(out, config.data)
    if config.data.startswith("world"):
        mend = "tutelage sample --data world:reasoning --samples 4 --out FILE, then --data FILE"
        raise UserError("the world has no completions by itself", where="option --data (data)", mend=mend)
    asked, groups = read_completions(Path(config.data), least=1)
    unknown = [name for name in groups if asked[name].answer is None]
    if unknown:
        what, mend = f"prompt {unknown[0]} has no answer to check against", "give each prompt its field answer"
        raise UserError(what, where=config.data, mend=mend)
    solutions = [(asked[name], one) for name, group in groups.items() for one in group]
    whole = [(p, one) for p, one in solutions if final_answer(one.text) is not None and one.finish == "stop"]
    if not whole:
        raise UserError("no solution comes to an answer", where=config.data, mend="end solutions with `Answer: 12.`")
    if len(whole) < len(solutions):
        print(f"step-label: {len(solutions) - len(whole)} solutions come to no answer: left out", file=sys.stderr)

    # 2. A label for each step.
    if config.by == "world":
        records = _by_the_world(whole, config)
    else:
        records = _by_completions(
            out.with_name("completed.jsonl"),
            load_policy(config.model, config.dtype, device=config.device),
            whole,
            config,
        )
    write_jsonl(out, [*{p.id: p for p, _ in whole}.values(), *records])
    steps = sum(len(one.steps) for one in records)
    return {
        "stage": "step-label",
        "out": str(out),
        "solutions": len(records),
        "left_out": len(solutions) - len(whole),
        "steps": steps,
        "right_steps": sum(label > 0 for one in records for label in one.labels) / steps,
        "right_answers": sum(bool(one.outcome) for one in records) / len(records),
        **_against_the_truth(whole, records),
    }


def _record(prompt: Prompt, one: Completion, labels: list[int], labeler: str, values: list[float] | None) -> StepLabel:
    return StepLabel(
        id=f"s-{one.id}",
        prompt_id=prompt.id,
        steps=split_steps(one.text),
        labels=labels,
        labeler=labeler,
        values=values,
        outcome=solves(one.text, prompt.answer),
        messages=prompt.messages,
        solution=one.text,
    )


def _by_the_world(whole: list[tuple[Prompt, Completion]], config: StepLabelConfig) -> list[StepLabel]:
    from tutelage.world.reasoning import is_reasoning, step_labels

    if not all(is_reasoning(prompt) for prompt, _ in whole):
        what, mend = "holds other prompts than the world's problems", "use --by completions, or data of world:reasoning"
        raise UserError(what, where=config.data, mend=mend)
    return [_record(p, one, step_labels(p, one.text), "world", None) for p, one in whole]


def _by_completions(
    path: Path, policy: Policy, whole: list[tuple[Prompt, Completion]], config: StepLabelConfig
) -> list[StepLabel]:
    """The labels of all solutions; those that an earlier sitting wrote are not made again.

    A solution is known by its words: samples of another seed or model have the same ids.
    """
    how = [folder_hash(resolve(config.model)), config.completions, config.temperature, config.seed]
    how += [config.max_new_tokens, config.max_length]
    keys = {one.id: key_of(how, p.messages, p.answer, one.id, one.text) for p, one in whole}
    written = {row.get("key"): row["values"] for row in whole_rows(path)}
    known = {name: written[key] for name, key in keys.items() if key in written}
    missing = [(p, one) for p, one in whole if one.id not in known]
    with Progress(len(whole), "step-label", done=len(whole) - len(missing), unit="solution") as bar:
        for start in range(0, len(missing), CHUNK):
            some = missing[start : start + CHUNK]
            values = _completed(policy, some, config)
            append_rows(
                path,
                [{"id": one.id, "key": keys[one.id], "values": v} for (_, one), v in zip(some, values, strict=True)],
            )
            known |= {one.id: v for (_, one), v in zip(some, values, strict=True)}
            bar.update(len(whole) - len(missing) + start + len(some))
    return [
        _record(p, one, [1 if v > 0 else -1 for v in known[one.id]], "completions", known[one.id]) for p, one in whole
    ]


def _completed(policy: Policy, some: list[tuple[Prompt, Completion]], config: StepLabelConfig) -> list[list[float]]:
    """For each solution the share of completions from each step that come to the right answer; the last step's is 0 or 1."""
    begun, owners = [], []
    for number, (prompt, one) in enumerate(some):
        ids, steps = render_prompt(policy.tokenizer, prompt.messages), split_steps(one.text)
        for place in range(len(steps) - 1):
            ids = ids + policy.tokenizer(f"{steps[place]}\n", add_special_tokens=False)["input_ids"]
            begun.append(ids[: config.max_length - 1])
            owners.append((number, place))
    seeds = [
        [row_seed(config.seed, f"{some[i][1].id} {place}", n) for n in range(config.completions)] for i, place in owners
    ]
    params = SamplingParams(config.max_new_tokens, 0, config.temperature)
    drawn = sample(policy.model, begun, seeds, params, [end_token_id(policy.tokenizer)]) if begun else []
    values = [[0.0] * len(split_steps(one.text)) for _, one in some]
    for (number, place), row in zip(owners, drawn, strict=True):
        whole = [text_of(policy, s) for s in row if s.finish == "stop"]
        values[number][place] = sum(solves(text, some[number][0].answer) for text in whole) / len(row)
    for number, (prompt, one) in enumerate(some):
        values[number][-1] = float(solves(one.text, prompt.answer))
    return values


def _against_the_truth(whole: list[tuple[Prompt, Completion]], records: list[StepLabel]) -> dict[str, Any]:
    """Of problems of the world: how often a label is right, over steps up to the first error, and over first errors."""
    from tutelage.world.reasoning import is_reasoning, step_labels

    steps, errors = [], []
    for (prompt, one), record in zip(whole, records, strict=True):
        if is_reasoning(prompt):
            truth = [label > 0 for label in step_labels(prompt, one.text)]
            said = [label > 0 for label in record.labels]
            error = first_error(truth)
            kept = len(truth) if error is None else error + 1
            steps += [a == b for a, b in zip(truth[:kept], said[:kept], strict=True)]
            errors.append(first_error(said) == error)
    if not steps:
        return {}
    return {"labels_right": sum(steps) / len(steps), "first_errors_right": sum(errors) / len(errors)}
