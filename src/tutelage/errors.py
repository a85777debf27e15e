"""The one error a user can mend: what is wrong, where, and what to change.

The command line prints a `UserError` as one message without a traceback and exits with status 2.
Everything else that escapes is a failure of ours (status 1).
"""

from difflib import get_close_matches


class UserError(Exception):
    """Bad input or configuration.

    what: the fault in one clause ("ranks has 1 entry for 2 completions").
    where: file, row, field or option ("pairs.jsonl, row 3, field ranks").
    mend: what to do about it ("give one rank, or null, for each completion").
    """

    def __init__(self, what: str, *, where: str | None = None, mend: str | None = None):
        self.what, self.where, self.mend = what, where, mend
        super().__init__(self.message)

    @property
    def message(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f"\n  mend: {self.mend}" if self.mend else ""
        return f"{place}{self.what}{mend}"


def did_you_mean(word: str, known: list[str]) -> str:
    """` (did you mean X?)` for the nearest known name, or the empty string."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""
