"""Answers of OpenAI's API as they come: whole ones, halves, errors in the stream and before it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tutelage.errors import UserError
from tutelage.judges.chats import ChatFailedError, Endpoint
from tutelage.judges.streaming import streamed

ASKED = [{"role": "user", "content": "Hello?"}]


def chunk(text=None, finish=None):
    return {"choices": [{"delta": {"content": text} if text else {}, "finish_reason": finish}]}


@pytest.fixture
def served():
    """An endpoint that says what `script` holds: (status, events); seen: the bodies that were sent."""

    class Handler(BaseHTTPRequestHandler):
        script, seen = (200, []), []

        def do_POST(self):
            status, events = self.script
            self.seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status)
            self.end_headers()
            for event in events:
                data = event if isinstance(event, str) else json.dumps(event)
                self.wfile.write(f"data: {data}\n\n".encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Handler, Endpoint("openai", f"http://127.0.0.1:{server.server_address[1]}/v1", "m", max_tokens=7)
    server.shutdown()
    server.server_close()


def test_pieces_and_then_the_whole(served):
    handler, endpoint = served
    handler.script = (200, [chunk("Good "), chunk("day"), chunk(finish="stop"), "[DONE]"])
    *pieces, whole = streamed(endpoint, ASKED)
    assert pieces == ["Good ", "day"] and (str(whole), whole.finish) == ("Good day", "stop")
    assert handler.seen[0]["stream"] is True and handler.seen[0]["max_tokens"] == 7
    for broken_off in ("length", "content_filter"):
        handler.script = (200, [{"choices": []}, chunk("Go"), chunk(finish=broken_off), "[DONE]"])
        assert list(streamed(endpoint, ASKED))[-1].finish == "length"


@pytest.mark.parametrize(
    ("status", "events", "fault", "mention"),
    [
        (200, [chunk("Good ")], ChatFailedError, "broke off"),
        (200, [chunk("Good "), {"error": {"message": "out of memory"}}], ChatFailedError, "out of memory"),
        (200, [chunk("Good "), "{nonsense"], ChatFailedError, "JSONDecodeError"),
        (200, [{"choices": 3}], ChatFailedError, "TypeError"),
        (429, [], ChatFailedError, "status 429"),
        (401, [], UserError, "status 401"),
    ],
)
def test_half_an_answer_is_never_taken_for_one(served, status, events, fault, mention):
    handler, endpoint = served
    handler.script = (status, events)
    with pytest.raises(fault, match=mention):
        list(streamed(endpoint, ASKED))


def test_nobody_there():
    with pytest.raises(ChatFailedError, match="refused"):
        list(streamed(Endpoint("openai", "http://127.0.0.1:9/v1", "m"), ASKED))
