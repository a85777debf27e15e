"""Preference optimization without a reward model: DPO and its family, one loop for all of them.

A comparison is one batch element with all of its ranked answers: each answer passes through the model once, and
the loss is the mean over the comparison's ordered pairs (with two answers: the papers' loss). The reference's
log-probabilities do not change, so they are computed once before training.

Departures from the papers:
1. Adam in place of RMSprop; warm-up is a share of the steps.
2. An answer too long for max_length loses the prompt's beginning.
3. KTO's baseline uses another prompt's answer, drawn once for each row, and the whole batch's mean.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tutelage.algorithms.kto import kl_baseline
from tutelage.algorithms.schedules import cosine_to_fraction
from tutelage.configs import DPOConfig, KTOConfig, PreferenceConfig, to_mapping
from tutelage.data.batches import batch_order, rank_batches, step_seed, token_budget_batches
from tutelage.data.preferences import has_winner, mismatched, render_answer, without_ties
from tutelage.data.sources import comparisons, data_hash, thumbs
from tutelage.data.templates import Rendered, preflight
from tutelage.engine.device import CPU, resolve_device
from tutelage.engine.distributed import gather, summed
from tutelage.engine.optimizer import MasterAdam
from tutelage.engine.packing import offsets_of
from tutelage.errors import UserError
from tutelage.evaluation.chosen import explain
from tutelage.evaluation.intervals import clustered_interval
from tutelage.models import Policy, load_policy, resolve, save_model
from tutelage.records import Comparison, Thumb
from tutelage.runs.files import read_log
from tutelage.stages.loading import trained_policy
from tutelage.stages.preference_losses import Answers, Sums, means, preference_loss, rewards, sums
from tutelage.stages.reference import answer_logprobs, frozen_logprobs, reference_logprobs
from tutelage.stages.session import Session

SHOWN = ("loss", "rewards/margins", "rewards/accuracies", "eval/rewards/accuracies")


@dataclass
class Example:
    """A comparison with its rendered answers (KTO: one answer, rank 1 for a thumb up and 2 for one down)."""

    prompt_id: str
    answers: list[Rendered]
    ranks: list[int]
    weight: float = 1.0
    right: float = 1.0  # the chance that the order is right: less in a soft label
    mismatched: list[Rendered] = field(default_factory=list)  # KTO: the prompt with another prompt's answer
    references: list[float] = field(default_factory=list)  # log-probabilities under the reference: answers
    mismatched_references: list[float] = field(default_factory=list)


def run(config: PreferenceConfig) -> dict[str, Any]:
    """Train a policy on preferences; returns the run's summary with its checkpoint."""
    # 1. The policy, and comparisons (KTO: thumbs) to learn from and to be tested on.
    source = resolve(config.model)
    reference_source = resolve(config.reference_model) if config.reference_model else None
    if config.data == "world":
        raise UserError(
            "the world has no comparisons by itself",
            where="option --data (data)",
            mend="sample and label first (tutelage sample, tutelage label), or give a file of comparisons",
        )
    policy = trained_policy(config, source)
    train, held_out = _examples(config, policy.tokenizer)
    report = preflight(policy.tokenizer, [r for e in train for r in e.answers], config.max_length)
    print("\n".join(f"{config.verb}: {line}" for line in report.lines()), file=sys.stderr)

    # 2. Log-probabilities under the frozen reference, once.
    total = config.max_steps or max(1, round(config.epochs * len(train) / config.batch_size))
    session = Session(config, config.verb, total)
    if reference_source is not None:
        fresh = policy if reference_source == source else None
        needed = [*held_out, *_met(train, session, config)]
        _add_references(session, config, reference_source, fresh, needed)
    about = {"role": "policy", "stage": config.verb, "parent": str(source)}
    if reference_source is not None:
        about["reference"] = str(reference_source)
    about |= {"data": data_hash(config.data), "template": report.template}

    with session:
        if session.run.resume_model():
            policy = trained_policy(config, session.run.resume_model() or "")
        policy.model.eval()  # no dropout: the reference had none
        session.prepare(policy)
        optimizer = MasterAdam(policy.own_parameters(), state=config.optimizer_state)
        if session.state:
            optimizer.load(session.state["optimizer"])
        measured: dict[str, Any] = session.state.get("measured", {})

        # 3. The mean loss over the batch; the held-out accuracy on a schedule.
        for step in session.steps():
            batch = [train[i] for i in batch_order(len(train), config.batch_size, config.seed, session.position(step))]
            warmup = round(config.warmup * total)
            rate = config.learning_rate * cosine_to_fraction(step - 1, total, warmup, config.final_fraction)
            row = _backward(policy, optimizer, batch, config)
            row |= {"grad_norm": optimizer.step(rate, config.max_grad_norm), "learning_rate": rate}
            row["epoch"] = step * config.batch_size / len(train)
            session.tokens += sum(len(r.input_ids) for e in batch for r in (*e.answers, *e.mismatched))
            if held_out and (step % config.eval_every == 0 or step == total):
                with session.measuring():
                    measured = _measure(policy, held_out, config)
                row |= {f"eval/{name}": value for name, value in measured.items() if name.startswith("rewards/")}
            write = lambda path, verify: save_model(path, policy, about, verify=verify)  # noqa: E731
            session.done(step, row, write, {"optimizer": optimizer.state(), "measured": measured}, SHOWN)
        inputs: dict[str, Path | str | None] = {"model": source, "reference": reference_source, "data": config.data}
        said = explain(read_log(session.run.path / "metrics.jsonl"), {"stage": config.verb, **to_mapping(config)})
        return session.finish(inputs, comparisons=len(train), held_out=measured, chosen_answers=said)


