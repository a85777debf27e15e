"""A claimed job in the hands of its worker: the lease is renewed in a thread, and every write makes sure of it."""

import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy.orm import Session as Db

from tutelage.feedback import jobs
from tutelage.feedback.jobs import Claim, Lost
from tutelage.feedback.store import Store, StoreUnavailable

T = TypeVar("T")
RENEWED = 5.0  # seconds between signs of life
POLL = 1.0  # seconds between looks at the store
PATIENCE = 900.0  # seconds that the store may be away


class Ending(Exception):
    """The worker ends in good order."""


def worker_name() -> str:
    """Machine, process, and what no other worker has: processes are numbered anew after a reboot."""
    return f"{socket.gethostname()[:64]}:{os.getpid()}:{secrets.token_hex(4)}"


def patiently(work: Callable[[], T]) -> T:
    """What `work` returns, tried again while the database is restarted or its disk is full."""
    last = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except StoreUnavailable as error:
            if time.monotonic() > last:
                raise
            print(f"the store: {error}; tries again", file=sys.stderr, flush=True)
            time.sleep(POLL)


class Lease:
    """`with Lease(store, claim) as lease`: the job stays this worker's in the block, or `check` and `write` say Lost."""

    def __init__(self, store: Store, claim: Claim, ending: threading.Event | None = None):
        """ending: set when the worker is to end."""
        self.store, self.claim = store, claim
        self.lost, self._over = threading.Event(), threading.Event()
        self.ending = ending or threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True, name=f"lease of job {claim.id}")

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._over.wait(RENEWED):
            try:
                if not jobs.renew(self.store, self.claim):
                    self.lost.set()
                    return
            except StoreUnavailable:
                continue  # nobody can claim it from a store that is away; and where others can, `write` finds out

    def check(self) -> None:
        """Lost, or Ending."""
        if self.lost.is_set():
            raise Lost
        if self.ending.is_set():
            raise Ending

    @contextmanager
    def write(self) -> Iterator[Db]:
        """A transaction that is made only while the job is this worker's."""
        with self.store.write() as db:
            jobs.mine(db, self.claim)
            yield db
