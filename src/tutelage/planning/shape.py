"""A model's size, read from its config.json and the headers of its weights: nothing is loaded.

Suffixes of the numbers: bytes, or elements where nothing is said.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import UserError

GLU = ("llama", "qwen", "mistral", "gemma", "phi3", "granite", "cohere", "olmo", "smol")  # gate, up and down


@dataclass(frozen=True)
class Shape:
    """What the formulas need. matrices: name, outputs and inputs of each matrix that an adapter can stand beside."""

    parameters: int
    vocabulary: int
    hidden: int
    layers: int
    query: int
    key: int
    feed_forward: int
    matrices: tuple[tuple[str, int, int], ...]
    gated: bool = True

    @property
    def activation(self) -> int:
        """Elements that the backward pass keeps of one token: of each layer the inputs of its products and norms.

        Residual stream and norm, twice each (4 H); queries and the attention's output (2 Q), keys and values (2 K);
        gate, its activation, up and their product (4 F), or the two sides of a plain activation (2 F).
        """
        inner = (4 if self.gated else 2) * self.feed_forward
        return self.layers * (4 * self.hidden + 2 * self.query + 2 * self.key + inner)

    @property
    def layer(self) -> int:
        """Elements of the matrices of one layer; its norms are a thousandth."""
        return sum(a * b for _, a, b in self.matrices) // self.layers

    def adapter(self, r: int, targets: tuple[str, ...]) -> int:
        """Parameters of a LoRA adapter: r (inputs + outputs) of each matrix that is named, or of all."""
        return sum(r * (a + b) for name, a, b in self.matrices if not targets or name in targets)


def read_shape(path: Path) -> Shape:
    """The shape of the model in a folder; of an adapter's base."""
    config = json.loads((path / "config.json").read_text())
    config = config.get("text_config", config)
    sizes = _tensor_shapes(path)
    hidden = _first(config, "hidden_size", "n_embd", path=path)
    heads = _first(config, "num_attention_heads", "n_head", path=path)
    head = config.get("head_dim") or hidden // heads
    inner = {name.removesuffix(".weight"): s for name, s in sizes.items() if name.endswith(".weight") and len(s) == 2}
    matrices = tuple((name.rpartition(".")[2], s[0], s[1]) for name, s in inner.items() if _in_layer(name))
    return Shape(
        parameters=sum(math.prod(s) for s in sizes.values()),
        vocabulary=_first(config, "vocab_size", path=path),
        hidden=hidden,
        layers=_first(config, "num_hidden_layers", "n_layer", path=path),
        query=heads * head,
        key=(config.get("num_key_value_heads") or heads) * head,
        feed_forward=config.get("intermediate_size") or config.get("n_inner") or 4 * hidden,
        matrices=matrices,
        gated=any(str(config.get("model_type", "")).startswith(name) for name in GLU),
    )


def _in_layer(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))


def _first(config: dict[str, Any], *names: str, path: Path) -> int:
    for name in names:
        if isinstance(config.get(name), int):
            return config[name]
    mend = "plan knows the names that Llama, Qwen, Gemma, GPT-2 and GPT-NeoX use"
    raise UserError(f"config.json has no {names[0]}", where=str(path), mend=mend)


def _tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Name and shape of every tensor, from the files' headers alone."""
    found: dict[str, list[int]] = {}
    for file in sorted(path.glob("*.safetensors")):
        with open(file, "rb") as stream:
            try:
                (length,) = struct.unpack("<Q", stream.read(8))
                header = json.loads(stream.read(min(length, 100_000_000)))
            except (struct.error, ValueError) as error:
                raise UserError("is not a safetensors file", where=str(file), mend="copy the model again") from error
        found |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    if not found:
        raise UserError("has no safetensors weights", where=str(path), mend="save the model again with transformers")
    return found