def _examples(config: PreferenceConfig, tokenizer: Any) -> tuple[list[Example], list[Example]]:
    """What to train on, and what is held out: prompts that the training examples do not have."""
    if isinstance(config, KTOConfig):
        rows = thumbs(config.data, "train")[: config.comparisons]
        if len({row.prompt_id for row in rows}) < 2:
            raise UserError("has one prompt only", where=config.data, mend="the baseline needs answers to two or more")
        _tell_sides(rows, config)
        train = _from_thumbs(rows, config, tokenizer)
    else:
        train = _from_comparisons(comparisons(config.data, "train")[: config.comparisons], config, tokenizer)
        if not train:
            raise UserError("holds no answer that is better than another", where=config.data, mend="rank some answers")
    trained = {e.prompt_id for e in train}
    later = [c for split in ("tune", "report") for c in comparisons(config.data, split) if c.prompt_id not in trained]
    held_out = _from_comparisons(later[: config.eval_comparisons], config, tokenizer)
    if isinstance(config, KTOConfig) and not later:
        single = [t for split in ("tune", "report") for t in thumbs(config.data, split) if t.prompt_id not in trained]
        held_out = _from_thumbs(single[: config.eval_comparisons], config, tokenizer)
    return train, held_out


def _met(train: list[Example], session: Session, config: PreferenceConfig) -> list[Example]:
    """The examples that some step will use: a short run does not meet every one."""
    if session.total * config.batch_size >= len(train):
        return train
    places = map(session.position, range(1, session.total + 1))
    steps = (batch_order(len(train), config.batch_size, config.seed, place) for place in places)
    return [train[i] for i in sorted({i for chosen in steps for i in chosen})]


def _from_comparisons(found: list[Comparison], config: PreferenceConfig, tokenizer: Any) -> list[Example]:
    """One example a comparison; those in which nothing is better than another are left out, and counted."""
    whole = isinstance(config, DPOConfig) and config.loss == "plackett-luce"
    examples = []
    for one in filter(has_winner, found):
        answers = [
            render_answer(tokenizer, one.messages or [], text, config.max_length) for text in one.completions or []
        ]
        tied = step_seed(config.seed, "tied", one.id)
        ranks = without_ties(one.ranks, tied) if whole else [rank or 0 for rank in one.ranks]
        examples.append(Example(one.prompt_id, answers, ranks, one.share, one.right))
    if len(examples) < len(found):
        left_out = len(found) - len(examples)
        print(f"{config.verb}: {left_out} comparisons have ties only and are left out", file=sys.stderr)
    return examples


def _from_thumbs(rows: list[Thumb], config: PreferenceConfig, tokenizer: Any) -> list[Example]:
    others = mismatched(rows, config.seed)
    return [
        Example(
            row.prompt_id,
            [render_answer(tokenizer, row.messages, row.completion, config.max_length)],
            [1 if row.label else 2],
            mismatched=[render_answer(tokenizer, row.messages, other, config.max_length)],
        )
        for row, other in zip(rows, others, strict=True)
    ]


def _tell_sides(rows: list[Thumb], config: KTOConfig) -> None:
    """How many thumbs there are of each kind, and what to do where their weights are far apart (the paper: 1 to 4/3)."""
    up, down = sum(row.label for row in rows), sum(not row.label for row in rows)
    said = f"{up} thumbs up and {down} down"
    if not up or not down:
        said += ": of one kind alone there is nothing to tell apart; give answers of the other kind too"
    elif not 0.5 <= (ratio := config.desirable_weight * up / (config.undesirable_weight * down)) <= 2:
        said += f": weight times count is {ratio:.2g} to 1; set --desirable-weight or --undesirable-weight (1 to 4/3)"
    print(f"{config.verb}: {said}", file=sys.stderr)


