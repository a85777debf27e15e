"""Functions on several processes, as torchrun would start them: forked, so that nothing is imported anew."""

import os
import pickle
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run_on(count: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work` returns on each of `count` processes; a failure of one fails here, with its traceback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            os._exit(_child(folder / f"result-{count}-{rank}", work, arguments))
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    found = [pickle.loads((folder / f"result-{count}-{rank}").read_bytes()) for rank in range(count)]
    failures = [value for good, value in found if not good]
    assert not failures, "\n".join(failures)
    return [value for _, value in found]


def _child(path: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    from tutelage.engine import distributed

    try:
        result = (True, work(*arguments))
        distributed.close()
    except BaseException:
        result = (False, traceback.format_exc())
    path.write_bytes(pickle.dumps(result))
    return 0
