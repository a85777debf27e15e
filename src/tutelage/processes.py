"""Which of several processes this is, as `torchrun` says it in the environment; without it there is one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

_alone = False
_in_step = False


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """This process' number on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def launched() -> int:
    """How many processes were started, whatever this one now does by itself."""
    return int(os.environ.get("WORLD_SIZE", 1))


def world_size() -> int:
    return 1 if _alone else launched()


@contextmanager
def alone() -> Iterator[None]:
    """Work that one process does by itself while the others wait: nothing in it is divided."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def is_main() -> bool:
    """Whether this process writes the run and speaks to the user."""
    return rank() == 0


def keep_step(together: bool) -> None:
    """Whether the processes make their passes together from now on: a model of theirs is sharded."""
    global _in_step
    _in_step = together


def in_step() -> bool:
    return _in_step


@contextmanager
def out_of_step() -> Iterator[None]:
    """Work in which the processes need nothing of each other's models."""
    global _in_step
    before, _in_step = _in_step, False
    try:
        yield
    finally:
        _in_step = before


@contextmanager
def one_voice() -> Iterator[None]:
    """Only the main process prints what all of them have to say; an error of any is printed after this."""
    if is_main():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
