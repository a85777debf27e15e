"""`tutelage world build`: the tokenizer and a base model of any size, from the corpus, by one recipe."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.configs.base import Dtype
from tutelage.errors import UserError, did_you_mean
from tutelage.world.corpus import ASSISTANT, END, USER, documents

PAD, SYSTEM = "<|pad|>", "<|system|>"
VOCABULARY = 1024
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}<|assistant|>"
    "{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Size:
    """Shape of a Llama model and the tokens it is trained on."""

    hidden: int
    layers: int
    heads: int
    tokens: int
    learning_rate: float


SIZES = {
    "nano": Size(48, 2, 2, 2_000_000, 6e-3),
    "micro": Size(96, 3, 4, 3_000_000, 4e-3),
    "tiny": Size(128, 4, 4, 4_000_000, 3e-3),
    "small": Size(192, 5, 6, 10_000_000, 2.5e-3),  # the default: ships in the package
    "base": Size(256, 6, 8, 10_000_000, 2e-3),
    "large": Size(384, 6, 8, 12_000_000, 1e-3),
}
SHIPPED = ("small", 0, None)  # size, seed, tokens (its own number) of the base that comes with the package


def make_tokenizer(seed: int = 0) -> Any:
    """Byte-level BPE over the corpus: a world word is one token, any other text falls back to bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, END, USER, ASSISTANT, SYSTEM]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(itertools.islice(documents(seed), 30_000), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=PAD, eos_token=END, model_max_length=512)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(size: Size, tokenizer: Any, seed: int, dtype: str, device: str = "cpu") -> Any:
    """A fresh Llama model with tied embeddings; its weights are drawn on the host, the same for every device."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tutelage.engine.attention import NAME
    from tutelage.engine.device import resolve_device
    from tutelage.models.checkpoint import compute_dtype

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.hidden * 8 // 3 // 16 * 16,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config._attn_implementation = NAME
    model: Any = LlamaForCausalLM(config)
    there = resolve_device(device)
    return model.to(there, compute_dtype(dtype, there))


def build(
    size: str = "small",
    out: str | Path = "runs/world",
    seed: int = 0,
    dtype: Dtype = "auto",
    tokens: int | None = None,
    resume: bool = False,
    device: str = "auto",
    good: float | None = None,
) -> dict[str, Any]:
    """Pretrain a base model of the world into `out`; returns the run's summary (its loss, its checkpoint).

    good: the share of the forum's answers that hold what was asked for, in place of the corpus' own.
    """
    if size not in SIZES:
        raise UserError(
            f"no size {size!r}{did_you_mean(size, list(SIZES))}",
            where="option --size",
            mend=f"use one of: {', '.join(SIZES)}",
        )
    from tutelage.configs import PretrainConfig
    from tutelage.models import Policy
    from tutelage.stages import pretrain

    shape = SIZES[size]
    tokenizer = make_tokenizer()
    config = PretrainConfig(
        data="world" if good is None else f"world:good={good:g}",
        out=str(out),
        seed=seed,
        tokens=tokens or shape.tokens,
        learning_rate=shape.learning_rate,
        dtype=dtype,
        device=device,
        max_length=512,
        batch_size=64,
        save_every=100,
        resume=resume,
    )
    return pretrain.run(config, Policy(make_model(shape, tokenizer, seed, dtype, device), tokenizer))
