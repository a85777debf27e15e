"""The critic: what it may not say is named, and choices are read off log-probabilities."""

import io
import math
import urllib.error

import pytest
import torch
from transformers import AutoModelForCausalLM

from tutelage.constitutions import load_constitution
from tutelage.constitutions.questions import OPTIONS
from tutelage.data.templates import render_prompt
from tutelage.judges.cache import Reply
from tutelage.judges.chats import ChatFailedError, LocalChat, TurnedDownError
from tutelage.judges.choices import Choice, _ChoosingEndpoint, _letters, _parse, choices, said_letter
from tutelage.judges.critic import Critic, loops
from tutelage.records import Prompt

PROMPT = Prompt(id="p", messages=[{"role": "user", "content": "Name two towns."}])


class Script:
    """A chat that says what it was told to, in turn."""

    name = "script"

    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []

    def answers(self, conversations, answered=None):
        self.asked += conversations
        return [self.replies.pop(0) for _ in conversations]


def test_each_way_in_which_a_critic_is_no_use_has_its_name():
    general = load_constitution("general")
    said = [
        "Critique: It is rude.",
        "I'm sorry, but I can't do that.",
        "No. No. No. No. No.",
        Reply("It is ve", "length"),
        " ",
    ]
    critic = Critic(Script(*(s if isinstance(s, Reply) else Reply(s) for s in said)), general)
    found = critic.criticize([(PROMPT, "Go away.", general.principles[0])] * 5)
    assert [one.problem for one in found] == [None, "refused", "looped", "cut off", "empty"]
    assert found[0].text == "It is rude."
    critic = Critic(Script(Reply("I will not help with that.")), general)
    assert (
        critic.revise([(PROMPT, "x", general.principles[0])], ["It is rude."])[0].problem is None
    )  # a revision may refuse


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (Reply("I’m sorry, but I can’t help with that."), "refused"),  # as many endpoints write it
        (Reply("I apologize, but this is not something to discuss."), "refused"),
        (Reply("Unfortunately, I can't assist with this."), "refused"),
        (Reply("I can't find anything harmful in this answer."), None),  # a critique
        (TurnedDownError("status 400 content_filter", filtered=True), "refused"),
        (TurnedDownError("status 400 maximum context length", filtered=False), "failed"),
    ],
)
def test_refusals_in_any_words_and_critiques_that_find_nothing(said, problem):
    general = load_constitution("general")
    (found,) = Critic(Script(said), general).criticize([(PROMPT, "Go away.", general.principles[0])])
    assert found.problem == problem


def test_what_a_reasoning_model_says_to_itself_is_no_part_of_a_revision():
    general = load_constitution("general")
    critic = Critic(Script(Reply("<think>They want it kinder.</think>\n\nRevision: Please go.")), general)
    assert critic.revise([(PROMPT, "Go away.", general.principles[0])], ["It is rude."])[0].text == "Please go."


def test_loops():
    assert loops("so it goes " * 4) and loops("It is bad. Well now. It is bad. Oh no. It is bad. Ah yes. It is bad.")
    assert not loops("One. Two. Three. It is bad. It is worse.") and not loops("")
    assert not loops("| a | b | c | d |\n| --- | --- | --- | --- |\n| 1 | 2 | 3 | 4 |")  # a table is no loop


def test_local_log_probabilities_are_those_of_the_options(nano):
    chat, plain = LocalChat(str(nano), dtype="float32"), AutoModelForCausalLM.from_pretrained(nano)
    asked = [[{"role": "user", "content": text}] for text in ("Which answer does less harm?", "Which one?")]
    found = choices(chat, asked, OPTIONS)
    for messages, choice in zip(asked, found, strict=True):
        prompt = render_prompt(chat.policy.tokenizer, messages)
        for option, logprob in zip(OPTIONS, choice.logprobs, strict=True):
            ids = prompt + chat.policy.tokenizer(option, add_special_tokens=False)["input_ids"]
            logits = plain(torch.tensor([ids])).logits[0].detach().log_softmax(-1)
            want = sum(float(logits[i - 1, ids[i]]) for i in range(len(prompt), len(ids)))
            assert logprob == pytest.approx(want, abs=1e-3)


def test_a_question_that_is_too_long_has_no_choice(nano):
    long = [[{"role": "user", "content": "Name two towns. " * 300}]]
    assert choices(LocalChat(str(nano), dtype="float32"), long, OPTIONS)[0].logprobs is None


def test_an_endpoint_is_asked_for_log_probabilities():
    tops = [
        {"token": " A", "logprob": math.log(0.6)},
        {"token": "(A", "logprob": math.log(0.1)},
        {"token": "B", "logprob": math.log(0.2)},
    ]
    assert _letters(tops) == pytest.approx((math.log(0.7), math.log(0.2)))
    assert _letters([*tops[:1], {"token": "x", "logprob": -5.0}])[1] == pytest.approx(-5.0)  # at most the least listed
    assert _letters([{"token": "(", "logprob": -0.1}]) is None
    chosen = _ChoosingEndpoint("openai", "http://x/v1", "m")
    content = [{"token": "(", "top_logprobs": [{"token": "(", "logprob": 0.0}]}, {"token": "A", "top_logprobs": tops}]
    body = {"choices": [{"message": {"content": "(A"}, "finish_reason": "stop", "logprobs": {"content": content}}]}
    assert _parse(chosen._reply(body)).logprobs == pytest.approx((math.log(0.7), math.log(0.2)))
    assert chosen.body([])["logprobs"] is True


