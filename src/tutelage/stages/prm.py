"""The process reward model: right or wrong at the end of each step (Lightman et al. 2023; Math-Shepherd, 2023).

A token classifier with two labels, read at the last token of a step; a neutral step counts as right. With
`supervision: outcome` the last step alone is trained on, by whether the solution's final answer is right.

Departures from the papers:
1. The gradient's norm is clipped (max_grad_norm), and the rate falls as a cosine.
2. A card on held-out solutions, and a gate that `ppo` reads.
"""

import sys
from dataclasses import dataclass
from typing import Any

import torch

from tutelage.algorithms.process import step_loss, until_first_error
from tutelage.algorithms.schedules import cosine_to_fraction
from tutelage.configs import PRMConfig
from tutelage.data.batches import batch_order, rank_batches, step_seed
from tutelage.data.sources import data_hash, step_labels
from tutelage.data.steps import render_steps
from tutelage.engine.distributed import summed
from tutelage.engine.memory import run_fitting
from tutelage.engine.optimizer import MasterAdam
from tutelage.engine.packing import pack
from tutelage.errors import UserError
from tutelage.evaluation.step_card import step_card
from tutelage.models import StepModel, load_step_model, resolve, save_model
from tutelage.records import StepLabel
from tutelage.stages.session import Session
from tutelage.stages.step_scores import score_steps


@dataclass
class Example:
    """Token ids of a problem with its solution; where supervised steps end, and the target there."""

    ids: list[int]
    ends: list[int]
    targets: list[float]


def run(config: PRMConfig) -> dict[str, Any]:
    """Train a process reward model; returns the run's summary with its card."""
    # 1. Solutions with labeled steps, to learn from and to be tested on.
    train, held_out = step_labels(config.data, "train")[: config.solutions], _held_out(config)
    if not held_out:
        print(
            "prm: no solution is held out (too few prompts): the card is of solutions it learns from", file=sys.stderr
        )
    source = resolve(config.model)
    torch.manual_seed(step_seed(config.seed, "head"))
    model = load_step_model(source, config.dtype, trained=False, device=config.device)
    model.aggregation, model.each_step = config.aggregation, config.supervision != "outcome"
    examples = [one for label in train if (one := _example(model, label, config)) is not None]
    if not examples:
        what = f"no solution with its problem fits into {config.max_length} tokens"
        raise UserError(what, where="option --max-length (max_length)", mend="raise it")
    if len(examples) < len(train):
        print(f"prm: {len(train) - len(examples)} solutions are too long: left out", file=sys.stderr)

    total = config.max_steps or max(1, round(config.epochs * len(examples) / config.batch_size))
    with Session(config, "prm", total) as session:
        if session.run.resume_model():
            model = load_step_model(session.run.resume_model() or "", config.dtype, device=config.device)
        model.model.train()
        session.prepare(model)
        optimizer = MasterAdam(model.own_parameters(), state=config.optimizer_state)
        if session.state:
            optimizer.load(session.state["optimizer"])
        card: dict[str, Any] = session.state.get("card", {})
        about: dict[str, Any] = {"role": "process", "stage": "prm", "parent": str(source)}
        about |= {"data": data_hash(config.data), "supervision": config.supervision}

        # 2. -log p of right or wrong at the end of each supervised step, averaged over the batch's steps.
        for step in session.steps():
            chosen = batch_order(len(examples), config.batch_size, config.seed, session.position(step))
            batch = [examples[i] for i in chosen]
            rate = config.learning_rate * cosine_to_fraction(step - 1, total, final_fraction=config.final_fraction)
            row = _backward(model, optimizer, batch, config)
            row |= {"grad_norm": optimizer.step(rate, config.max_grad_norm), "learning_rate": rate}
            session.tokens += sum(len(one.ids) for one in batch)
            # 3. The card and the gate, before the last save.
            if step == total:
                with session.measuring():
                    card = step_card([_judged(model, one, config) for one in held_out or train[:64]], model.each_step)
                row["eval/step_accuracy"] = card["step_accuracy"]
            about["card"] = card
            session.done(
                step,
                row,
                lambda path, verify: save_model(path, model, about, verify=verify),
                {"optimizer": optimizer.state(), "card": card},
                ("loss", "step_accuracy", "eval/step_accuracy"),
            )
        print(f"prm: held-out steps right {card.get('step_accuracy', 0):.3f}, gate {card.get('gate')}", file=sys.stderr)
        return session.finish({"model": source, "data": config.data}, card=card, solutions=len(examples))


