"""Endpoints that stumble: what may pass is tried again, what will not is said at once, what is left is counted."""

import io
import urllib.error

import pytest

from stumbling import Stub
from tutelage.errors import UserError
from tutelage.judges import chats
from tutelage.judges.cache import Cache, Reply, key_of
from tutelage.judges.chats import ChatFailedError, Endpoint, LocalChat, TurnedDownError, open_chat

ASKED = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]


@pytest.fixture
def stub():
    made = Stub()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def pauses(monkeypatch):
    slept = []
    monkeypatch.setattr(chats.time, "sleep", slept.append)
    return slept


def test_passing_faults_are_tried_again(stub, pauses):
    stub.script = [429, 500, "half", 529, "there"]
    assert Endpoint("openai", stub.url, "m").answer(ASKED) == "there"
    assert len(stub.seen) == 5 and pauses[0] == pauses[1] == 3.0 <= pauses[3]  # as the server asked
    path, headers, body = stub.seen[0]
    assert path == "/v1/chat/completions" and body["messages"] == ASKED and headers["Authorization"] == "Bearer none"


def test_after_the_last_attempt_it_is_a_failure_in_its_place(stub, pauses):
    stub.script = [lambda body: 503 if body["messages"][0]["content"] == "bad" else "good"] * 100
    came = {}
    conversations = [[{"role": "user", "content": c}] for c in ("good", "bad", "good")]
    found = Endpoint("openai", stub.url, "m", parallel=1).answers(conversations, came.__setitem__)
    assert [f if isinstance(f, str) else None for f in found] == ["good", None, "good"]
    assert isinstance(found[1], ChatFailedError) and "503" in str(found[1]) and came == {0: "good", 2: "good"}


def test_what_no_attempt_mends_is_said_at_once(stub, pauses, monkeypatch):
    stub.script = [401]
    with pytest.raises(UserError, match=r"(?s)status 401.*check OPENAI_API_KEY"):
        Endpoint("openai", stub.url, "m").answer(ASKED)
    assert len(stub.seen) == 1
    with pytest.raises(UserError, match="does not answer"):
        Endpoint("openai", "http://127.0.0.1:9", "m").answers([ASKED] * 50)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(UserError, match="ANTHROPIC_API_KEY"):
        open_chat("anthropic:claude")
    for wrong in ("openai:http://x/v1#", "openai:x#m"):
        with pytest.raises(UserError):
            open_chat(wrong)


def test_a_conversation_that_is_refused_is_counted_and_the_others_go_on(stub, pauses):
    """As a content filter does it, or a context that is too small."""
    turns = [[{"role": "user", "content": c}] for c in ("bad", *"abc")]
    filtered = [lambda body: (400, "filtered") if body["messages"][0]["content"] == "bad" else "good"] * 100
    stub.script = list(filtered)
    endpoint = Endpoint("openai", stub.url, "m", parallel=1)
    found = endpoint.answers(turns)
    assert isinstance(found[0], TurnedDownError) and "filtered" in str(found[0]) and found[1:] == ["good"] * 3
    assert not pauses and len(stub.seen) == 4  # asked once
    assert len(endpoint.answers(turns[:1] * 20)) == 20  # it is known to answer
    with pytest.raises(UserError, match=r"(?s)status 400.*check the URL and the model"):
        Endpoint("openai", stub.url, "m", parallel=1).answers(turns[:1] * 20)


def test_a_model_that_reasons_is_asked_in_its_own_words(stub, pauses, capsys):
    def reasons(body):
        if "max_tokens" in body:
            return 400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return (400, "Unsupported value: 'temperature' does not support 0") if "temperature" in body else "fine"

    stub.script = [reasons] * 40
    asked = [ASKED] * 6
    assert Endpoint("openai", stub.url, "m", any_temperature=True).answers(asked) == ["fine"] * 6
    assert stub.seen[-1][2] == {"model": "m", "max_completion_tokens": 512, "messages": ASKED}
    assert capsys.readouterr().err.count("takes no temperature") >= 1
    contestant = Endpoint("openai", stub.url, "m", temperature=0.7)  # its temperature is part of what is compared
    assert "does not support" in str(contestant.answers(asked[:1])[0])


