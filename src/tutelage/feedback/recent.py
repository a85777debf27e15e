"""Sums over all items of a project, which every page asks for: those of large projects as of a moment ago."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.orm import Session as Db

MANY = 2000  # items of a project from which a sum may be old
SHORTEST, SHARE = 1.0, 50  # seconds that it stands: at least so long, and so many times what it took

T = TypeVar("T")


class Recent:
    """What was found, when, and until when it stands; of one store."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], tuple[float, Any]] = {}

    def of(self, key: tuple[str, ...], count: Callable[[], T], size: Callable[[T], int]) -> T:
        until, value = self._known.get(key, (0.0, None))
        started = time.monotonic()
        if started < until:
            return value
        value = count()
        ended = time.monotonic()
        if size(value) >= MANY:
            self._known[key] = (ended + max(SHORTEST, SHARE * (ended - started)), value)
        return value


def recent(db: Db) -> Recent:
    """That of the store whose session this is."""
    found: Recent = db.info["recent"]
    return found
