"""The token that pads."""

from typing import Any


def pad_token_id(tokenizer: Any) -> int:
    """The padding token, or the unknown or end token where there is none."""
    for token in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    return 0
