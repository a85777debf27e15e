"""Strings that end an answer, found in its text as tokens come, wherever the borders of tokens lie."""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what a part of a character decodes to
TOKENS_A_BYTE = 4  # a byte of text is spread over fewer tokens than this


class StopStrings:
    """decode: token ids to text. Within the first `held` tokens no string ends an answer."""

    def __init__(self, strings: Sequence[str], decode: Callable[[list[int]], str], held: int = 0):
        self.strings, self.decode, self.held = list(strings), decode, held
        self.window = TOKENS_A_BYTE * max((len(s.encode()) for s in strings), default=0)
        self.known: dict[int, bool] = {}

    def cut(self, tokens: list[int]) -> int | None:
        """How many characters stand before the first string, where the newest token completes one; else None."""
        if len(tokens) <= self.held or not self._may_complete(tokens[-1]):
            return None
        tail = self.decode(tokens[-self.window :])
        if not any(s in tail for s in self.strings):
            return None
        text, before = self.decode(tokens), len(self.decode(tokens[: self.held]))
        found = (text.find(s, max(0, before - len(s) + 1)) for s in self.strings)
        return min((at for at in found if at >= 0), default=None)

    def _may_complete(self, token: int) -> bool:
        """Whether a string can end in this token: only such a token's row is decoded."""
        if token not in self.known:
            text = self.decode([token])
            # Some tokenizers take the space off a lone token: a string that ends in one may end anywhere.
            self.known[token] = REPLACEMENT in text or any(s[-1] in text or s[-1].isspace() for s in self.strings)
        return self.known[token]
