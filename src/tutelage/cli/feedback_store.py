"""The store that an action of `tutelage feedback` opens."""

import os
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class StoreOptions:
    """Options of every action."""

    store: str = field(default_factory=lambda: os.environ.get("TUTELAGE_STORE", "feedback.db"))
    """A SQLite file, or postgresql://user@host/name; TUTELAGE_STORE when not given, else feedback.db."""
    json: bool = False


def open_store(options: StoreOptions, *, create: bool = False) -> Any:
    from tutelage.feedback import Store

    return Store.open(options.store, create=create)


def note(db: Any, action: str, detail: str) -> None:
    """In the store's log, as done by the command line."""
    from tutelage.feedback.store import COMMAND_LINE, audit

    audit(db, COMMAND_LINE, action, detail)
