"""What keeps a store of millions quick: rows by their keys alone, and counts over a whole project now and then only."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from sqlalchemy.orm import Session as Db

T = TypeVar("T")
PART = 500  # keys in one query
MANY = 20_000  # items of a project; fewer are counted each time
GOOD_FOR = 50  # times the seconds that a count took: at most a fiftieth of a server's time goes to it
COUNTED = "counted"  # where a store's sessions share what was counted


def in_parts(keys: Iterable[T]) -> Iterator[list[T]]:
    """Each key once, so many at a time: what is asked for has a bound, and the rest of the table is not read."""
    left = iter(dict.fromkeys(keys))
    while part := list(islice(left, PART)):
        yield part


def now_and_then(db: Db, name: Hashable, count: Callable[[], T], items: Callable[[T], int]) -> T:
    """What `count` finds or, of a project of many `items`, what it found a moment ago in this process."""
    kept: dict[Hashable, tuple[float, T]] = db.info[COUNTED]
    began = time.monotonic()
    if name in kept and began < kept[name][0]:
        return kept[name][1]
    found = count()
    ended = time.monotonic()
    if items(found) >= MANY:
        kept[name] = (ended + GOOD_FOR * (ended - began), found)
    return found
