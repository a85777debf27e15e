"""The reward model on rankings (Ouyang et al. 2022, section 3.5 and appendix C.2).

All completions of a prompt are one batch element; the loss divides by C(K, 2) as printed, though ties are
dropped. After training a bias makes the mean reward of demonstrations 0.

Departures from the paper:
1. A report card on held-out comparisons, and a gate that `ppo` reads.
2. The gradient's norm is clipped (max_grad_norm).
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.algorithms.ai_feedback import soft_pairwise_loss
from tutelage.algorithms.ranking import davidson_loss, pairwise_ranking_loss, rao_kupper_loss
from tutelage.algorithms.schedules import cosine_to_fraction
from tutelage.configs import RewardConfig
from tutelage.data.batches import batch_order, rank_batches, step_seed
from tutelage.data.preferences import has_winner
from tutelage.data.sources import comparisons, data_hash, load_data
from tutelage.data.templates import Rendered, preflight, render, render_completions
from tutelage.engine.distributed import joined, summed
from tutelage.engine.memory import run_fitting
from tutelage.engine.optimizer import MasterAdam
from tutelage.engine.packing import offsets_of, pack
from tutelage.engine.sharding import whole
from tutelage.errors import UserError
from tutelage.evaluation.reward_card import Ranking, report_card
from tutelage.models import ScalarModel, load_scalar, resolve, save_model
from tutelage.records import Comparison
from tutelage.stages.loading import lora_options
from tutelage.stages.session import Session

LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "drop": pairwise_ranking_loss,
    "davidson": davidson_loss,
    "rao-kupper": rao_kupper_loss,
}


def run(config: RewardConfig) -> dict[str, Any]:
    """Train a reward model; returns the run's summary with its report card."""
    # 1. Rankings to learn from and to be tested on.
    train, held_out = _rankings(config)
    if not held_out:
        print(
            "reward: no comparison is held out (too few prompts): the card is of some it learns from", file=sys.stderr
        )
    source = resolve(config.model)
    torch.manual_seed(step_seed(config.seed, "head"))
    model = load_scalar(source, config.dtype, trained=False, lora=lora_options(config), device=config.device)
    examples = [_render(model, c, config.max_length) for c in train]
    if all(len(r.input_ids) == config.max_length for example in examples for r in example):
        what = f"no prompt with its answer fits into {config.max_length} tokens"
        raise UserError(what, where="option --max-length (max_length)", mend="raise it")
    flat = [r for example in examples for r in example]
    report = preflight(model.tokenizer, flat, config.max_length, [c.messages or [] for c in train for _ in c.ranks])
    print("\n".join(f"reward: {line}" for line in report.lines()), file=sys.stderr)

    total = config.max_steps or max(1, round(config.epochs * len(train) / config.batch_size))
    with Session(config, "reward", total) as session:
        if session.run.resume_model():
            model = load_scalar(
                session.run.resume_model() or "", config.dtype, lora=lora_options(config), device=config.device
            )
            model.bias = 0.0
        model.model.train()
        session.prepare(model)
        optimizer = MasterAdam(model.own_parameters(), state=config.optimizer_state)
        if session.state:
            optimizer.load(session.state["optimizer"])
        card: dict[str, Any] = session.state.get("card", {})
        about: dict[str, Any] = {"role": "reward", "stage": "reward", "parent": str(source)}
        about |= {"data": data_hash(config.data), "template": report.template}

        # 2. -1/C(K,2) sum log sigma(r_w - r_l), all pairs of a prompt in one batch element.
        for step in session.steps():
            chosen = batch_order(len(train), config.batch_size, config.seed, session.position(step))
            rate = config.learning_rate * cosine_to_fraction(step - 1, total, final_fraction=config.final_fraction)
            row = _backward(model, optimizer, [examples[i] for i in chosen], [train[i] for i in chosen], config)
            row |= {"grad_norm": optimizer.step(rate, config.max_grad_norm), "learning_rate": rate}
            session.tokens += sum(len(r.input_ids) for i in chosen for r in examples[i])
            # 3. The bias, the report card and the gate, before the last save.
            if step == total:
                with session.measuring():
                    model.bias = _demonstration_mean(model, config)
                    card = report_card(_score(model, held_out or train[:64], config))
                row |= {"eval/accuracy": card["accuracy"]}
            elif held_out and step % config.eval_every == 0:
                with session.measuring():
                    row["eval/accuracy"] = report_card(_score(model, held_out, config))["accuracy"]
                model.model.train()
            about["card"] = card
            session.done(
                step,
                row,
                lambda path, verify: save_model(path, model, about, verify=verify),
                {"optimizer": optimizer.state(), "card": card},
                ("loss", "accuracy", "eval/accuracy"),
            )
        print(
            f"reward: held-out accuracy {card.get('accuracy', float('nan')):.3f}, gate {card.get('gate')}",
            file=sys.stderr,
        )
        return session.finish({"model": source, "data": config.data}, reward_model=card, comparisons=len(train))