def test_one_conversation_that_is_turned_down_does_not_stop_the_others(monkeypatch, pauses):
    """Providers answer a red-team prompt with status 400 and their filter's name: the next attempt would be the same."""
    bodies = {
        "bad": b'{"error": {"code": "content_filter", "message": "The response was filtered"}}',
        "long": b'{"error": {"message": "This model\'s maximum context length is 4096 tokens"}}',
        "none": b'{"error": {"message": "The model m does not exist"}}',
    }
    chat, asked = Endpoint("openai", "http://x/v1", "m", parallel=1), []

    def post(messages):
        asked.append(said := messages[-1]["content"])
        if said in bodies:
            raise urllib.error.HTTPError("http://x", 400, "Bad Request", {}, io.BytesIO(bodies[said]))
        return {
            "choices": [
                {"message": {"content": "fine"}, "finish_reason": "content_filter" if said == "half" else "stop"}
            ]
        }

    monkeypatch.setattr(chat, "_post", post)
    found = chat.answers([[{"role": "user", "content": c}] for c in ("bad",) * 10 + ("long", "half", "good")])
    assert [getattr(one, "filtered", one) for one in found] == [True] * 10 + [False, True, "fine"]
    assert len(asked) == 13 and all(isinstance(one, TurnedDownError) for one in found[:12])  # each asked once
    with pytest.raises(TurnedDownError, match="does not exist") as raised:
        chat.answer([{"role": "user", "content": "none"}])
    assert not raised.value.clear  # it may be that no conversation is right


def test_a_refusal_in_its_own_field_is_what_was_said():
    body = {"choices": [{"message": {"content": None, "refusal": "I'm sorry."}, "finish_reason": "stop"}]}
    assert Endpoint("openai", "http://x/v1", "m")._reply(body) == "I'm sorry."


def test_anthropics_shape(stub, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    reply = open_chat(f"anthropic:{stub.url}#claude", max_tokens=9).answer(ASKED)
    path, headers, body = stub.seen[0]
    assert (reply, reply.finish) == ("fine", "stop") and path == "/v1/messages" and headers["X-Api-Key"] == "secret"
    assert body["system"] == "be brief" and body["messages"] == ASKED[1:] and body["max_tokens"] == 9


def test_an_answer_that_was_cut_off_says_so(stub):
    stub.script = ["cut"]
    assert Endpoint("openai", stub.url, "m").answer(ASKED).finish == "length"


def test_a_local_checkpoint_answers_the_same_whatever_else_is_asked(nano):
    chat = LocalChat(str(nano), max_tokens=8, temperature=1.0, dtype="float32")
    user = [[{"role": "user", "content": c}] for c in ("a", "b", "word " * 600)]
    together = chat.answers(user)
    assert isinstance(together[2], ChatFailedError) and "512" in str(together[2])
    assert chat.answers(user[1:2])[0] == together[1] and len(chat.name) == len("local:") + 16


def test_the_cache_survives_a_kill(tmp_path):
    path = tmp_path / "deep" / "cache.jsonl"
    first = Cache(path)
    first.put(key_of("judge", ["a", "b"]), Reply("yes", "length"), judge="j")
    first.put("2", Reply("line\u2028one\ntwo"))
    path.write_text(path.read_text() + '{"key": "3", "te')
    again = Cache(path)
    assert again.get("2") == "line\u2028one\ntwo" and again.get("3") is None
    assert again.get(key_of("judge", ["a", "b"])).finish == "length" and again.get(key_of("judge", ["b", "a"])) is None
    again.put("3", Reply("three"))
    assert Cache(path).get("3") == "three"
