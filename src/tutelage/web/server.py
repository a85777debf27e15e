"""Listens and serves the pages until Ctrl-C."""

import socket
import sys

import uvicorn

from tutelage.errors import UserError
from tutelage.feedback import Store, people
from tutelage.web.app import create_app
from tutelage.workbench.bench import Workbench

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(store: Store, host: str, port: int, *, accounts: bool, workbench: Workbench | None = None) -> None:
    """On loopback nobody needs an account unless `accounts`; elsewhere everybody does."""
    local = is_local(host, accounts)
    with _listen(host, port) as listener:
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        print(f"feedback: {address}/ (Ctrl-C stops)", file=sys.stderr)
        welcome(store, address, local)
        app = create_app(store, local=local, workbench=workbench)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listener])


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


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a taken port is the user's message and no traceback."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(
            f"cannot listen there ({error})", where=f"{host}, port {port}", mend="choose another with --port"
        ) from error
    return listener
