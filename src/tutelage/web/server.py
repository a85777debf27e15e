"""Listens and serves the pages until Ctrl-C."""

import gc
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import uvicorn

from tutelage.feedback import Store, people
from tutelage.feedback.jobs_run import working
from tutelage.web.app import create_app
from tutelage.web.workers import Workers
from tutelage.workbench.bench import Workbench

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    store: Store,
    host: str,
    listener: socket.socket,
    *,
    accounts: bool,
    workbench: Workbench | None = None,
    proxies: Sequence[str] = (),
    workers: int = 1,
) -> None:
    """On loopback nobody needs an account unless `accounts`, or a proxy brings others in; elsewhere everybody does.

    Takes the bound socket over. proxies: whose word on the client's address and scheme is believed.
    workers: with several, each a process of its own, what they share is in the store: there is no workbench.
    """
    local = is_local(host, accounts or bool(proxies))
    with listener:
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        print(f"feedback: {address}/ (Ctrl-C stops)", file=sys.stderr)
        welcome(store, address, local)
        answer = partial(_answer, store, listener, local, workbench if workers == 1 else None, proxies)
        if workers == 1:
            answer()
            return
        if local:
            with store.write() as db:
                people.local_person(db)  # once, before workers find at the same time that there is none
        store.close()  # no connection is shared: each worker opens its own
        Workers(workers, answer).run()


def _answer(
    store: Store, listener: socket.socket, local: bool, workbench: Workbench | None, proxies: Sequence[str]
) -> None:
    app = create_app(store, local=local, workbench=workbench)
    gc.collect()
    gc.freeze()  # what is there for good is not looked through again and again, while all pages wait
    # uvicorn raises the signal again once it has stopped; the jobs must get back into the queue first.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with working(store):
        uvicorn.Server(configured(app, proxies)).run(sockets=[listener])


def configured(app: Any, proxies: Sequence[str]) -> uvicorn.Config:
    """What anybody but a trusted proxy says of the client's address and of https is not believed."""
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # addresses hold invitations
        timeout_graceful_shutdown=5,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
    )


def is_local(host: str, accounts: bool) -> bool:
    """Whether nobody needs an account: only this machine can reach the server, and none were asked for."""
    return host in LOOPBACK and not accounts


def welcome(store: Store, address: str, local: bool) -> None:
    """Where accounts are needed and there is no administrator, print the link that makes the first one."""
    if local:
        return
    with store.write() as db:
        if not people.has_admin(db):
            token = people.invite(db, "admin", None)
            print(f"feedback: make the first account at {address}/join/{token}", file=sys.stderr, flush=True)
