"""What the updates of a stage will compute: its own data, tokenized and batched as the stage does it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.configs import (
    GroupConfig,
    KTOConfig,
    PPOConfig,
    PreferenceConfig,
    PretrainConfig,
    RejectionConfig,
    RewardConfig,
    SampleConfig,
    SFTConfig,
    TrainingConfig,
)
from tutelage.data.batches import batch_order, token_budget_batches
from tutelage.data.preferences import has_winner, render_answer
from tutelage.data.sources import ON_POLICY_PROMPTS, comparisons, demonstrations, prompts, thumbs
from tutelage.data.templates import Rendered, render, render_prompts
from tutelage.engine.packing import pack
from tutelage.planning.memory import Work

STEPS_LOOKED_AT = 100  # batches that are made to find the largest
UNKNOWN_ANSWERS = 4  # answers to a prompt, where the comparisons are not there yet
Group = list[Rendered]  # the sequences of one batch element


@dataclass(frozen=True)
class Load:
    """work: the largest update. step_tokens: computed in a mean step. steps: of the stage. data_tokens: held in lists."""

    work: Work
    step_tokens: float
    steps: int
    data_tokens: int = 0
    sampled_tokens: int = 0
    guessed: bool = False


def load_of(config: TrainingConfig | SampleConfig, tokenizer: Any) -> Load:
    """The load of a stage; where its data does not exist yet, the most that its options allow."""
    if isinstance(config, SampleConfig | PPOConfig | GroupConfig | RejectionConfig):
        return _sampled(config, tokenizer)
    groups = None if isinstance(config, PretrainConfig) or not there(config.data) else _groups(config, tokenizer)
    return _guess(config) if groups is None else _supervised(config, groups)


def there(data: str) -> bool:
    return data == "world" or Path(data).expanduser().exists()


def _groups(config: TrainingConfig, tokenizer: Any) -> list[Group] | None:
    longest = config.max_length
    if isinstance(config, SFTConfig):
        found = demonstrations(config.data, config.demonstrations, config.seed)
        whole = [render(tokenizer, d.messages) for d in found]
        cut = [Rendered(r.input_ids[:longest], r.loss_mask[:longest]) for r in whole]
        kept = [r for r in cut if any(r.loss_mask)]
        return [[r] for r in kept[len(kept) // 20 :]]
    if config.data == "world":
        return None
    if isinstance(config, KTOConfig):
        single = thumbs(config.data, "train")[: config.comparisons]
        return [[render_answer(tokenizer, t.messages, t.completion, longest)] for t in single]
    assert isinstance(config, RewardConfig | PreferenceConfig)
    ranked = comparisons(config.data, "train")[: config.comparisons]
    if isinstance(config, PreferenceConfig):
        ranked = [c for c in ranked if has_winner(c)]
    return [[render_answer(tokenizer, c.messages or [], text, longest) for text in c.completions or []] for c in ranked]


def _supervised(config: TrainingConfig, groups: Sequence[Group]) -> Load:
    """The largest micro-batch of the first steps, in the order that the stage takes them."""
    epochs = getattr(config, "epochs", 1.0)
    steps = config.max_steps or max(1, round(epochs * len(groups) / config.batch_size))
    scalar = isinstance(config, RewardConfig)
    largest, micros, total = Work(0, 0, 1), 1, 0
    looked_at = min(steps, STEPS_LOOKED_AT)
    for step in range(looked_at):
        batch = [groups[i] for i in batch_order(len(groups), config.batch_size, config.seed, step)]
        cut = token_budget_batches([sum(len(r.input_ids) for r in g) for g in batch], config.micro_tokens)
        micros = max(micros, len(cut))
        for micro in cut:
            sequences = [r.input_ids for i in micro for r in batch[i]]
            shared = pack(sequences, share=True).shared
            tokens = sum(map(len, sequences)) if shared is None else len(shared.kept)
            targets = 0 if scalar else sum(sum(r.loss_mask[1:]) for i in micro for r in batch[i])
            total += tokens
            if tokens > largest.tokens:
                largest = Work(tokens, targets, 1)
    data = sum(len(r.input_ids) for g in groups for r in g)
    return Load(Work(largest.tokens, largest.targets, micros), total / looked_at, steps, data)


def _guess(config: TrainingConfig) -> Load:
    """Every sequence as long as it may be."""
    answers = 1 if isinstance(config, PretrainConfig | SFTConfig) else UNKNOWN_ANSWERS
    step = config.batch_size * answers * config.max_length
    steps = config.max_steps or 0
    if isinstance(config, PretrainConfig):
        steps = steps or max(1, config.tokens // step)
    tokens = min(step, max(config.micro_tokens, answers * config.max_length))
    targets = 0 if isinstance(config, RewardConfig) else tokens
    return Load(Work(tokens, targets, -(-step // tokens)), step, steps, guessed=True)


def _sampled(config: SampleConfig | PPOConfig | GroupConfig | RejectionConfig, tokenizer: Any) -> Load:
    """Prompts as they are, answers as long as they may be."""
    known = there(config.data)
    count = config.prompts if isinstance(config, SampleConfig | RejectionConfig) else ON_POLICY_PROMPTS
    split = config.split if isinstance(config, SampleConfig) else "train"
    asked = prompts(config.data, split, count, config.seed) if known else []
    lengths = sorted(map(len, render_prompts(tokenizer, [p.messages for p in asked])))
    lengths = [n for n in lengths if n < config.max_length] or [config.max_length]
    mean, new = sum(lengths) / len(lengths), config.max_new_tokens
    context = min(lengths[-1], config.max_length) + new
    answers = 1
    if isinstance(config, SampleConfig | RejectionConfig):
        answers = config.samples
    if isinstance(config, SampleConfig):
        rows = min(config.batch_size, len(lengths) * answers)
        sampled = len(lengths) * answers * new
        return Load(Work(int(mean * rows), 0, 1, rows, context), 0, 1, 0, sampled, not known)
    if isinstance(config, RejectionConfig):
        step = config.batch_size * (mean + new)
        tokens = min(int(step), config.micro_tokens)
        steps = config.max_steps or max(1, round(config.epochs * len(lengths) / config.batch_size))
        sampled = len(lengths) * answers * new
        work = Work(tokens, int(tokens * new / (mean + new)), -(-int(step) // tokens), min(256, 64 * answers), context)
        return Load(work, step, steps, 0, sampled, not known)
    return _on_policy(config, lengths, context, known)


def _on_policy(config: PPOConfig | GroupConfig, lengths: list[int], context: int, known: bool) -> Load:
    mean, new = sum(lengths) / len(lengths), config.max_new_tokens
    shared = config.group_size  # answers that share their prompt
    together = min(config.minibatch_size or config.batch_size, config.batch_size)
    # The longest prompts of a thousand minibatches meet in one of them: a high share of the lengths.
    long = lengths[min(len(lengths) - 1, int(0.9 * len(lengths)))]
    step = together * (long / shared + new)
    cut = max(1, -(-int(together * (long + new)) // config.micro_tokens))
    tokens = int(step / cut)
    work = Work(tokens, int(together * new / cut), cut, min(256, config.batch_size), context)
    steps = config.max_steps or 500
    per_step = config.batch_size * (mean / shared + new) * getattr(config, "inner_epochs", 1)
    return Load(work, per_step, steps, 0, config.batch_size * new, not known)