def _rankings(config: RewardConfig) -> tuple[list[Comparison], list[Comparison]]:
    if config.data == "world":
        raise UserError(
            "the world has no comparisons by itself",
            where="option --data (data)",
            mend="sample and label first (tutelage sample, tutelage label), or give a file of comparisons",
        )
    train = comparisons(config.data, "train")[: config.comparisons]
    for comparison in train:
        if comparison.weight is not None and not 0 <= comparison.weight < float("inf"):
            where = f"{config.data}, comparison {comparison.id}, field weight"
            raise UserError(f"{comparison.weight} cannot be used", where=where, mend="give zero or a number above it")
    if config.ties == "drop" and all(c.probability is None and not has_winner(c) for c in train):
        mend = "rank one answer above another, or learn from ties with --ties davidson"
        raise UserError("every comparison is a tie, and ties are dropped", where=config.data, mend=mend)
    held_out = comparisons(config.data, "tune") + comparisons(config.data, "report")
    trained = {c.prompt_id for c in train}
    return train, [c for c in held_out if c.prompt_id not in trained]


def _render(model: ScalarModel, comparison: Comparison, max_length: int) -> list[Rendered]:
    """Each completion with the prompt; a long one loses its beginning, never its end, where the score is read."""
    rendered = render_completions(model.tokenizer, comparison.messages or [], comparison.completions or [])
    return [Rendered(r.input_ids[-max_length:], r.loss_mask[-max_length:]) for r in rendered]


def _backward(
    model: ScalarModel,
    optimizer: MasterAdam,
    examples: list[list[Rendered]],
    batch: list[Comparison],
    config: RewardConfig,
) -> dict[str, float]:
    """Gradient of the weighted mean loss over the prompts of a batch, in micro-batches of whole prompts."""
    lengths = [sum(len(r.input_ids) for r in example) for example in examples]
    loss_sum, right, pairs = 0.0, 0.0, 0.0
    everything: list[float] = []

    def work(micro: list[int]) -> None:
        nonlocal loss_sum, right, pairs, everything
        scores = model.scores(pack([r.input_ids for i in micro for r in examples[i]], share=True))
        ranks = torch.tensor([rank or 0 for i in micro for rank in batch[i].ranks])
        offsets = offsets_of(torch.tensor([len(batch[i].ranks) for i in micro]))
        weights = torch.tensor([batch[i].share for i in micro])
        loss_P = LOSSES[config.ties](scores, ranks, offsets)
        loss_P = _with_soft_labels(loss_P, scores, offsets, [batch[i].probability for i in micro]) * weights
        (loss_P.sum() / len(batch)).backward()
        optimizer.collect()
        loss_sum += float(loss_P.detach().sum())
        detached = scores.detach()
        better = (ranks[:, None] > 0) & (ranks[None, :] > 0) & (ranks[:, None] < ranks[None, :])
        number = torch.arange(len(micro)).repeat_interleave(offsets.diff())
        better &= number[:, None] == number[None, :]
        share = better * weights[number][:, None]
        right += float(((detached[:, None] > detached[None, :]) * share).sum())
        pairs += float(share.sum())
        everything += detached.tolist()

    run_fitting(rank_batches(lengths, config.micro_tokens), lengths, work, optimizer.drop)
    loss_sum, right, pairs = summed(loss_sum, right, pairs)
    everything = joined(everything)
    return {
        "loss": loss_sum / len(batch),
        "accuracy": right / pairs if pairs else 0.0,
        "min_reward": min(everything),
        "mean_reward": sum(everything) / len(everything),
        "max_reward": max(everything),
    }


def _with_soft_labels(loss_P: Tensor, scores: Tensor, offsets: Tensor, known: list[float | None]) -> Tensor:
    """The loss, in its place -(p log s(d) + (1-p) log s(-d)) for each pair that has a probability."""
    soft = torch.tensor([p is not None for p in known])
    if not soft.any():
        return loss_P
    first = offsets[:-1]
    second = torch.minimum(first + 1, offsets[1:] - 1)  # a soft label is for two answers; the others keep their loss
    probability = torch.tensor([0.5 if p is None else p for p in known])
    return torch.where(soft, soft_pairwise_loss(scores[first] - scores[second], probability), loss_P)


@torch.no_grad()
def score_groups(
    model: ScalarModel, groups: Sequence[Sequence[Rendered]], micro_tokens: int = 16384
) -> list[list[float]]:
    """Reward of each conversation of each group, in order; what a group has in common is computed once."""
    model.model.eval()
    scores = [[0.0] * len(group) for group in groups]
    with whole(model.model):
        for micro in rank_batches([sum(len(r.input_ids) for r in group) for group in groups], micro_tokens):
            packed = pack([r.input_ids for i in micro for r in groups[i]], share=True)
            found = iter(model.scores(packed).tolist())
            for i in micro:
                scores[i] = [next(found) for _ in groups[i]]
    flat = iter(summed(*(score for group in scores for score in group)))
    return [[next(flat) for _ in group] for group in groups]


def _score(model: ScalarModel, held_out: list[Comparison], config: RewardConfig) -> list[Ranking]:
    scores = score_groups(model, [_render(model, c, config.max_length) for c in held_out])
    return [
        Ranking(c.prompt_id, c.ranks, found, [len(t) for t in c.completions or []], c.category, c.share)
        for c, found in zip(held_out, scores, strict=True)
    ]


def _demonstration_mean(model: ScalarModel, config: RewardConfig) -> float:
    """Mean reward of demonstrations (or of the best completions), to be the new zero."""
    data = load_data(config.data)
    rendered = [render(model.tokenizer, d.messages) for d in data.demonstrations[:256]]
    cut = [Rendered(r.input_ids[-config.max_length :], r.loss_mask[-config.max_length :]) for r in rendered]
    scores = [score for [score] in score_groups(model, [[r] for r in cut])]
    return sum(scores) / len(scores)
