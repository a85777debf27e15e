"""A model in its role: what a stage may ask of it, on packed sequences.

Suffixes: _T packed tokens, _M selected positions, _N sequences, _H hidden.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.engine.attention import PackedLayout, attending
from tutelage.engine.device import device_of, moved
from tutelage.engine.logprobs import fused_logprobs, head_of
from tutelage.engine.packing import Packed, context_of
from tutelage.engine.unpacked import packs, padded_states
from tutelage.engine.watchdog import beat
from tutelage.errors import UserError
from tutelage.models.adapters import Adapters, new_config


def hidden_states(model: Any, packed: Packed, layout: Any = None) -> Tensor:
    """[T, H] last hidden states (after the final norm) of a packed batch."""
    return select_hidden(model, packed, None, layout)


def select_hidden(model: Any, packed: Packed, where: Tensor | None, layout: Any = None) -> Tensor:
    """[M, H] last hidden states at the packed indices `where` [M]; at all tokens when None. On the model's device.

    What sequences share is computed once, and its gradients from all of them add up; not where the model's attention
    cannot be packed.
    """
    beat()
    check_context(model, int(packed.lengths.max()))
    device = device_of(model)
    if not packs(model):
        hidden = padded_states(model, packed)
        return hidden if where is None else hidden.index_select(0, moved(where, device))
    ids, positions = (moved(x, device) for x in packed.computed)
    if packed.shared is not None:
        where = packed.shared.place if where is None else packed.place_of(where)
    with attending(layout or PackedLayout(packed)):
        body_of = getattr(model, "body", model.base_model)  # a sharded model is put together for its body's pass
        body = body_of(input_ids=ids[None], position_ids=positions[None], use_cache=False)
    hidden = body.last_hidden_state[0]
    return hidden if where is None else hidden.index_select(0, moved(where, device))


def check_context(model: Any, longest: int) -> None:
    """A UserError for a sequence that has more tokens than the model has positions."""
    context = context_of(model)
    if longest > context:
        raise UserError(
            f"a sequence has {longest} tokens, the model's context holds {context}",
            where="option --max-length (max_length)",
            mend=f"give at most {context}",
        )


@dataclass
class Lora:
    """A role's place among the adapters on its weights; name None: the plain weights, no adapter."""

    adapters: Adapters
    name: str | None


@dataclass
class Role:
    """A model with its tokenizer; with `lora` the weights are shared and only the adapter is its own.

    Batches come from the host, and so do the numbers go back there, wherever the model is.
    """

    model: Any
    tokenizer: Any
    lora: Lora | None = None

    def activate(self) -> None:
        """Let the shared weights compute for this role."""
        if self.lora is not None:
            self.lora.adapters.activate(self.lora.name)

    def own_parameters(self) -> list[nn.Parameter]:
        """What training this role changes."""
        if self.lora is None:
            return list(self.model.parameters())
        self.activate()
        return self.lora.adapters.parameters(self.lora.name) if self.lora.name else []

    def add_adapter(self, options: Mapping[str, Any]) -> None:
        """Freeze the weights and put a fresh adapter on them, which changes nothing yet."""
        adapters = self.lora.adapters if self.lora else Adapters(self.model.base_model, self.model.name_or_path)
        self.model.requires_grad_(False)
        config = new_config(adapters.body, options, adapters.base)
        self.lora = Lora(adapters, adapters.add(config))

    def beside(self) -> Lora | None:
        """The place of another role that starts where this one is, on the same weights."""
        if self.lora is None or self.lora.name is None:
            return self.lora
        adapters, name = self.lora.adapters, self.lora.name
        return Lora(adapters, adapters.add(adapters.configs[name], like=name))


@dataclass
class Policy(Role):
    """A causal language model."""

    def decode(self, tokens: list[int]) -> str:
        """The text of some tokens, special ones included."""
        return self.tokenizer.decode(tokens, skip_special_tokens=False)

    @torch.no_grad()
    def plain_weights(self) -> dict[str, Tensor]:
        """Copies on the host of all weights, under the names of a model without adapters; the policy's is added into them."""
        name = None if self.lora is None else self.lora.name
        found: dict[str, Tensor] = {}
        for key, parameter in self.model.named_parameters():
            place, base, kind = key.partition(".base_layer.")
            if not base:
                if ".lora_" not in key:
                    found[key] = parameter.detach().cpu().clone()
                continue
            layer = self.model.get_submodule(place)
            added = name is not None and kind == "weight" and name in layer.lora_A
            weight = parameter + layer.get_delta_weight(name).to(parameter.dtype) if added else parameter.clone()
            found[f"{place}.{kind}"] = weight.detach().cpu()
        return found

    def logprobs(self, packed: Packed, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probability [M] and entropy [M] of the tokens at the indices `targets` [M] of the packed batch.

        None of the targets may be the first token of its sequence: nothing predicts that one.
        """
        self.activate()
        hidden = select_hidden(self.model, packed, targets - 1)
        ids = moved(packed.input_ids[targets], hidden.device)
        logprobs, entropy = fused_logprobs(hidden, head_of(self.model), ids, temperature)
        return logprobs.cpu(), entropy.cpu()


@dataclass
class ScalarModel(Role):
    """A model with a scalar head: the reward model, read at the last token, or the value model, read everywhere.

    bias: subtracted from the head's output, so that demonstrations score 0 on average (paper, section 3.5).
    """

    bias: float = 0.0

    def own_parameters(self) -> list[nn.Parameter]:
        own = super().own_parameters()
        if self.lora is None:
            return own
        self.model.score.requires_grad_(True)
        return [*own, *self.model.score.parameters()]

    def per_token(self, packed: Packed) -> Tensor:
        """[T] head output at every token, float32."""
        return self._head(packed, None)

    def scores(self, packed: Packed) -> Tensor:
        """[N] head output at each sequence's last token, float32."""
        return self._head(packed, packed.last)

    def _head(self, packed: Packed, where: Tensor | None) -> Tensor:
        self.activate()
        return self.model.score(select_hidden(self.model, packed, where))[:, 0].float().cpu() - self.bias

    def second(self) -> "ScalarModel":
        """Another scalar model on the same weights, with an adapter and a head of its own that start equal."""
        model = copy.copy(self.model)  # its own tables of modules and parameters, the same body
        model._modules, model._parameters = dict(model._modules), dict(model._parameters)
        model.score = copy.deepcopy(self.model.score)
        return ScalarModel(model, self.tokenizer, self.beside(), self.bias)


@dataclass
class StepModel(Role):
    """A process reward model: two labels at the end of each step, wrong (0) and right (1).

    aggregation: how the scores of its steps make the solution's. each_step: whether it was trained on steps; an outcome
    reward model was not, and only its last score means anything.
    """

    aggregation: str = "min"
    each_step: bool = True

    def logits(self, packed: Packed, ends: Tensor) -> Tensor:
        """[S] log-odds that the step which ends at each packed index `ends` [S] is right, float32."""
        scores = self.model.score(select_hidden(self.model, packed, ends)).float().cpu()
        return scores[:, 1] - scores[:, 0]
