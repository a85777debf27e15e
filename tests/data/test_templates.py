"""The mask covers what the assistant has to produce, in every template; training and serving see the same tokens."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.data.templates import (
    Rendered,
    end_token_id,
    render,
    render_completion,
    render_completions,
    render_many,
    render_prompt,
    render_prompts,
    template_hash,
    template_of,
    truncate,
    without_mask,
)
from tutelage.errors import UserError

from .tokens import CHATML, MARKED, QWEN3, SMOLLM2, TEMPLATES, tokenizer_with

ENDS = {"chatml": "<|im_end|>", "smollm2": "<|im_end|>", "marked": "<|im_end|>", "llama3": "<|eot_id|>"}
ENDS |= {"llama2": "</s>", "zephyr": "</s>", "gemma": "<end_of_turn>"}

user = {"role": "user", "content": "What is the capital of France?"}
answer = {"role": "assistant", "content": "Paris is."}
again = {"role": "user", "content": "Really?"}
yes = {"role": "assistant", "content": "Yes.\n\nHere is a list:\n- one"}


def trained_texts(tokenizer, rendered: Rendered) -> list[str]:
    """The decoded runs of tokens under the mask."""
    runs, run = [], []
    for token, masked in zip([*rendered.input_ids, -1], [*rendered.loss_mask, False], strict=True):
        if masked:
            run.append(token)
        elif run:
            runs.append(tokenizer.decode(run, skip_special_tokens=False).strip())
            run = []
    return runs


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_mask_is_the_answer_and_its_end_token(name: str, kind: str) -> None:
    tokenizer = tokenizer_with(TEMPLATES[name], kind)
    rendered = render(tokenizer, [user, answer, again, yes])
    gap = " " if name == "llama2" else ""
    assert trained_texts(tokenizer, rendered) == [m["content"] + gap + ENDS[name] for m in (answer, yes)]
    ends = [
        t for t, m in zip(rendered.input_ids, rendered.loss_mask, strict=True) if m and t == end_token_id(tokenizer)
    ]
    assert len(ends) == 2


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_training_sees_the_tokens_that_serving_gives(name: str, kind: str) -> None:
    tokenizer = tokenizer_with(TEMPLATES[name], kind)
    prompt = [user, answer, again]
    served = render_prompt(tokenizer, prompt)
    one = render_completion(tokenizer, prompt, yes["content"])
    assert one.input_ids[: len(served)] == served == one.input_ids[: one.prompt_length]
    assert one.input_ids[-1] == end_token_id(tokenizer)
    assert all(one.loss_mask[one.prompt_length :])
    whole = render(tokenizer, [*prompt, yes])
    assert whole.input_ids[: len(one)] == one.input_ids


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), min_size=2, max_size=4))
def test_any_text_round_trips(texts: list[str]) -> None:
    tokenizer = tokenizer_with(CHATML)
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    if messages[-1]["role"] == "user":
        messages.append(answer)
    rendered = render(tokenizer, messages)
    pieces, run = [], []
    for token, masked in zip([*rendered.input_ids, -1], [*rendered.loss_mask, False], strict=True):
        if masked:
            run.append(token)
        elif run:
            pieces.append(tokenizer.decode(run, skip_special_tokens=False))
            run = []
    assert pieces == [m["content"] + "<|im_end|>" for m in messages if m["role"] == "assistant"]
    served = render_prompt(tokenizer, messages[:-1])
    assert rendered.input_ids[: len(served)] == served


def test_marked_and_derived_masks_agree() -> None:
    marked, derived = tokenizer_with(MARKED), tokenizer_with(CHATML)
    conversations = [[user, answer, again, yes], [{"role": "system", "content": "Be brief."}, user, yes]]
    assert render_many(marked, conversations) == render_many(derived, conversations)


def test_a_mark_that_closes_after_the_newline_is_cut_at_the_end_token() -> None:
    late = MARKED.replace("{% endgeneration %}{{ '\n' }}", "{{ '\n' }}{% endgeneration %}")
    assert late != MARKED
    conversation = [user, answer, again, yes]
    assert render(tokenizer_with(late), conversation) == render(tokenizer_with(MARKED), conversation)


def test_injected_system_prompt_is_the_same_in_training_and_serving() -> None:
    tokenizer = tokenizer_with(SMOLLM2)
    served = render_prompt(tokenizer, [user])
    assert "You are a helpful AI assistant" in tokenizer.decode(served)
    assert render(tokenizer, [user, answer]).input_ids[: len(served)] == served


def test_an_answer_that_starts_with_a_newline_keeps_the_prompt_tokens() -> None:
    tokenizer = tokenizer_with(CHATML)
    served = render_prompt(tokenizer, [user])
    one = render_completion(tokenizer, [user], "\n\nHello there.")
    assert one.input_ids[: len(served)] == served and one.prompt_length == len(served)


def test_an_end_token_quoted_in_an_answer_does_not_close_it() -> None:
    tokenizer = tokenizer_with(CHATML)
    rendered = render(tokenizer, [user, {"role": "assistant", "content": "Say <|im_end|> now"}, again, answer])
    assert trained_texts(tokenizer, rendered) == ["Say <|im_end|> now<|im_end|>", "Paris is.<|im_end|>"]


def test_an_empty_answer_is_an_end_token() -> None:
    tokenizer = tokenizer_with(CHATML)
    one = render_completion(tokenizer, [user], "")
    assert one.trained == 1 and one.input_ids[-1] == end_token_id(tokenizer)


def test_a_template_that_rewrites_earlier_turns_stays_exact() -> None:
    tokenizer = tokenizer_with(QWEN3)
    rendered = render(tokenizer, [user, answer, again, yes])
    first, second = trained_texts(tokenizer, rendered)
    assert first == "Paris is.<|im_end|>"
    assert second.endswith(yes["content"] + "<|im_end|>") and second.startswith("<think>")


def test_batches_equal_single_calls() -> None:
    tokenizer = tokenizer_with(SMOLLM2)
    conversations = [[user, answer], [user, answer, again, yes], [user, yes]]
    assert render_many(tokenizer, conversations) == [render(tokenizer, c) for c in conversations]
    pairs = [([user], "Paris."), ([user], "Rome."), ([user, answer, again], "")]
    assert render_completions(tokenizer, pairs) == [render_completion(tokenizer, p, t) for p, t in pairs]
    assert render_prompts(tokenizer, [[user], [again]]) == [
        render_prompt(tokenizer, [user]),
        render_prompt(tokenizer, [again]),
    ]
    assert render_many(tokenizer, []) == []


def test_agrees_with_transformers_tokens_and_mask() -> None:
    tokenizer = tokenizer_with(MARKED)
    theirs = tokenizer.apply_chat_template(
        [user, answer, again, yes], return_dict=True, return_assistant_tokens_mask=True, add_special_tokens=False
    )
    ours = render(tokenizer, [user, answer, again, yes])
    assert ours.input_ids == theirs["input_ids"]
    assert ours.loss_mask == [bool(m) for m in theirs["assistant_masks"]]


def test_truncation_keeps_the_side_asked_for() -> None:
    rendered = Rendered([1, 2, 3, 4, 5, 6], [False, False, False, True, True, True])
    assert truncate(rendered, 6) is rendered
    assert truncate(rendered, 4) == Rendered([1, 2, 3, 4], [False, False, False, True])
    assert truncate(rendered, 3) is None
    assert truncate(rendered, 4, keep="end") == Rendered([3, 4, 5, 6], [False, True, True, True])
    assert without_mask(rendered).trained == 6


def test_hash_changes_with_the_template() -> None:
    assert template_hash(tokenizer_with(CHATML)) == template_hash(tokenizer_with(CHATML))
    assert template_hash(tokenizer_with(CHATML)) != template_hash(tokenizer_with(SMOLLM2))


def test_a_changed_template_is_probed_anew() -> None:
    tokenizer = tokenizer_with(CHATML)
    assert template_of(tokenizer).end_text == "<|im_end|>"
    tokenizer.chat_template = TEMPLATES["gemma"]
    assert template_of(tokenizer).end_text == "<end_of_turn>"


HEADER = "{{ '<|im_start|>assistant\n' }}{% generation %}"
END = "+ '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
UNMARKED_END = MARKED.replace(END, "}}{% endgeneration %}{{ '<|im_end|>\n' }}")
MARKED_HEADER = MARKED.replace(HEADER, "{% generation %}{{ '<|im_start|>assistant\n' }}")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "no chat template"),
        (CHATML.replace("+ '<|im_end|>'", ""), "never learn to stop"),
        (UNMARKED_END, "generation"),
        (MARKED_HEADER, "generation"),
        ("{% for m in messages %}{{ messages|length ~ m['content'] + '<|im_end|>' }}{% endfor %}", "not the beginning"),
        ("{{ raise_exception('never') }}", "refuses"),
    ],
)
def test_templates_that_cannot_be_exact_are_refused(template: str | None, words: str) -> None:
    assert template != MARKED
    with pytest.raises(UserError, match=words):
        render(tokenizer_with(template), [user, answer])


def test_a_refused_conversation_is_shown() -> None:
    tokenizer = tokenizer_with(TEMPLATES["gemma"])
    with pytest.raises(UserError, match=r"no system role.*Be brief"):
        render_many(tokenizer, [[user, answer], [{"role": "system", "content": "Be brief."}, user, answer]])
    with pytest.raises(UserError, match="no message"):
        render(tokenizer, [])


def test_many_conversations_are_quick() -> None:
    tokenizer = tokenizer_with(SMOLLM2)
    conversations = [[{"role": "user", "content": f"What is {i}?"}, answer] for i in range(2000)]
    start = time.perf_counter()
    render_many(tokenizer, conversations)
    assert time.perf_counter() - start < 4  # 10,000 in a few seconds; generous for a loaded machine
