import json

import pytest

from tutelage.errors import UserError
from tutelage.feedback.preview import WORLD, preview

TALK = [{"role": "user", "content": "Where does the baker live?"}, {"role": "assistant", "content": "By the river."}]


def test_it_is_what_training_renders():
    """The tokens that `tutelage sft` makes of the same conversation, by another road."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(WORLD)
    text = tokenizer.apply_chat_template(TALK, tokenize=False)
    asked = tokenizer.apply_chat_template(TALK[:1], add_generation_prompt=True, tokenize=False)
    found = preview("world", TALK)
    assert found.text == text and "By the river." in text
    assert found.tokens == len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert found.answer == found.tokens - len(tokenizer(asked, add_special_tokens=False)["input_ids"]) > 3


def test_what_cannot_be_shown(tmp_path):
    with pytest.raises(UserError, match="has no tokenizer"):
        preview(str(tmp_path), TALK)
    (tmp_path / "tokenizer.json").write_bytes((WORLD / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="no chat template"):
        preview(str(tmp_path), TALK)
    source = "{% if messages[0].role != 'system' %}{{ raise_exception('begin with the system') }}{% endif %}"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": source}))
    with pytest.raises(UserError, match="begin with the system"):
        preview(str(tmp_path), TALK)