def test_a_letter_that_nobody_chose_is_no_choice():
    chosen = _ChoosingEndpoint("openai", "http://x/v1", "m")

    def said(*tokens, **tops):
        listed = [[{"token": t, "logprob": lp} for t, lp in {token: -0.01, **tops}.items()] for token in tokens]
        content = [{"token": t, "top_logprobs": top} for t, top in zip(tokens, listed, strict=True)]
        message = {"message": {"content": "".join(tokens)}, "finish_reason": "stop", "logprobs": {"content": content}}
        return _parse(chosen._reply({"choices": [message]}))

    assert said("I", "'m sorry, I can't compare these.", A=-9.0, B=-12.0).logprobs is None  # the tail of a refusal
    assert said("The", " one that", A=math.log(0.3), B=math.log(0.2)).logprobs == pytest.approx(
        (math.log(0.3), math.log(0.2))
    )
    assert said("A", " better answer would be", B=-3.0).logprobs is None  # the article
    a, b = said("A", " better answer: ", "(", "B", ")", A=-4.0).logprobs
    assert b == pytest.approx(-0.01) and a == pytest.approx(-4.0)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(B)", "B"), ("(A", "A"), (" B.", "B"), ("**A**", "A"), ("A) It is kinder.", "A"), ("Answer B does less harm", "B"),
        ("The answer is A.", "A"), ("It is B", "B"), ("A better one is hard to find", None), ("(A) or (B)?", None),
        ("Both A and B are fine", None), ("Answer A beats answer B", None), ("", None),
    ],
)  # fmt: skip
def test_the_letter_that_words_name(text, letter):
    found = said_letter(text)
    assert (found and found[0]) == letter and (found is None or text[found[1]] == letter)


def test_a_provider_s_filter_is_a_refusal_of_the_verdict():
    filtered = _parse(TurnedDownError("status 400 content_filter", filtered=True))
    verdict = Critic(Script(), load_constitution("world"))._verdict((filtered, Choice((0.0, -1.0))), [])
    assert verdict.problem == "refused" and _parse(TurnedDownError("too long", filtered=False)).failed


def test_words_alone_make_a_hard_choice():
    chosen = _ChoosingEndpoint("openai", "http://x/v1", "m")

    def said(text):
        return _parse(chosen._reply({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}))

    assert said("(B)").said and said("(B)").logprobs[1] > said("(B)").logprobs[0]
    assert said("neither (A) nor (B)").logprobs is None and said("").logprobs is None
    assert _parse(ChatFailedError("down")).logprobs is None
    assert "logprobs" not in _ChoosingEndpoint("anthropic", "http://x/v1", "m").body([])


def test_an_endpoint_without_log_probabilities_is_asked_for_words(monkeypatch):
    chosen, asked = _ChoosingEndpoint("openai", "http://x/v1", "m"), []

    def post(messages):
        body = chosen.body(messages)
        asked.append("logprobs" in body)
        if "logprobs" in body:
            said = io.BytesIO(b'{"error": "top_logprobs is not supported by this model"}')
            raise urllib.error.HTTPError("http://x", 400, "Bad Request", {}, said)
        return {"choices": [{"message": {"content": "(B)"}, "finish_reason": "stop"}]}

    monkeypatch.setattr(chosen, "_post", post)
    first, second = (_parse(chosen.answer([{"role": "user", "content": "Which?"}])) for _ in range(2))
    assert first.said and second.said and asked == [True, False, False]


def test_both_orders_and_the_clamp(nano):
    general = load_constitution("general")
    local = LocalChat(str(nano), dtype="float32", max_tokens=4)
    asked = [(PROMPT, "Selby and Oakton.", "No.", general.principles[0])]
    plain = Critic(local, general).compare(asked)[0]
    (a, b), (c, d) = plain.logprobs
    assert plain.probability == pytest.approx(1 / (1 + math.exp(-((a - b) + (d - c)) / 2)), abs=1e-6)
    swapped = Critic(local, general).compare([(PROMPT, "No.", "Selby and Oakton.", general.principles[0])])[0]
    assert swapped.probability == pytest.approx(1 - plain.probability, abs=1e-3)


def test_a_thinking_critic_is_clamped_and_shown_its_thoughts(nano, monkeypatch):
    general = load_constitution("general")
    local = LocalChat(str(nano), dtype="float32")
    monkeypatch.setattr(local, "answers", lambda turns, answered=None: [Reply("It is kind.") for _ in turns])
    seen = []
    monkeypatch.setattr(
        "tutelage.judges.critic.choices", lambda chat, turns, options: seen.extend(turns) or choices_of(len(turns))
    )
    verdict = Critic(local, general, think=True, clamp=0.4).compare([(PROMPT, "x", "y", general.principles[0])])[0]
    assert verdict.probability == pytest.approx(0.6) and verdict.reasoning == ["It is kind."] * 2
    assert [m["content"] for m in seen[0]][1] == "It is kind."


def choices_of(count):
    from tutelage.judges.choices import Choice

    return [Choice((0.0, -9.0)) if i < count / 2 else Choice((-9.0, 0.0)) for i in range(count)]


@pytest.mark.parametrize(
    ("orders", "problem"),
    [
        ((Choice(None, failed=True), Choice((0.0, -1.0))), "failed"),
        ((Choice(None, words="I'm sorry, I can't compare these."), Choice((0.0, -1.0))), "refused"),
        ((Choice((0.0, -1.0)), Choice(None, words="Both are fine.")), "no choice"),
    ],
)
def test_why_there_is_no_verdict(orders, problem):
    verdict = Critic(Script(), load_constitution("world"))._verdict(orders, [])
    assert verdict.probability is None and verdict.problem == problem and verdict.logprobs == [(0.0, -1.0)]
