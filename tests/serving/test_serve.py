"""The official client against a server of ours: every route, option and error, many clients at once."""

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import uvicorn

from tutelage.data.templates import end_token_id, render_prompt
from tutelage.engine.packing import pack
from tutelage.engine.sampling import SamplingParams, row_seed, sample
from tutelage.models import load_policy
from tutelage.serving.app import Served, make_app
from tutelage.serving.listening import listen

openai = pytest.importorskip("openai")
ASKED = [{"role": "user", "content": "Where does the baker live?"}]


@pytest.fixture(scope="module")
def served():
    """The world's base: sure of most tokens, so that rounding, which the batch may change, decides none."""
    policy = load_policy("world", "float32")
    return [Served("base", policy, 24), Served("other", policy, 24)]


@pytest.fixture(scope="module")
def client(served):
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make_app(served), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    yield openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    server.should_exit = True
    thread.join()
    listener.close()


def chat(client, **more):
    return client.chat.completions.create(**{"model": "base", "messages": ASKED, "max_tokens": 12, **more})


def complete(client, **more):
    return client.completions.create(**{"model": "base", "prompt": "The baker", "max_tokens": 6, **more})


def test_models(client):
    assert [m.id for m in client.models.list().data] == ["base", "other"]
    assert client.models.retrieve("other").owned_by == "tutelage"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("third")


def test_chat_says_what_the_sampler_says(client, served):
    policy = served[0].policy
    prompt = render_prompt(policy.tokenizer, ASKED)
    seeds = [row_seed(7, "completion", i) for i in range(3)]
    wanted = sample(policy.model, [prompt], [seeds], SamplingParams(12), [end_token_id(policy.tokenizer)])[0]
    answer = chat(client, seed=7, n=3)
    for choice, one in zip(answer.choices, wanted, strict=True):
        tokens = one.tokens[:-1] if one.finish == "stop" else one.tokens
        assert choice.message.content == policy.tokenizer.decode(tokens) and choice.message.role == "assistant"
        assert choice.finish_reason == one.finish
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.usage.completion_tokens == sum(len(one.tokens) for one in wanted)
    assert chat(client, seed=8).choices[0].message.content != answer.choices[0].message.content
    parts = [{"type": "text", "text": "Where does "}, {"type": "text", "text": "the baker live?"}]
    assert chat(client, seed=7, messages=[{"role": "user", "content": parts}]).choices[0].message.content == (
        answer.choices[0].message.content
    )


@pytest.mark.parametrize("more", [{}, {"stop": ["e", "zz"]}, {"n": 2}, {"logprobs": True, "top_logprobs": 2}])
def test_a_stream_is_the_answer_in_pieces(client, more):
    whole = chat(client, seed=3, **more)
    chunks = list(chat(client, seed=3, stream=True, stream_options={"include_usage": True}, **more))
    assert len({c.id for c in chunks}) == 1 and chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    for choice in whole.choices:
        mine = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == choice.index]
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert [c.finish_reason for c in mine if c.finish_reason] == [choice.finish_reason]
        if choice.logprobs:
            assert [t for c in mine if c.logprobs for t in c.logprobs.content] == choice.logprobs.content


