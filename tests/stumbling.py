"""A model behind HTTP that stumbles as it is told to."""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Stub:
    """A server that answers with a script: statuses (one with what it says), texts, or "half" for a body cut off."""

    def __init__(self):
        self.script, self.seen = [], []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.seen.append((self.path, dict(self.headers), body))
                step = stub.script.pop(0) if stub.script else "fine"
                step = step(body) if callable(step) else step
                if not isinstance(step, str):
                    status, why = step if isinstance(step, tuple) else (step, "no")
                    self.send_response(status)
                    self.send_header("Retry-After", "3")
                    self.end_headers()
                    self.wfile.write(json.dumps({"error": why}).encode())
                    return
                choice = {"message": {"content": step}, "finish_reason": "length" if step == "cut" else "stop"}
                reply = {"choices": [choice], "content": [{"type": "text", "text": step}], "stop_reason": "end_turn"}
                raw = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                with suppress(OSError):  # who waited may have gone
                    self.wfile.write(raw[: len(raw) // 2] if step == "half" else raw)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
