"""From comparisons and thumbs to what the preference losses take: pure functions, torch-free."""

import random
from collections.abc import Sequence
from typing import Any

from tutelage.data.templates import Rendered, render_completion
from tutelage.records import Comparison, Message, Thumb


def taken_apart(comparison: Comparison) -> list[Thumb]:
    """A thumb up for each answer that wins more pairs than it loses, one down for the reverse; the rest are left out.

    Where the labeler said that all are bad, all that are ranked get a thumb down.
    """
    filled = comparison.filled_ranks()
    ranks = [r for r in filled if r is not None]
    found = []
    for place, (text, rank) in enumerate(zip(comparison.completions or [], filled, strict=True)):
        if rank is None:
            continue
        balance = sum(rank < other for other in ranks) - sum(rank > other for other in ranks)
        if balance or comparison.all_bad:
            found.append(
                Thumb(
                    id=f"t-{comparison.id}-{place}",
                    prompt_id=comparison.prompt_id,
                    messages=comparison.messages or [],
                    completion=text,
                    label=balance > 0 and not comparison.all_bad,
                    labeler=comparison.labeler,
                )
            )
    return found


def mismatched(thumbs: Sequence[Thumb], seed: int) -> list[str]:
    """For each row an answer to *another* prompt, every answer used once where possible (KTO's baseline)."""
    order = list(range(len(thumbs)))
    random.Random(seed).shuffle(order)
    # Sorted by prompt and moved by the largest group, no row meets its own prompt (unless one prompt has over half).
    order.sort(key=lambda i: thumbs[i].prompt_id)
    sizes: dict[str, int] = {}
    for thumb in thumbs:
        sizes[thumb.prompt_id] = sizes.get(thumb.prompt_id, 0) + 1
    shift = max(sizes.values(), default=0)
    texts = [""] * len(thumbs)
    for place, i in enumerate(order):
        texts[i] = thumbs[order[(place + shift) % len(order)]].completion
    return texts


def has_winner(comparison: Comparison) -> bool:
    """Whether some answer is ranked above another."""
    return len({r for r in comparison.ranks if r is not None}) > 1


def without_ties(ranks: Sequence[int | None], seed: int) -> list[int]:
    """Ranks in which of each tied group one answer, drawn at random, takes part; the others get 0 (not ranked)."""
    groups: dict[int, list[int]] = {}
    for place, rank in enumerate(ranks):
        if rank is not None:
            groups.setdefault(rank, []).append(place)
    rng = random.Random(seed)
    kept = {rng.choice(places): rank for rank, places in sorted(groups.items())}
    return [kept.get(place, 0) for place in range(len(ranks))]


def render_answer(tokenizer: Any, messages: Sequence[Message], text: str, max_length: int) -> Rendered:
    """A prompt with an answer; a long one loses its beginning, never its end."""
    one = render_completion(tokenizer, messages, text)
    return Rendered(one.input_ids[-max_length:], one.loss_mask[-max_length:])