def test_a_streamed_completion_with_echo(client):
    whole = complete(client, seed=3, echo=True, logprobs=1).choices[0]
    chunks = list(complete(client, seed=3, echo=True, logprobs=1, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == whole.text
    for name in ("tokens", "token_logprobs", "text_offset"):
        assert [x for c in chunks if (p := c.choices[0].logprobs) for x in getattr(p, name)] == getattr(
            whole.logprobs, name
        )


def test_chat_logprobs(client):
    choice = chat(client, seed=1, logprobs=True, top_logprobs=3, temperature=0.5).choices[0]
    entries = choice.logprobs.content
    assert b"".join(bytes(t.bytes) for t in entries).decode("utf-8", "replace") == choice.message.content
    for entry in entries:
        assert len(entry.top_logprobs) == 3 and entry.logprob <= entry.top_logprobs[0].logprob <= 0
    assert chat(client, logprobs=True, max_tokens=2).choices[0].logprobs.content[0].top_logprobs == []


def test_echo_scores_a_text_as_the_trainer_does(client, served):
    policy, text = served[0].policy, "The baker lives by the river."
    ids = policy.tokenizer(text)["input_ids"]
    truth, _ = policy.logprobs(pack([ids]), torch.arange(1, len(ids)))
    for prompt in (text, [text], ids, [ids]):
        for new in (0, 1):
            choice = complete(client, prompt=prompt, echo=True, logprobs=1, max_tokens=new, temperature=0).choices[0]
            scored = choice.logprobs
            assert len(scored.tokens) == len(ids) + new and choice.text.startswith(text)
            assert scored.token_logprobs[0] is None and scored.top_logprobs[0] is None
            found = torch.tensor(scored.token_logprobs[1 : len(ids)])
            torch.testing.assert_close(found, truth.detach(), atol=1e-4, rtol=1e-4)
            for token, logprob, top in list(
                zip(scored.tokens, scored.token_logprobs, scored.top_logprobs, strict=True)
            )[1:]:
                assert top[token] == logprob <= max(top.values())
            assert all(
                text[a:].startswith(t) for a, t in zip(scored.text_offset, scored.tokens[: len(ids)], strict=False)
            )


def test_several_prompts_with_several_choices(client):
    both = complete(client, prompt=["The baker", "A miller who"], n=2, seed=5)
    assert [c.index for c in both.choices] == [0, 1, 2, 3]
    alone = complete(client, prompt="A miller who", n=2, seed=5)
    assert [c.text for c in both.choices[2:]] == [c.text for c in alone.choices]
    ids = [[50, 51], [60, 61, 62]]
    assert complete(client, prompt=ids, max_tokens=0).usage.prompt_tokens == 5


def test_the_end_token_ends_and_stop_strings_cut(client, served):
    long = complete(client, max_tokens=400, seed=2)
    assert long.choices[0].finish_reason == "stop" and long.usage.completion_tokens < 400
    assert "<|end|>" not in long.choices[0].text
    scored = complete(client, max_tokens=400, seed=2, logprobs=0).choices[0]
    assert scored.logprobs.tokens[-1] == "<|end|>" and scored.logprobs.text_offset[-1] == len(scored.text)
    stop = long.choices[0].text[5:8]
    cut = complete(client, max_tokens=400, seed=2, stop=stop)
    assert cut.choices[0].text == long.choices[0].text.partition(stop)[0] and cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens < long.usage.completion_tokens


def test_the_filters_that_openai_lacks_are_extra_fields(client):
    greedy = complete(client, temperature=0, max_tokens=12).choices[0].text
    for only_the_best in ({"top_k": 1}, {"min_p": 1.0}):
        assert complete(client, seed=5, max_tokens=12, extra_body=only_the_best).choices[0].text == greedy
    everything = complete(client, seed=5, max_tokens=12).choices[0].text
    assert complete(client, seed=5, max_tokens=12, extra_body={"top_k": -1, "min_p": 0.0}).choices[0].text == everything
    longer = complete(client, seed=5, max_tokens=12, stop=everything[0], extra_body={"min_tokens": 3})
    assert longer.usage.completion_tokens > 3 and longer.choices[0].text.startswith(everything[0])


def test_many_at_once_answer_as_alone(client):
    seeds = list(range(40))
    alone = [chat(client, seed=seed).choices[0].message.content for seed in seeds]
    with ThreadPoolExecutor(40) as pool:
        names = ["base", "other"] * 20
        together = list(pool.map(lambda a: chat(client, seed=a[0], model=a[1]), zip(seeds, names, strict=True)))
    assert [a.choices[0].message.content for a in together] == alone and len({a.id for a in together}) == 40


@pytest.mark.parametrize(
    ("bad", "mention"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 100_000}, "context"),
        ({"top_p": 1.5}, "top_p"),
        ({"extra_body": {"top_k": -2}}, "top_k"),
        ({"extra_body": {"min_p": 1.5}}, "min_p"),
        ({"max_tokens": 4, "extra_body": {"min_tokens": 5}}, "min_tokens"),
        ({"n": 0}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "cook", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"top_logprobs": 3}, "logprobs is true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": [""]}, "stop"),
        ({"presence_penalty": 1}, "presence_penalty is not supported"),
        ({"extra_body": {"beam": 3}}, "Unrecognized request argument supplied: beam"),
        ({"extra_body": {"top-k": 3}}, "Unrecognized request argument supplied: top-k"),
        ({"extra_body": {"str": 3}}, "Unrecognized request argument supplied: str"),
        ({"stream": True, "stream_options": {"usage": True}}, "supplied: usage"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0"),
        ({"stream_options": {"include_usage": True}}, "stream is true"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "context holds 512"),
    ],
)
def test_bad_values_are_400(client, bad, mention):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **bad)
    error = refused.value.body
    assert mention in error["message"] and error["type"] == "invalid_request_error" and set(error) >= {"param", "code"}


