"""What a process reward model says of the steps of solutions, and of whole solutions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.algorithms.process import AGGREGATIONS, solution_scores, step_differences
from tutelage.data.batches import token_budget_batches
from tutelage.data.steps import render_steps
from tutelage.engine.packing import offsets_of, pack
from tutelage.engine.sampling import Sample
from tutelage.models import Policy, StepModel
from tutelage.records import Message, Prompt
from tutelage.solutions import final_answer, repeated, split_steps, step_ends
from tutelage.stages.sample import text_of

TOKENS_AT_ONCE = 16384


@torch.no_grad()
def score_steps(
    model: StepModel, solutions: Sequence[tuple[Sequence[Message], Sequence[str]]], max_length: int
) -> list[list[float]]:
    """P(right) of each step of each solution (problem, steps); steps beyond max_length get 0."""
    model.model.eval()
    rendered = [render_steps(model.tokenizer, messages, steps) for messages, steps in solutions]
    rows = [(ids[:max_length], [e for e in ends if e < max_length]) for ids, ends in rendered]
    found: list[list[float]] = [[] for _ in rows]
    scored = [i for i, (_, ends) in enumerate(rows) if ends]
    for micro in token_budget_batches([len(rows[i][0]) for i in scored], TOKENS_AT_ONCE):
        some = [scored[i] for i in micro]
        packed = pack([rows[i][0] for i in some], share=True)
        starts = packed.offsets[:-1].tolist()
        ends = torch.tensor([start + e for start, i in zip(starts, some, strict=True) for e in rows[i][1]])
        scores = model.logits(packed, ends).sigmoid().split([len(rows[i][1]) for i in some])
        for i, part in zip(some, scores, strict=True):
            found[i] = part.tolist()
    return [one + [0.0] * (len(ends) - len(one)) for one, (_, ends) in zip(found, rendered, strict=True)]


def guarded_steps(
    model: StepModel, asked: Sequence[Sequence[Message]], texts: Sequence[str], max_length: int
) -> list[list[float]]:
    """Scores of the steps of answers as a policy gives them, with guards against what would please the model alone.

    A step that an earlier one said word for word is wrong, and so is a last step that comes to no answer: otherwise a
    policy would repeat a right step, or stop while all is right. An answer without a step has one of score 0.
    """
    steps = [split_steps(text) for text in texts]
    scores = score_steps(model, list(zip(asked, steps, strict=True)), max_length)
    guarded = []
    for one, said, text in zip(scores, steps, texts, strict=True):
        kept = [0.0 if again else score for score, again in zip(one, repeated(said), strict=True)] or [0.0]
        if final_answer(text) is None:
            kept[-1] = 0.0
        guarded.append(kept)
    return guarded


def running_scores(model: StepModel, scores: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor]:
    """The aggregate so far after each step [S], and the offsets [N+1] of the solutions."""
    offsets = offsets_of(torch.tensor([len(one) for one in scores]))
    flat = torch.tensor([score for one in scores for score in one])
    return AGGREGATIONS[model.aggregation](flat, offsets), offsets


def whole_scores(model: StepModel, scores: Sequence[Sequence[float]]) -> Tensor:
    """One score a solution. [N]"""
    return solution_scores(*running_scores(model, scores))


def process_rewards(
    model: StepModel, policy: Policy, asked: Sequence[Prompt], samples: Sequence[Sample], max_length: int
) -> tuple[Tensor, Tensor]:
    """Each answer's score [N], and a reward for each of its tokens [T] that sums to 0 over the answer.

    At the end of every step its difference of the running score, and at the answer's last token minus their sum: with
    the score at the end, as for any answer, the sum stays the score, and its parts come when they are earned.
    """
    texts = [text_of(policy, one) for one in samples]
    scores = guarded_steps(model, [p.messages for p in asked], texts, max_length)
    running, offsets = running_scores(model, scores)
    differences = step_differences(running, offsets).split(offsets.diff().tolist())
    rewards = [torch.zeros(len(one.tokens)) for one in samples]
    known: dict[int, str] = {}
    for one, reward, of_steps in zip(samples, rewards, differences, strict=True):
        tokens = one.tokens[:-1] if one.finish == "stop" else one.tokens
        pieces = [known.setdefault(token, policy.tokenizer.decode([token])) for token in tokens]
        ends = step_ends(pieces)
        if model.each_step and len(ends) == len(of_steps):
            reward[torch.tensor(ends)] = of_steps
            reward[-1] -= of_steps.sum()
    return solution_scores(running, offsets), torch.cat(rewards)
