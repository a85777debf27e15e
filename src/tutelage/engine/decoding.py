"""Reading prompts, and one decoding step of a model.

Through its own modules, or, where its shape is known, a step with fewer, fused products.

Suffixes: B rows, H hidden, h heads, h_kv key heads, d head size.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, rms_norm, silu

from tutelage.engine.attention import attending
from tutelage.engine.cache import CacheLayout
from tutelage.engine.device import device_of, moved
from tutelage.engine.logprobs import finished, head_of
from tutelage.engine.native import Kernels, kernels, products
from tutelage.engine.packing import Packed
from tutelage.engine.unpacked import UnpackedCache, packs

FUSED = ("LlamaForCausalLM", "Qwen2ForCausalLM", "MistralForCausalLM")
Step = Callable[[Tensor, Tensor], Tensor]


def new_cache(model: Any) -> CacheLayout | UnpackedCache:
    return CacheLayout(device_of(model)) if packs(model) else UnpackedCache(model)


def prefill(model: Any, cache: CacheLayout | UnpackedCache, packed: Packed) -> Tensor:
    """[U, H] last hidden states of prompts, whose keys and values `cache.start_prefill` has made ready to be written."""
    if isinstance(cache, UnpackedCache):
        return cache.prefill(packed)
    return _hidden(model, cache, *(moved(x, cache.device) for x in packed.computed))


def _hidden(model: Any, cache: CacheLayout, tokens: Tensor, positions: Tensor) -> Tensor:
    with attending(cache):
        body = model.base_model(input_ids=tokens[None], position_ids=positions[None], use_cache=False)
    hidden: Tensor = body.last_hidden_state[0]
    return hidden


def decoder_step(model: Any, cache: CacheLayout | UnpackedCache) -> Step:
    """tokens [B] and positions [B] -> last hidden states [B, H], reading and writing the cache."""
    if isinstance(cache, UnpackedCache):
        return cache.step
    if not fusable(model):
        return partial(_hidden, model, cache)
    alike = all(p.dtype == model.dtype for name, p in model.base_model.named_parameters() if "norm" in name)
    found = kernels(model.dtype) if alike and cache.device.type == "cpu" else None
    return FusedStep(model, cache) if found is None else NativeStep(model, cache, found)


def fusable(model: Any) -> bool:
    """Whether the model is one of the known shapes, unchanged: plain linear layers, no hook, no window."""
    config = model.config
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if type(model).__name__ not in FUSED or windowed or config.hidden_act != "silu":
        return False
    body = model.base_model
    if 2 * body.rotary_emb.inv_freq.numel() != body.layers[0].self_attn.head_dim:  # a part of each head is turned
        return False
    layers = [m for layer in body.layers for m in layer.modules()]
    plain = all(type(m) is nn.Linear or foldable(m) for m in layers if hasattr(m, "in_features"))
    return plain and not any(m._forward_hooks or m._forward_pre_hooks for m in layers)


def product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x [B, K] -> x W' + b, with W laid out once as the processor's bfloat16 kernels want it."""
    on_processor = (
        weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    )
    if on_processor and weight.shape[1] % 2 == 0 and (own := products()) is not None:
        return own.product(weight, bias)
    if on_processor and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 32)  # 32: the rows it is tuned for
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return lambda x: linear(x, weight, bias)


def head_product(model: Any) -> Callable[[Tensor], Tensor]:
    """hidden [B, H] -> logits [B, V], as the architecture makes them."""
    head = head_of(model)
    logits = product(head.weight_VH.detach(), None)
    if head.bias_V is None and head.scale == 1.0 and head.softcap is None:
        return logits
    return lambda hidden: finished(logits(hidden).float(), head)


class FusedStep:
    """Llama's step: queries, keys and values in one product, gate and up in one, rotation by one signed roll."""

    def __init__(self, model: Any, cache: CacheLayout):
        body, config = model.base_model, model.config
        self.cache, self.body = cache, body
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.layers = []
        for layer in body.layers:
            attention, mlp = layer.self_attn, layer.mlp
            self.layers.append(
                (
                    layer.input_layernorm,
                    _joined(attention.q_proj, attention.k_proj, attention.v_proj),
                    _joined(attention.o_proj),
                    layer.post_attention_layernorm,
                    _joined(mlp.gate_proj, mlp.up_proj),
                    _joined(mlp.down_proj),
                    attention.scaling,
                )
            )

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        body, heads, rotated = self.body, self.heads, self.heads + self.key_heads
        x = embedding(tokens, body.embed_tokens.weight)
        cos, sin = (t[0][:, None] for t in body.rotary_emb(x[None], positions[None]))  # [B, 1, d]
        half = cos.shape[-1] // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], -1)
        for norm, qkv, out, norm_2, gate_up, down, scale in self.layers:
            projected = qkv(_normed(x, norm)).unflatten(-1, (rotated + self.key_heads, -1))
            turning = projected[:, :rotated]
            turned = (turning * cos).addcmul_(turning.roll(half, -1), sin)
            attended = self.cache.attend(turned[:, :heads], turned[:, heads:], projected[:, rotated:], scale)
            x = x + out(attended.flatten(1))
            gate, up = gate_up(_normed(x, norm_2)).chunk(2, -1)
            x = x + down(silu(gate).mul_(up))
        return _normed(x, body.norm)


class NativeStep(FusedStep):
    """The same step, with what lies between the products in functions of our own."""

    def __init__(self, model: Any, cache: CacheLayout, native: Kernels):
        super().__init__(model, cache)
        self.native = native

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        body, native, more = self.body, self.native, None
        x = embedding(tokens, body.embed_tokens.weight)
        cos, sin = (t[0].contiguous() for t in body.rotary_emb(x[None], positions[None]))  # [B, d]
        for number, (norm, qkv, out, norm_2, gate_up, down, scale) in enumerate(self.layers):
            projected = qkv(native.add_norm(x, more, norm.weight, norm.variance_epsilon))
            keys, values = self.cache.keys[number], self.cache.values[number]
            more = out(native.attend(projected, keys, values, (cos, sin), positions, scale))
            more = down(native.gated(gate_up(native.add_norm(x, more, norm_2.weight, norm_2.variance_epsilon))))
        return native.add_norm(x, more, body.norm.weight, body.norm.variance_epsilon)


def _normed(x: Tensor, norm: Any) -> Tensor:
    return rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


def _joined(*modules: nn.Linear) -> Callable[[Tensor], Tensor]:
    weights = [folded(m) for m in modules]
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    biases: list[Tensor] = [m.bias for m in modules if m.bias is not None]
    return product(weight.detach(), torch.cat(biases) if biases else None)


def foldable(module: Any) -> bool:
    """Whether a layer is a plain LoRA layer of `peft`, whose adapters are products that add to the weight."""
    return hasattr(module, "get_delta_weight") and hasattr(module, "lora_A") and not module.lora_variant


def folded(module: Any) -> Tensor:
    """A layer's weight, with its active adapter added: decoding computes one product, not three."""
    weight: Tensor = module.weight
    if not foldable(module) or module.disable_adapters:
        return weight
    for name in module.active_adapters:
        weight = weight + module.get_delta_weight(name)
    return weight
