"""What the engine asks of an architecture, seen on two little sequences when a model loads.

A model that packing, attention or the fused logits would compute otherwise than `transformers` does is refused there,
and never trained or sampled from silently wrong.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.engine.attention import NAME, PackedLayout, attending
from tutelage.engine.device import moved
from tutelage.engine.logprobs import capped, head_of
from tutelage.engine.packing import Packed, pack
from tutelage.engine.sampling import context_of_config
from tutelage.errors import UserError
from tutelage.models.roles import hidden_states

FIRST, OTHER, SECOND = [3, 5, 4, 2, 1], [1, 1, 2, 5, 3], [2, 4, 3]
NOT_THROUGH = "cannot be packed: its attention does not go through transformers' interface"
SURE = (
    0.3  # a token's state is another one: its difference has more than this part of its length, whatever the rounding
)
MISFITS = (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError, RuntimeError)


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
    """Refuse an architecture whose packed sequences see each other, whose attention is computed otherwise than in
    `transformers`, or whose logits are made in an unknown way. The model is in evaluation mode.
    """
    try:
        fault = _packing_fault(model) or _logits_fault(model)
    except torch.OutOfMemoryError:
        raise
    except MISFITS as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        fault = f"cannot be computed on packed sequences ({said})"
    if fault:
        what = f"{type(model).__name__} {fault}"
        raise UserError(what, where=str(path), mend="use a model of another architecture")


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
    difference = (ours.float() - theirs.float()).norm(dim=-1) / theirs.float().norm(dim=-1).clamp(min=1e-6)
    sure = SURE if model.dtype != torch.float32 else 1e-2
    return "has an attention that packed attention computes otherwise" if difference.median() > sure else None


def _logits_fault(model: Any) -> str | None:
    if model.get_output_embeddings() is None:
        return None
    packed = pack([FIRST, SECOND])
    hidden = hidden_states(model, packed)
    with attending(PackedLayout(packed)):
        ids, positions = (moved(x[None], hidden.device) for x in packed.computed)
        logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0].float()
    if not _alike(capped(hidden, head_of(model)), logits, _tolerance(model)):
        return "makes its logits in a way that is not known here"
    return None


def _tolerance(model: Any) -> float:
    return 0.05 if model.dtype == torch.bfloat16 else 1e-3


def _alike(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    ours, theirs = ours.float(), theirs.float()
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max().clamp(min=1.0))
