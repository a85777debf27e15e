"""`tutelage serve --model CHECKPOINT`: the pages, and OpenAI's HTTP API for local checkpoints, on one port."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.cli.chat import gather_models, short_names
from tutelage.cli.options import parse_words
from tutelage.configs.base import Dtype, invalid, require_device
from tutelage.errors import UserError
from tutelage.serving.listening import listen, trusted_proxies


@dataclass(kw_only=True, frozen=True)
class ServeOptions:
    """Serve the pages where people label, and checkpoints over OpenAI's API (/v1/chat/completions, /v1/completions,
    /v1/models), on one port."""

    model: tuple[str, ...] = ("world",)
    """Checkpoints: Hugging Face folders, run folders, or `world`; NAME=FOLDER sets the name that clients use."""
    host: str = "127.0.0.1"
    """Address to listen on. On this machine only, nobody needs an account; elsewhere (0.0.0.0) the pages demand
    accounts and the API tokens."""
    port: int = 8000
    """0 takes a free one."""
    store: str = "feedback.db"
    """The labels: a SQLite file, made where there is none, or postgresql://user@host/name."""
    runs: str = "runs"
    """The folder of runs, for the pages that compare, chat and train."""
    accounts: bool = False
    """Demand accounts and tokens on this machine too."""
    trusted_proxy: tuple[str, ...] = ()
    """The address or network of a TLS proxy in front, as 127.0.0.1 or 172.30.0.0/24: what it says of the client's address
    and of https is believed, and accounts are demanded."""
    batch_size: int = 64
    """Answers decoded together, for each model; more wait."""
    dtype: Dtype = "auto"
    """Compute type; `auto` is bfloat16 where the GPU or processor has it."""
    device: str = "auto"
    """Where models compute: cpu, cuda, cuda:N, or auto: a GPU if there is one."""
    workers: int = 1
    """More than one is refused: a model is in one process's memory (`tutelage feedback serve` has several)."""

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError("names no model", where="option --model", mend="give --model FOLDER")
        if not 0 <= self.port <= 65535:
            raise invalid("port", self.port, "give a number from 0 to 65535")
        require_device(self.device)
        trusted_proxies(self.trusted_proxy)
        if self.batch_size < 1:
            raise invalid("batch_size", self.batch_size, "give a number above zero")
        if self.workers != 1:
            what = f"{self.workers} processes cannot share the models, which are in one's memory"
            mend = "leave it out, or serve the pages alone: tutelage feedback serve --workers N"
            raise UserError(what, where="option --workers", mend=mend)


def main(verb: str, arguments: list[str]) -> None:
    options = parse_words(ServeOptions, "serve", gather_models(arguments))
    models = named(options.model)
    with listen(options.host, options.port) as listener:
        from tutelage.feedback import Store
        from tutelage.feedback.jobs_run import working
        from tutelage.serving.server import serve
        from tutelage.web.one_port import OnePort
        from tutelage.web.server import is_local, welcome
        from tutelage.workbench.bench import Workbench

        bench = Workbench(Path(options.runs).expanduser(), device=options.device, served=dict(models))
        proxies = trusted_proxies(options.trusted_proxy)
        store, local = Store.open(options.store), is_local(options.host, options.accounts or bool(proxies))

        def with_pages(api: Any, address: str) -> OnePort:
            print(f"pages: {address}/ (labels in {options.store})", file=sys.stderr, flush=True)
            welcome(store, address, local)
            return OnePort(api, store, local=local, workbench=bench)

        with working(store):
            serve(models, listener, options.batch_size, options.dtype, options.device, with_pages, proxies)


def named(specs: tuple[str, ...]) -> list[tuple[str, str]]:
    """(name, folder) of each model: the name that was given, or the part of the path that says which it is."""
    folders = [name for spec in specs if "=" not in spec for name in [spec]]
    short = dict(zip(folders, short_names(tuple(folders)), strict=True))
    pairs = [(spec.partition("=")[0], spec.partition("=")[2]) if "=" in spec else (short[spec], spec) for spec in specs]
    names = [name for name, _ in pairs]
    for name in names:
        if not name or names.count(name) > 1:
            what = f"two models are named {name!r}" if name else "a model's name is empty"
            raise UserError(what, where="option --model", mend="give NAME=FOLDER")
    return pairs
