"""`tutelage serve`: load the checkpoints, listen, stop in good order."""

import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn

from tutelage.models import load_policy, resolve
from tutelage.serving.app import Served, make_app

LAST_SECONDS = 10  # that running requests get at the end


def serve(
    models: Sequence[tuple[str, str]],
    listener: socket.socket,
    batch_size: int,
    dtype: str,
    device: str,
    around: Callable[[Any, str], Any],
    proxies: Sequence[str] = (),
) -> None:
    """Serve (name, checkpoint) pairs on a bound socket until SIGTERM or Ctrl-C.

    around: gets the API's application and the address, and returns the application that is served.
    proxies: whose word on the client's address and scheme is believed.
    """
    for _, path in models:
        resolve(path)
    served = [Served(name, load_policy(path, dtype, device=device), batch_size) for name, path in models]
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(
        f"serving {', '.join(name for name, _ in models)} at {address}/v1 (Ctrl-C stops)", file=sys.stderr, flush=True
    )
    app = around(make_app(served), address)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=LAST_SECONDS,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
    )
    # uvicorn raises the signal again once it has stopped; that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listener])
