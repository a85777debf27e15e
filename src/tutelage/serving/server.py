"""`tutelage serve`: load the checkpoints, listen, stop in good order."""

import signal
import socket
import sys
from collections.abc import Sequence

import uvicorn

from tutelage.errors import UserError
from tutelage.models import load_policy, resolve
from tutelage.serving.app import Served, make_app

LAST_SECONDS = 10  # that running requests get at the end


def serve(models: Sequence[tuple[str, str]], host: str, port: int, batch_size: int, dtype: str) -> None:
    """Serve (name, checkpoint) pairs until SIGTERM or Ctrl-C."""
    for _, path in models:
        resolve(path)
    with listen(host, port) as listener:
        served = [Served(name, load_policy(path, dtype), batch_size) for name, path in models]
        address = f"http://{host}:{listener.getsockname()[1]}"
        print(f"serving {', '.join(name for name, _ in models)} at {address}/v1 (Ctrl-C stops)", file=sys.stderr)
        config = uvicorn.Config(
            make_app(served), log_level="warning", access_log=False, timeout_graceful_shutdown=LAST_SECONDS
        )
        # uvicorn raises the signal again once it has stopped; that is no failure.
        signal.signal(signal.SIGTERM, lambda *_: None)
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a taken port is told before any model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"cannot listen there ({error.strerror or error})",
            where=f"{host}, port {port}",
            mend="stop what uses the port, or choose another with --port",
        ) from error
    return listener