@pytest.mark.parametrize(
    "bad", [{"prompt": ""}, {"prompt": []}, {"prompt": [99_999]}, {"logprobs": 99}, {"best_of": 4}]
)
def test_bad_completions_are_400(client, bad):
    with pytest.raises(openai.BadRequestError):
        complete(client, **bad)


def test_a_field_that_is_not_supported_is_named(client):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, logit_bias={"50": 1})
    assert (refused.value.param, refused.value.code) == ("logit_bias", "unsupported_parameter")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"model": "base"}',
        b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "base", "messages": [{"role": "user", "content": "\\ud800"}]}',
    ],
)
def test_bodies_that_are_no_request_are_400(client, body):
    url, headers = f"{client.base_url}chat/completions", {"Content-Type": "application/json"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, body, headers, method="POST"))
    error = json.loads(refused.value.read())["error"]
    assert refused.value.code == 400 and error["type"] == "invalid_request_error" and "None" not in error["message"]


def test_what_is_not_there_is_404(client):
    with pytest.raises(openai.NotFoundError) as refused:
        chat(client, model="third")
    assert refused.value.body["code"] == "model_not_found" and "base, other" in refused.value.body["message"]
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="base", input="x")


def test_an_answer_is_a_turn_as_the_client_hands_it_back(client):
    first = chat(client, seed=1).choices[0].message
    assert first.content and first.model_dump()["tool_calls"] is None
    for turn in (first, first.model_dump()):
        again = chat(client, seed=1, messages=[*ASKED, turn, ASKED[0]])
        assert again.usage.prompt_tokens > 12


def test_fields_that_ask_for_nothing_are_taken(client):
    assert chat(client, presence_penalty=0, logit_bias={}, user="me", temperature=None, top_p=0, seed=1)


def test_a_client_that_leaves_frees_its_row(client, served):
    stream = chat(client, stream=True, max_tokens=490, n=24, temperature=1.5)
    next(iter(stream))
    stream.close()
    with pytest.raises(openai.APITimeoutError):
        chat(client.with_options(timeout=0.02), max_tokens=490, n=24, temperature=1.5)
    deadline, scheduler = time.time() + 10, served[0].scheduler
    # A row leaves `running` first and the decoder a moment later.
    while (scheduler.running or scheduler.waiting or scheduler.decoder.rows) and time.time() < deadline:
        time.sleep(0.02)
    assert not served[0].scheduler.running and not served[0].scheduler.decoder.rows
    assert chat(client).choices


def test_a_failing_model_is_a_500_and_the_server_goes_on(client, served, monkeypatch):
    decoder = served[0].scheduler.decoder
    monkeypatch.setattr(decoder, "_draw", lambda *_: 1 / 0)
    with pytest.raises(openai.InternalServerError, match="division"):
        chat(client)
    assert chat(client).choices
    monkeypatch.setattr(served[0].scheduler.decoder, "_draw", lambda *_: 1 / 0)
    with pytest.raises(openai.APIError, match="division"):
        list(chat(client, stream=True))
    assert chat(client).choices


def test_a_taken_port_is_told(capsys):
    from tutelage.cli.main import main

    with listen("127.0.0.1", 0) as busy, pytest.raises(SystemExit) as left:
        main(["serve", "--port", str(busy.getsockname()[1])])
    assert left.value.code == 2 and "cannot listen there" in capsys.readouterr().err


def test_the_command_serves_pages_too_and_stops_in_good_order_on_sigterm(nano, tmp_path):
    words = [sys.executable, "-m", "tutelage", "serve", "--model", f"mine={nano}", "--port", "0"]
    words += ["--store", str(tmp_path / "feedback.db")]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        said = server.stderr.readline()
        url = said.split()[3]
        assert said.startswith(f"serving mine at {url}"), said + server.stderr.read()
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=5)
        assert [m.id for m in client.models.list().data] == ["mine"]
        with urllib.request.urlopen(url.removesuffix("/v1")) as page:
            assert b"New project" in page.read()
        running = chat(client, model="mine", stream=True, max_tokens=60, temperature=0)
        first = next(iter(running))
        server.send_signal(signal.SIGTERM)
        assert first.id and list(running)[-1].choices[0].finish_reason  # what runs may end
        assert server.wait(timeout=60) == 0
    finally:
        server.kill()
