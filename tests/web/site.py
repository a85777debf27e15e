"""What the web tests share: a filled store, and a client that keeps its cookie and knows its token."""

import atexit
import re
from functools import cache

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import create_project
from tutelage.records import Completion, Prompt

PASSWORD = "a long password"
on_both = pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)  # databases


def fill(store, prompts=4):
    """Projects `round-1` (rank), `texts` (write) and `proofs` (steps)."""
    asked = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"Question {i}?"}]) for i in range(prompts)]
    drawn = [
        Completion(id=f"p{i}-{k}", prompt_id=f"p{i}", text=f"Answer {k} to {i}.", model="secret-model-name")
        for i in range(prompts)
        for k in range(4)
    ]
    proof = Completion(id="proof", prompt_id="p0", text="one\ntwo\nthree\nfour")
    with store.write() as db:
        import_records(db, create_project(db, "Round 1", overlap=2, instructions="Be fair."), asked, drawn)
        import_records(db, create_project(db, "Texts"), asked[:2], [], "demonstrate")
        import_records(db, create_project(db, "Proofs"), asked[:1], [proof], "steps")


@cache
def loop():
    """One event loop for all clients, in a thread."""
    started = start_blocking_portal("asyncio")
    atexit.register(started.__exit__, None, None, None)
    return started.__enter__()


class Parts(httpx.AsyncByteStream):
    """A body, part by part."""

    def __init__(self, parts):
        self.parts = parts

    async def __aiter__(self):
        for part in self.parts:
            yield part


class Straight(httpx.BaseTransport):
    """Gives a request to an application in one turn of the loop (Starlette's TestClient changes threads seven times)."""

    def __init__(self, app):
        self.app = httpx.ASGITransport(app, raise_app_exceptions=False, client=("testclient", 50000))

    def handle_request(self, request):
        return loop().call(self._reply, request)

    async def _reply(self, request):
        asked = httpx.Request(request.method, request.url, headers=request.headers, stream=Parts(request.stream))
        reply = await self.app.handle_async_request(asked)
        return httpx.Response(reply.status_code, headers=reply.headers, stream=httpx.ByteStream(await reply.aread()))


class Browser:
    """A client that keeps its cookie and knows its token."""

    def __init__(self, app, base="http://testserver"):
        self.http = httpx.Client(transport=Straight(app), base_url=base)
        self.http.app = app
        self.csrf = ""

    def get(self, path, **options):
        reply = self.http.get(path, **options)
        if found := re.search(r'data-csrf="([^"]+)"', reply.text):
            self.csrf = found.group(1)
        return reply

    def form(self, path, **fields):
        return self.http.post(path, data={"csrf": self.csrf, **fields})

    def send(self, path, body):
        headers = {"x-csrf-token": self.csrf, "accept": "application/json"}
        return self.http.post(path, json=body, headers=headers)

    def next(self, project="round-1"):
        """The next item as a program sees it, or None."""
        number = self.get(f"/p/{project}/next", headers={"accept": "application/json"}).json()["task"]
        return number and self.get(f"/t/{number}", headers={"accept": "application/json"}).json()
