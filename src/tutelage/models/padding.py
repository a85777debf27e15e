"""The token that pads, and plain `transformers`' rule for a scalar head: read at the last token that is not padding.

Here nothing is padded. A checkpoint must still score in plain `transformers` as it does here: at an answer's end token.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tutelage.data.templates import end_token_id
from tutelage.models.roles import Role, ScalarModel

TRAINED_PADDING = "trained_pad_token_id"  # in a scalar model's config.json: what it padded with when it was made


def pad_token_id(tokenizer: Any) -> int:
    """The padding token, or the unknown or end token where there is none."""
    for token in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    return 0


@contextmanager
def padded_beside(role: Role) -> Iterator[None]:
    """Meanwhile a scalar model's config and tokenizer pad with a special token that ends no answer.

    The embedding of the token that it padded with before gets no gradient: config.json says which, for a resumed run.
    """
    config, tokenizer = role.model.config, role.tokenizer
    text, before = config.get_text_config(), tokenizer.pad_token
    trained = text.pad_token_id
    try:
        if isinstance(role, ScalarModel) and trained == end_token_id(tokenizer):
            padding = _other_special(tokenizer, trained)
            setattr(config, TRAINED_PADDING, trained)
            tokenizer.pad_token = None if padding is None else tokenizer.convert_ids_to_tokens(padding)
            text.pad_token_id = _rare(tokenizer, trained) if padding is None else padding
        yield
    finally:
        tokenizer.pad_token, text.pad_token_id = before, trained


def _other_special(tokenizer: Any, end: int) -> int | None:
    added = [number for number, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    known = (tokenizer.unk_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids, *added)
    return next((token for token in known if token is not None and token != end), None)


def _rare(tokenizer: Any, end: int) -> int:
    """The vocabulary's last token but for the end token; the tokenizer itself cannot pad then."""
    return len(tokenizer) - (2 if end == len(tokenizer) - 1 else 1)
