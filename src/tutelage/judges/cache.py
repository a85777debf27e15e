"""What was paid for is kept: a JSON Lines file, appended to as replies come."""

import hashlib
import json
import threading
from pathlib import Path
from typing import Any


class Reply(str):
    """What a model said; finish is "stop", or "length" where it was cut off."""

    finish: str

    def __new__(cls, text: str, finish: str = "stop") -> "Reply":
        made = super().__new__(cls, text)
        made.finish = finish
        return made


class Cache:
    """Replies by key. A line that a kill cut off is dropped; a reply once written is never asked for again."""

    def __init__(self, path: Path | None):
        self.path = path
        self.known: dict[str, Reply] = {}
        self.lock = threading.Lock()
        if path is not None and path.exists():
            text = path.read_text()
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                path.write_text(whole)
            for line in whole.split("\n"):
                if line:
                    row = json.loads(line)
                    self.known[row["key"]] = Reply(row["text"], row["finish"])

    def get(self, key: str) -> Reply | None:
        return self.known.get(key)

    def put(self, key: str, reply: Reply, **about: Any) -> None:
        row = {"key": key, "text": reply, "finish": reply.finish, **about}
        with self.lock:
            self.known[key] = reply
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with open(self.path, "a") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def key_of(*parts: Any) -> str:
    """A key over JSON values: who is asked, what, with which answers in which order."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()
