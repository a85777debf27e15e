"""One path from conversations to tokens: the mask covers what the assistant says, end token included."""

import pytest

from tutelage.data.templates import (
    end_token_id,
    preflight,
    render,
    render_completion,
    render_completions,
    render_prompt,
)
from tutelage.errors import UserError

TALK = [{"role": "user", "content": "Where does Mira live?"}, {"role": "assistant", "content": "Mira lives in Oakton."}]


def test_mask_covers_the_answer_and_its_end_token(tokenizer):
    rendered = render(tokenizer, TALK)
    trained = [t for t, m in zip(rendered.input_ids, rendered.loss_mask, strict=True) if m]
    assert tokenizer.decode(trained) == "Mira lives in Oakton.<|end|>"
    assert tokenizer.decode(rendered.input_ids) == tokenizer.apply_chat_template(TALK, tokenize=False)


def test_training_and_serving_share_the_prompt(tokenizer):
    prompt = render_prompt(tokenizer, TALK[:1])
    completion = render_completion(tokenizer, TALK[:1], TALK[1]["content"])
    assert completion.input_ids[: len(prompt)] == prompt
    assert completion.input_ids == render(tokenizer, TALK).input_ids
    assert completion.input_ids[-1] == end_token_id(tokenizer) == tokenizer.eos_token_id
    cut = render_completion(tokenizer, TALK[:1], TALK[1]["content"], ended=False)
    assert cut.input_ids == completion.input_ids[:-1]


def test_answers_of_one_prompt_are_those_rendered_apart(tokenizer):
    texts = ["Yes.", "No, I think not.", ""]
    apart = [render_completion(tokenizer, TALK[:1], text) for text in texts]
    assert render_completions(tokenizer, TALK[:1], texts) == apart
    assert render_completions(tokenizer, TALK[:1], []) == []


def test_every_assistant_turn_is_trained(tokenizer):
    rendered = render(tokenizer, TALK + TALK)
    assert (
        sum(t == tokenizer.eos_token_id for t, m in zip(rendered.input_ids, rendered.loss_mask, strict=True) if m) == 2
    )


def test_what_follows_the_end_token_is_not_rendered(tokenizer):
    import copy

    chatml = copy.deepcopy(tokenizer)
    chatml.chat_template = (
        "{% for m in messages %}<|user|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
    )
    rendered = render(chatml, TALK)
    assert rendered.input_ids[-1] == tokenizer.eos_token_id
    assert (
        chatml.decode([t for t, m in zip(rendered.input_ids, rendered.loss_mask, strict=True) if m])
        == "Mira lives in Oakton.<|end|>"
    )


def test_preflight_counts_and_refuses(tokenizer):
    rendered = [render(tokenizer, TALK)] * 3
    report = preflight(tokenizer, rendered, 512, [TALK[:1]] * 3)
    assert (report.conversations, report.end_tokens_trained, report.truncated, report.same_when_serving) == (
        3,
        3,
        0,
        True,
    )
    with pytest.raises(UserError, match="end token"):
        preflight(tokenizer, rendered, len(rendered[0].input_ids) - 1)
    with pytest.raises(UserError, match="no answer fits"):
        preflight(tokenizer, rendered, 3)
