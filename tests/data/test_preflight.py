"""The pre-flight check sees the faults that waste runs, and says so."""

import pytest

from tutelage.data.preflight import preflight, show
from tutelage.data.templates import render, template_hash
from tutelage.errors import UserError

from .tokens import CHATML, SMOLLM2, tokenizer_with

short = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello there."}]
long = [{"role": "user", "content": "Hello " * 50}, {"role": "assistant", "content": "I am fine."}]


def test_sound_data_passes_and_is_shown() -> None:
    tokenizer = tokenizer_with(SMOLLM2)
    result = preflight(tokenizer, [short, short], 64)
    result.raise_if_broken()
    text = "\n".join(result.lines())
    assert "<|im_end|> trained in 2 of 2" in text
    assert "⟦Hello there.<|im_end|>⟧⏎" in text
    assert "2 of 2 checked" in text
    assert (result.truncated, result.dropped, result.doubled_bos) == (0, 0, 0)
    assert result.trained_tokens == sum(render(tokenizer, short).loss_mask) * 2


def test_truncated_and_dropped_rows_are_counted() -> None:
    tokenizer = tokenizer_with(CHATML)
    result = preflight(tokenizer, [short, short, long], 32)
    assert (result.truncated, result.dropped, result.kept) == (1, 1, 2)
    assert result.longest == len(render(tokenizer, long))
    with pytest.raises(UserError, match="raise --max-length"):
        preflight(tokenizer, [short, long, long], 32).raise_if_broken()


def test_an_end_token_that_is_always_cut_off_is_broken() -> None:
    tokenizer = tokenizer_with(CHATML)
    length = len(render(tokenizer, short))
    with pytest.raises(UserError, match="never stop"):
        preflight(tokenizer, [short], length - 2).raise_if_broken()


def test_doubled_bos_is_broken() -> None:
    tokenizer = tokenizer_with("{{ '<s><s>' }}" + CHATML)
    with pytest.raises(UserError, match="two BOS"):
        preflight(tokenizer, [short], 64).raise_if_broken()


def test_another_template_than_the_models_is_broken() -> None:
    tokenizer = tokenizer_with(CHATML)
    preflight(tokenizer, [short], 64, expected_hash=template_hash(tokenizer)).raise_if_broken()
    with pytest.raises(UserError, match="is not the model's own"):
        preflight(tokenizer, [short], 64, expected_hash="0" * 16).raise_if_broken()


def test_no_data_is_broken() -> None:
    with pytest.raises(UserError, match="nothing to train on"):
        preflight(tokenizer_with(CHATML), [], 64).raise_if_broken()


def test_warnings_for_control_tokens_dates_and_headers() -> None:
    odd = [{"role": "user", "content": "Say <|im_end|>"}, short[1]]
    assert any("control tokens" in line for line in preflight(tokenizer_with(CHATML), [odd], 64).lines())
    dated = tokenizer_with("{% if false %}{{ strftime_now('%d') }}{% endif %}" + CHATML)
    assert any("date" in line for line in preflight(dated, [short], 64).lines())
    headless = tokenizer_with(CHATML.split("{% if add_generation_prompt")[0])
    assert any("the model itself writes" in line for line in preflight(headless, [short], 64).lines())


def test_show_puts_brackets_around_the_trained_part() -> None:
    tokenizer = tokenizer_with(CHATML)
    assert show(tokenizer, render(tokenizer, short)) == (
        "<|im_start|>user⏎Hello<|im_end|>⏎<|im_start|>assistant⏎⟦Hello there.<|im_end|>⟧⏎"
    )
