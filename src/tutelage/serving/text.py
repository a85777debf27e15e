"""From tokens to text as they come: whole characters only, and nothing past a stop string."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

REPLACEMENT = "\ufffd"


class Text:
    """The text of a growing token list, equal to decoding them all at once.

    `context`: tokens before the text, for tokenizers that write a word's first space only after others.
    With `live` False nothing is decoded before `close`, unless a stop string asks for it. No stop string ends within
    the first `held` tokens.
    """

    def __init__(
        self,
        tokenizer: Any,
        stops: Sequence[str] = (),
        context: Sequence[int] = (),
        *,
        live: bool = True,
        held: int = 0,
    ):
        self.tokenizer, self.stops, self.held = tokenizer, list(stops), held
        self.live = live or bool(stops)
        self.tokens = list(context)
        self.given = self.read = len(context)
        self.whole = ""
        self.ends: list[int] = []
        """Length of the text behind each token (a character of several tokens counts with its last)."""
        self.stopped = self.closed = False
        self.context = self.sent = self.searched = 0

    def push(self, token: int) -> bool:
        """Take one more token; True where a stop string has come, behind which the text is cut."""
        self.tokens.append(token)
        if self.live:
            self._decode(final=False)
            self.ends.append(len(self.whole))
            self._search()
        return self.stopped

    def take(self) -> str:
        """What can be sent now and was not yet: all but the beginning of what may become a stop string."""
        free = len(self.whole)
        if not self.stopped:
            longest = max((len(s) - 1 for s in self.stops), default=0)
            for held in range(min(longest, free), 0, -1):
                if any(stop.startswith(self.whole[free - held :]) for stop in self.stops):
                    free -= held
                    break
        piece = self.whole[self.sent : free]
        self.sent = max(self.sent, free)
        return piece

    def close(self) -> str:
        """No more tokens come: the rest of the text."""
        if not self.stopped:
            self._decode(final=True)
            self._search()
        piece = self.whole[self.sent :]
        self.sent, self.closed = len(self.whole), True
        return piece

    def covered(self) -> int:
        """How many tokens the text that was sent covers: all in the end, unless a stop string cut some off."""
        if self.closed and not self.stopped:
            return len(self.tokens) - self.given
        return min(1 + bisect_left(self.ends, self.sent), len(self.ends)) if self.sent else 0

    def _decode(self, *, final: bool) -> None:
        # The last few tokens are decoded again with the new one: some tokenizers join their texts.
        before = self._plain(self.tokens[self.context : self.read])
        after = self._plain(self.tokens[self.context :])
        if final or not after.endswith(REPLACEMENT):
            self.whole += after[len(before) :]
            self.context, self.read = self.read, len(self.tokens)

    def _plain(self, tokens: list[int]) -> str:
        if not tokens:
            return ""
        return self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _search(self) -> None:
        starts = {stop: max(0, self.searched - len(stop) + 1) for stop in self.stops}
        self.searched = len(self.whole)
        if len(self.tokens) - self.given <= self.held:
            return
        found = [at for stop, start in starts.items() if (at := self.whole.find(stop, start)) >= 0]
        if found:
            self.whole, self.stopped = self.whole[: min(found)], True


class Pieces:
    """The bytes that each token of a vocabulary stands for."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.special = set(tokenizer.all_special_ids)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self.bytes_of = _byte_alphabet() if "ByteLevel" in str(getattr(backend, "decoder", "")) else None
        self.known: dict[int, bytes] = {}

    def __getitem__(self, token: int) -> bytes:
        if token not in self.known:
            self.known[token] = self._bytes(token)
        return self.known[token]

    def text(self, token: int) -> str:
        return self[token].decode("utf-8", "replace")

    def name(self, token: int) -> str:
        """A name that no other token shares: its text, or `bytes:\\xe2` where it is a part of a character."""
        try:
            return self[token].decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in self[token])

    def _bytes(self, token: int) -> bytes:
        word = self.tokenizer.convert_ids_to_tokens(token) or ""
        if token in self.special:
            return word.encode()
        if self.bytes_of is not None and all(c in self.bytes_of for c in word):
            return bytes(self.bytes_of[c] for c in word)
        if len(word) == 6 and word.startswith("<0x") and word.endswith(">"):
            return bytes([int(word[3:5], 16)])
        return word.replace("\u2581", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """The characters by which byte-level BPE writes bytes (Radford et al. 2019): printable ones stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
