"""A model in its role: what a stage may ask of it, on packed sequences.

Suffixes: _T packed tokens, _M selected positions, _N sequences, _H hidden.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tutelage.engine.attention import PackedLayout, attending
from tutelage.engine.logprobs import fused_logprobs, head_of
from tutelage.engine.packing import Packed


def hidden_states(model: Any, packed: Packed, layout: Any = None) -> Tensor:
    """[T, H] last hidden states (after the final norm) of a packed batch."""
    return select_hidden(model, packed, None, layout)


def select_hidden(model: Any, packed: Packed, where: Tensor | None, layout: Any = None) -> Tensor:
    """[M, H] last hidden states at the packed indices `where` [M]; at all tokens when None.

    What sequences share is computed once, and its gradients from all of them add up.
    """
    ids, positions, shared = packed.input_ids, packed.position_ids, packed.shared
    if shared is not None:
        ids, positions = ids[shared.kept], positions[shared.kept]
        where = shared.place if where is None else shared.place[where]
    with attending(layout or PackedLayout(packed.offsets, packed.lifting)):
        body = model.base_model(input_ids=ids[None], position_ids=positions[None], use_cache=False)
    hidden = body.last_hidden_state[0]
    return hidden if where is None else hidden.index_select(0, where)


@dataclass
class Policy:
    """A causal language model with its tokenizer."""

    model: Any
    tokenizer: Any

    def logprobs(self, packed: Packed, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probability [M] and entropy [M] of the tokens at the indices `targets` [M] of the packed batch.

        None of the targets may be the first token of its sequence: nothing predicts that one.
        """
        hidden = select_hidden(self.model, packed, targets - 1)
        return fused_logprobs(hidden, head_of(self.model), packed.input_ids[targets], temperature)


@dataclass
class ScalarModel:
    """A model with a scalar head: the reward model, read at the last token, or the value model, read everywhere.

    bias: subtracted from the head's output, so that demonstrations score 0 on average (paper, section 3.5).
    """

    model: Any
    tokenizer: Any
    bias: float = 0.0

    def per_token(self, packed: Packed) -> Tensor:
        """[T] head output at every token, float32."""
        return self._head(select_hidden(self.model, packed, None))

    def scores(self, packed: Packed) -> Tensor:
        """[N] head output at each sequence's last token, float32."""
        return self._head(select_hidden(self.model, packed, packed.last))

    def _head(self, hidden: Tensor) -> Tensor:
        return self.model.score(hidden)[:, 0].float() - self.bias


@dataclass
class StepModel:
    """A process reward model: two labels at the end of each step, wrong (0) and right (1).

    aggregation: how the scores of its steps make the solution's. each_step: whether it was trained on steps; an outcome
    reward model was not, and only its last score means anything.
    """

    model: Any
    tokenizer: Any
    aggregation: str = "min"
    each_step: bool = True

    def logits(self, packed: Packed, ends: Tensor) -> Tensor:
        """[S] log-odds that the step which ends at each packed index `ends` [S] is right, float32."""
        scores = self.model.score(select_hidden(self.model, packed, ends)).float()
        return scores[:, 1] - scores[:, 0]
