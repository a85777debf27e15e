"""A reward model as the judge."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tutelage.data.batches import token_budget_batches
from tutelage.data.templates import render_completion
from tutelage.engine.packing import pack
from tutelage.judges.verdict import ScoringJudge
from tutelage.models import ScalarModel, load_scalar
from tutelage.records import Prompt

TOKENS_AT_ONCE = 16384


@dataclass
class RewardJudge(ScoringJudge):
    """reward: the model that scores."""

    reward: ScalarModel


def reward_judge(path: str, dtype: str = "auto", max_length: int = 1024, *, device: str = "auto") -> RewardJudge:
    """Scores of a checkpoint that `tutelage reward` wrote, read at the end of each whole answer."""
    reward = load_scalar(path, dtype, device=device)

    @torch.no_grad()
    def scorer(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        pairs = zip(prompts, answers, strict=True)
        rows = [render_completion(reward.tokenizer, p.messages, a).input_ids[-max_length:] for p, a in pairs]
        scores = torch.zeros(len(rows))
        for micro in token_budget_batches([len(row) for row in rows], TOKENS_AT_ONCE):
            scores[micro] = reward.scores(pack([rows[i] for i in micro], share=True))
        return scores.tolist()

    return RewardJudge(f"reward:{path}", scorer, reward)
