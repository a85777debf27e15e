"""A reward model's reading of an answer prefix by prefix: a hint, since it learned to score whole answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tutelage.data.batches import token_budget_batches
from tutelage.data.templates import end_ids, render_completion
from tutelage.engine.packing import pack
from tutelage.models import ScalarModel
from tutelage.records import Message

TOKENS_AT_ONCE = 16384
REPLACEMENT = "\ufffd"  # what a part of a character decodes to
LONGEST = 4  # bytes of a character in UTF-8


@dataclass(frozen=True)
class Prefixes:
    """pieces: the answer's tokens in words, the end's too; scores: the reward of the answer up to each, the last its own.

    ended: how many of the tokens only end the answer.
    """

    pieces: list[str]
    scores: list[float]
    ended: int

    def shown(self) -> dict[str, Any]:
        """For a page: the answer's own pieces, and "" for its end, which has the last score."""
        own = len(self.pieces) - self.ended
        kept = [*range(own), *([len(self.pieces) - 1] if self.ended else [])]
        return {
            "pieces": [self.pieces[i] if i < own else "" for i in kept],
            "scores": [round(self.scores[i], 4) for i in kept],
        }


@torch.no_grad()
def prefix_scores(
    reward: ScalarModel, answers: Sequence[tuple[Sequence[Message], str]], max_length: int | None = None
) -> list[Prefixes]:
    """The score at every token of each answer, of one forward pass over conversation and answer.

    max_length: tokens of both together that are read, the last ones (all of them where it is None).
    """
    ended = len(end_ids(reward.tokenizer))
    rendered = [render_completion(reward.tokenizer, messages, text) for messages, text in answers]
    rows = [one.input_ids[-max_length:] if max_length else one.input_ids for one in rendered]
    found: dict[int, Prefixes] = {}
    for micro in token_budget_batches([len(row) for row in rows], TOKENS_AT_ONCE):
        packed = pack([rows[i] for i in micro])
        scores = reward.per_token(packed).tolist()
        for i, stop in zip(micro, packed.offsets[1:].tolist(), strict=True):
            own = min(sum(rendered[i].loss_mask), len(rows[i]))
            found[i] = Prefixes(pieces_of(reward.tokenizer, rows[i][-own:]), scores[stop - own : stop], ended)
    return [found[i] for i in range(len(rows))]


def pieces_of(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token, so that together they are the text of all; a character of several goes to its last."""

    def text(start: int, stop: int) -> str:
        return tokenizer.decode(ids[start:stop], clean_up_tokenization_spaces=False)

    pieces, context, told = [], 0, 0  # told: tokens whose text is out; of these, the ones from `context` stand before
    for stop in range(1, len(ids) + 1):
        now = text(context, stop)
        if now.endswith(REPLACEMENT) and stop - told < LONGEST and stop < len(ids):
            pieces.append("")
            continue
        pieces.append(now[len(text(context, told)) :])
        context, told = told, stop
    return pieces
