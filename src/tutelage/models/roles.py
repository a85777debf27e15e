"""A model in its role: what a stage may ask of it, on packed sequences.

Suffixes: _T packed tokens, _M selected positions, _N sequences, _H hidden.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tutelage.engine.attention import PackedLayout, attending
from tutelage.engine.logprobs import fused_logprobs
from tutelage.engine.packing import Packed


def hidden_states(model: Any, packed: Packed, layout: Any = None) -> Tensor:
    """[T, H] last hidden states (after the final norm) of a packed batch."""
    with attending(layout or PackedLayout(packed.offsets)):
        body = model.base_model(
            input_ids=packed.input_ids[None], position_ids=packed.position_ids[None], use_cache=False
        )
    return body.last_hidden_state[0]


@dataclass
class Policy:
    """A causal language model with its tokenizer."""

    model: Any
    tokenizer: Any

    def logprobs(self, packed: Packed, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probability [M] and entropy [M] of the tokens at the indices `targets` [M] of the packed batch.

        None of the targets may be the first token of its sequence: nothing predicts that one.
        """
        hidden = hidden_states(self.model, packed)
        return fused_logprobs(
            hidden[targets - 1], self.model.get_output_embeddings().weight, packed.input_ids[targets], temperature
        )


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
        return self.model.score(hidden_states(self.model, packed))[:, 0].float() - self.bias

    def scores(self, packed: Packed) -> Tensor:
        """[N] head output at each sequence's last token, float32."""
        hidden = hidden_states(self.model, packed)[packed.last]
        return self.model.score(hidden)[:, 0].float() - self.bias
