"""The server's socket, bound before anything heavy is imported: a taken port is told at once."""

import ipaddress
import socket
from collections.abc import Sequence

from tutelage.errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said to be TCP's, or asyncio leaves Nagle's algorithm on: each reply would wait 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # without it, Linux lets a second server bind the port, too
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(
            f"cannot listen there ({getattr(error, 'strerror', None) or error})",
            where=f"{host}, port {port}",
            mend="stop what uses the port, or choose another with --port",
        ) from error
    return listener


def trusted_proxies(words: Sequence[str]) -> list[str]:
    """Addresses and networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    found = []
    for word in words:
        try:
            network = ipaddress.ip_network(word, strict=False)
        except ValueError as error:
            mend = "give the proxy's address or network, as 127.0.0.1 or 172.30.0.0/24"
            raise UserError(f"{word!r} is no address", where="option --trusted-proxy", mend=mend) from error
        if network.prefixlen == 0:
            mend = "name the proxy; anybody could say to be another"
            raise UserError("trusts everybody", where="option --trusted-proxy", mend=mend)
        found.append(str(network.network_address) if network.num_addresses == 1 else str(network))
    return found
