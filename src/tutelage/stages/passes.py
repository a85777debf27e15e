"""Micro-batches of a rollout's episodes, as each of its models reads them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.data.batches import token_budget_batches
from tutelage.data.templates import render_completion
from tutelage.engine.packing import Packed, offsets_of, pack, positions_in
from tutelage.records import Prompt


def response_indices(sequences: list[list[int]], starts: list[int]) -> tuple[Tensor, Tensor]:
    """Packed index of each response token [T], and the offsets [N+1] of the responses."""
    totals = torch.tensor([len(s) for s in sequences])
    lengths = totals - torch.tensor(starts)
    offsets = offsets_of(lengths)
    begin = offsets_of(totals)[:-1] + torch.tensor(starts)
    return begin.repeat_interleave(lengths) + positions_in(offsets), offsets


@dataclass(frozen=True)
class Pass:
    """A micro-batch of episodes: what every model reads of it, and where its response tokens are on the [T] axis."""

    episodes: list[int]
    packed: Packed
    targets: Tensor  # [M] packed indices of the response tokens
    where: Tensor  # [M]


def passes_of(sequences: list[list[int]], starts: list[int], offsets: Tensor, micro_tokens: int) -> list[Pass]:
    """All episodes, micro-batch by micro-batch."""
    found = []
    for micro in token_budget_batches([len(s) for s in sequences], micro_tokens):
        some = [sequences[i] for i in micro]
        targets, _ = response_indices(some, [starts[i] for i in micro])
        where = torch.cat([torch.arange(int(offsets[i]), int(offsets[i + 1])) for i in micro])
        found.append(Pass(micro, pack(some, share=True), targets, where))
    return found


def reward_passes(
    tokenizer: Any, asked: list[Prompt], texts: list[str], max_length: int, micro_tokens: int
) -> list[tuple[list[int], Packed]]:
    """Micro-batches of answers for the reward model, rendered anew with its own template and tokenizer."""
    rendered = [render_completion(tokenizer, p.messages, text) for p, text in zip(asked, texts, strict=True)]
    sequences = [r.input_ids[-max_length:] for r in rendered]
    micros = token_budget_batches([len(s) for s in sequences], micro_tokens)
    return [(micro, pack([sequences[i] for i in micro], share=True)) for micro in micros]