def _held_out(config: PRMConfig) -> list[StepLabel]:
    trained = {one.prompt_id for one in step_labels(config.data, "train")}
    found = step_labels(config.data, "tune") + step_labels(config.data, "report")
    return [one for one in found if one.prompt_id not in trained]


def targets_of(label: StepLabel, config: PRMConfig) -> list[tuple[int, float]]:
    """(step, target) of each step that is supervised."""
    if config.supervision == "outcome":
        if label.outcome is None:
            raise UserError(
                "does not say whether its answer is right",
                where=f"{config.data}, step label {label.id}, field outcome",
                mend="give outcome true or false (tutelage step-label does), or train on steps",
            )
        return [(len(label.steps) - 1, float(label.outcome))]
    values = [float(one >= 0) for one in label.labels]  # neutral counts as right
    if config.labels == "soft":
        if label.values is None:
            raise UserError(
                "has no soft labels",
                where=f"{config.data}, step label {label.id}, field values",
                mend="give the share of right completions for each step (tutelage step-label does), or --labels hard",
            )
        values = label.values
    kept = [True] * len(values)
    if config.supervision == "first-error":
        right = torch.tensor([one >= 0 for one in label.labels])
        kept = until_first_error(right, torch.tensor([0, len(right)])).tolist()
    return [(place, value) for place, value in enumerate(values) if kept[place]]


def _example(model: StepModel, label: StepLabel, config: PRMConfig) -> Example | None:
    ids, ends = render_steps(model.tokenizer, label.messages or [], label.steps)
    chosen = targets_of(label, config)
    if len(ids) > config.max_length:
        return None
    return Example(ids, [ends[place] for place, _ in chosen], [value for _, value in chosen])


def _backward(model: StepModel, optimizer: MasterAdam, batch: list[Example], config: PRMConfig) -> dict[str, float]:
    """Gradient of the mean loss over the batch's supervised steps."""
    count = sum(len(one.ends) for one in batch)
    loss_sum, right = 0.0, 0

    def work(micro: list[int]) -> None:
        nonlocal loss_sum, right
        packed = pack([batch[i].ids for i in micro], share=True)
        starts = packed.offsets[:-1].tolist()
        ends = torch.tensor([start + e for start, i in zip(starts, micro, strict=True) for e in batch[i].ends])
        targets = torch.tensor([t for i in micro for t in batch[i].targets])
        logits = model.logits(packed, ends)
        loss_S = step_loss(logits, targets)
        (loss_S.sum() / count).backward()
        optimizer.collect()
        loss_sum += float(loss_S.detach().sum())
        right += int(((logits.detach() > 0) == (targets > 0.5)).sum())

    lengths = [len(one.ids) for one in batch]
    run_fitting(rank_batches(lengths, config.micro_tokens), lengths, work, optimizer.drop)
    loss_sum, all_right = summed(loss_sum, right)
    return {"loss": loss_sum / count, "step_accuracy": all_right / count}


def _judged(model: StepModel, label: StepLabel, config: PRMConfig) -> tuple[list[float], list[bool], bool | None]:
    """Scores of a held-out solution's steps, whether each is right, and whether its answer is."""
    scores = score_steps(model, [(label.messages or [], label.steps)], config.max_length)[0]
    return scores, [one >= 0 for one in label.labels], label.outcome