def _add_references(
    session: Session, config: PreferenceConfig, source: Path, loaded: Policy | None, examples: list[Example]
) -> None:
    flat = [r for e in examples for r in (*e.answers, *e.mismatched)]
    values = iter(
        reference_logprobs(
            session.run.path,
            source,
            lambda: loaded or load_policy(source, config.dtype, device=config.device),
            flat,
            config.dtype if resolve_device(config.device) == CPU else f"{config.dtype} on a GPU",
            config.micro_tokens,
        )
    )
    for example in examples:
        example.references = [next(values) for _ in example.answers]
        example.mismatched_references = [next(values) for _ in example.mismatched]


def _answers(policy: Policy, examples: Sequence[Example], baseline: torch.Tensor) -> tuple[Answers, torch.Tensor]:
    """The answers of some examples under the policy, and the entropy of every token."""
    rendered = [r for e in examples for r in e.answers]
    logprobs_N, tokens_N, entropy_T = answer_logprobs(policy, rendered)
    references = [x for e in examples for x in e.references] or [0.0] * len(rendered)
    answers = Answers(
        logprobs_N,
        torch.tensor(references),
        tokens_N,
        torch.tensor([rank for e in examples for rank in e.ranks]),
        offsets_of(torch.tensor([len(e.answers) for e in examples])),
        baseline,
        torch.tensor([e.right for e in examples]) if any(e.right < 1 for e in examples) else None,
    )
    return answers, entropy_T


def _backward(
    policy: Policy, optimizer: MasterAdam, batch: list[Example], config: PreferenceConfig
) -> dict[str, float]:
    """Gradient of the weighted mean loss over a batch, in micro-batches of whole comparisons."""
    baseline = _baseline(policy, batch, config)
    lengths = [sum(len(r.input_ids) for r in e.answers) for e in batch]
    loss_sum, totals = 0.0, Sums()
    for micro in rank_batches(lengths, config.micro_tokens):
        some = [batch[i] for i in micro]
        answers, entropy_T = _answers(policy, some, baseline)
        weights_P = torch.tensor([e.weight for e in some])
        loss_P = preference_loss(config, answers) * weights_P
        (loss_P.sum() / len(batch)).backward()
        optimizer.collect()
        loss_sum += float(loss_P.detach().sum())
        found = sums(answers, rewards(config, answers), weights_P)
        _add(totals, {**found, "entropy": (float(entropy_T.sum()), len(entropy_T))})
    (loss_sum,), parts, totals = summed(loss_sum), gather(totals), Sums()
    for one in parts:
        _add(totals, one)
    kl = {"kl": float(baseline)} if isinstance(config, KTOConfig) else {}
    return {"loss": loss_sum / len(batch), **means(totals), **kl}


def _baseline(policy: Policy, batch: list[Example], config: PreferenceConfig) -> torch.Tensor:
    """KTO's z_0 over the whole batch; 0 for the other losses, which have none."""
    if not isinstance(config, KTOConfig):
        return torch.zeros(())
    ours = frozen_logprobs(policy, [r for e in batch for r in e.mismatched], config.micro_tokens)
    theirs = [x for e in batch for x in e.mismatched_references]
    return kl_baseline(torch.tensor(ours) - torch.tensor(theirs))


def _add(totals: Sums, more: Sums) -> None:
    for name, (value, count) in more.items():
        before, seen = totals.get(name, (0.0, 0))
        totals[name] = (before + value, seen + count)


@torch.no_grad()
def _measure(policy: Policy, held_out: list[Example], config: PreferenceConfig) -> dict[str, Any]:
    """Share of held-out pairs that the implicit reward orders as the labeler did, with a 95 % interval (clusters:
    prompts). Where there are thumbs only: the share of answers whose implicit reward has the thumb's sign."""
    right: list[float] = []
    cluster: list[str] = []
    weight: list[float] = []
    totals = Sums()
    lengths = [sum(len(r.input_ids) for r in e.answers) for e in held_out]
    for micro in token_budget_batches(lengths, config.micro_tokens):
        some = [held_out[i] for i in micro]
        answers, _ = _answers(policy, some, torch.zeros(()))
        rewards_N = rewards(config, answers)
        if len(answers.better):
            gaps_M, owner = rewards_N[answers.better] - rewards_N[answers.worse], answers.comparison.tolist()
        else:
            gaps_M, owner = torch.where(answers.ranks_N == 1, rewards_N, -rewards_N), list(range(len(some)))
        right += torch.heaviside(gaps_M, torch.tensor(0.5)).tolist()
        cluster += [some[i].prompt_id for i in owner]
        weight += [some[i].weight for i in owner]
        _add(totals, sums(answers, rewards_N, torch.tensor([e.weight for e in some])))
    accuracy, low, high = clustered_interval(right, cluster, weights=weight)
    found: dict[str, Any] = {**means(totals), "rewards/accuracies": accuracy}
    if low == low:  # one prompt alone has no interval
        found |= {"rewards/accuracies_low": low, "rewards/accuracies_high": high}
    return {**found, "pairs": len(right), "prompts": len(set(cluster))}
