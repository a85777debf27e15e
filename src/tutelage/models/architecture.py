"""What the engine asks of an architecture, seen on two little sequences when a model loads.

A model that packing or packed attention would compute otherwise than `transformers` does is computed a padded batch at
a time, by its own attention; one that comes out otherwise there too, or with the fused logits, is refused, and never
trained or sampled from silently wrong.
"""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.engine.attention import LOOKS_AHEAD, NAME, PackedLayout, attending
from tutelage.engine.device import moved
from tutelage.engine.logprobs import capped, head_of
from tutelage.engine.packing import Packed, context_of_config, pack
from tutelage.engine.unpacked import UnpackedCache, packs, use_own_attention
from tutelage.errors import UserError
from tutelage.models.roles import hidden_states
from tutelage.processes import is_main

FIRST, OTHER, SECOND = [3, 5, 4, 2, 1], [1, 1, 2, 5, 3], [2, 4, 3]
LONG = FIRST * 3
NOT_THROUGH = "cannot be packed: its attention does not go through transformers' interface"
SURE = (
    0.3  # a token's state is another one: its difference has more than this part of its length, whatever the rounding
)
MISFITS = (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError, UserError)  # or kinds of them


class _Watching(PackedLayout):
    """Keeps which windows the layers ask for, one entry a call."""

    def __init__(self, packed: Packed):
        super().__init__(packed)
        self.windows: list[int | None] = []

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, **limits: Any) -> Tensor:
        self.windows.append(limits.get("window"))
        return super().attend(query, key, value, scale, **limits)


@torch.no_grad()
def check_architecture(model: Any, path: Path) -> None:
    """See how a model is to be computed: packed; or, where its packed sequences see each other or its attention is not
    that of `transformers`, a padded batch at a time, which is said. What fits neither, or makes its logits in an unknown
    way, is refused. The model is in evaluation mode.
    """
    unpacked: str | None = NOT_THROUGH
    if packs(model):
        unpacked = _found(_packing_fault, model, "cannot be computed on packed sequences")
        if unpacked:
            use_own_attention(model)
    fault = unpacked and _found(_padding_fault, model, "cannot be computed a padded batch at a time ({})")
    fault = fault or _found(_logits_fault, model, "makes no logits of its states ({})")
    if fault:
        what = f"{type(model).__name__} {fault}"
        raise UserError(what, where=str(path), mend="use a model of another architecture")
    if unpacked:
        _say(f"{path}: {type(model).__name__} {unpacked}; computed a padded batch at a time, slower")


@cache
def _say(line: str) -> None:
    """Once: several roles load one model."""
    if is_main():
        print(line, file=sys.stderr)


def _found(look: Callable[[Any], str | None], model: Any, otherwise: str) -> str | None:
    """What a look at the model finds; an error of the model, too, shows that it does not fit."""
    try:
        return look(model)
    except torch.OutOfMemoryError:
        raise
    except MISFITS as error:
        said = error.what if isinstance(error, UserError) else (str(error) or type(error).__name__).splitlines()[0]
        return otherwise.format(said)


def _packing_fault(model: Any) -> str | None:
    packed = pack([FIRST, SECOND])
    layout = _Watching(packed)
    ours = hidden_states(model, packed, layout)[-len(SECOND) :]
    beside_another = hidden_states(model, pack([OTHER, SECOND]))[-len(SECOND) :]
    # Equal to the bit where every token is computed alone; tokens of a mixture of experts are computed in groups.
    apart = torch.equal(ours, beside_another) or _alike(ours, beside_another, _tolerance(model))
    if not layout.windows or not apart:
        return NOT_THROUGH
    return _window_fault(model.config.get_text_config(), layout.windows) or _attention_fault(model, ours)


def _window_fault(config: Any, seen: list[int | None]) -> str | None:
    """Windows and chunks that a model has, and does not hand to its attention: two short sequences do not show them."""
    kinds, context = getattr(config, "layer_types", None) or (), context_of_config(config)
    if "chunked_attention" in kinds and (getattr(config, "attention_chunk_size", None) or context) < context:
        return "attends in chunks, which packed attention cannot compute"
    window = getattr(config, "sliding_window", None)
    used = getattr(config, "use_sliding_window", True) and (not kinds or "sliding_attention" in kinds)
    if used and isinstance(window, int) and window < context and not any(seen):
        return f"has a sliding window of {window} tokens that does not go through transformers' interface"
    return None


def _padding_fault(model: Any) -> str | None:
    """Whether the second sequence's states change where more tokens come after it, where it is padded beside another,
    or where all but its last token are read, padded on the left, and the last goes on from `transformers`' own cache.
    """
    alone = hidden_states(model, pack([SECOND]))
    longer = hidden_states(model, pack([SECOND + LONG]))
    if _another(model, longer[: len(SECOND)], alone):
        return LOOKS_AHEAD
    if _another(model, hidden_states(model, pack([LONG, SECOND]))[-len(SECOND) :], alone):
        return "computes a sequence otherwise where it is padded"
    if model.get_output_embeddings() is None:
        return None
    held, prompts = UnpackedCache(model), pack([LONG, SECOND[:-1]])
    held.start_prefill(prompts, torch.arange(2))
    read = held.prefill(prompts)[len(LONG) :]
    held.start_decode(prompts.lengths)
    following = moved(torch.tensor([FIRST[0], SECOND[-1]]), alone.device)
    if _another(model, torch.cat([read, held.step(following, held.position)[1:]]), alone):
        return "goes on from its cache, in a batch padded on the left, otherwise than it reads whole sequences"
    return None


def _attention_fault(model: Any, ours: Tensor) -> str | None:
    """Whether `transformers`' own attention makes something else of the second sequence. ours: its states, [3, H]."""
    try:
        model.set_attn_implementation("eager")
        ids = moved(torch.tensor([SECOND]), ours.device)
        theirs = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    except MISFITS:
        return None  # nothing to compare with
    finally:
        model.set_attn_implementation(NAME)
    return "has an attention that packed attention computes otherwise" if _another(model, ours, theirs) else None


def _another(model: Any, ours: Tensor, theirs: Tensor) -> bool:
    """Whether most tokens' states [n, H] are other ones, beyond what rounding makes of them."""
    difference = (ours.float() - theirs.float()).norm(dim=-1) / theirs.float().norm(dim=-1).clamp(min=1e-6)
    return bool(difference.median() > (SURE if model.dtype != torch.float32 else 1e-2))


def _logits_fault(model: Any) -> str | None:
    if model.get_output_embeddings() is None:
        return None
    packed = pack([FIRST])
    hidden = hidden_states(model, packed)
    with attending(PackedLayout(packed)):
        ids = moved(packed.input_ids[None], hidden.device)
        logits = model(input_ids=ids, use_cache=False).logits[0].float()
    if not _alike(capped(hidden, head_of(model)), logits, _tolerance(model)):
        return "makes its logits in a way that is not known here"
    return None


def _tolerance(model: Any) -> float:
    return 0.05 if model.dtype == torch.bfloat16 else 1e-3


def _alike(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    ours, theirs = ours.float(), theirs.float()
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max().clamp(min=1.0))
