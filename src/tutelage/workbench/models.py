"""The models that the pages can use: checkpoints below the folder of runs, endpoints, and imported outputs.

A checkpoint is loaded when it is first used and kept for the next time. Different ones compute beside each other.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.judges.chats import KEYS, Chat, LocalChat, open_chat
from tutelage.records import Message
from tutelage.runs.files import read_json

MODEL_FILES = ("config.json", "adapter_config.json")  # either makes a folder a model's: whole, or adapters on one
ROLES = {"reward": "reward", "value": "reward", "process": "process"}  # what a checkpoint that answers nothing is for
KEPT = 6  # loaded checkpoints
DEEPEST = 4  # folders below the folder of runs in which checkpoints are looked for


@dataclass(frozen=True)
class Found:
    """Something that can be chosen: `spec` as `tutelage eval --models` takes it."""

    name: str
    spec: str
    role: str  # policy, reward, process, outputs, endpoint


@dataclass(frozen=True)
class Answered:
    """A local model's answer with what it cost in KL, token by token."""

    tokens: list[str]
    kl: list[float]  # log pi - log pi_ref of each token; empty without a reference
    rewards: list[float]  # the reward model's reading of each prefix; empty without one


class Models:
    """The pool. `using(spec)` is held while that model computes; `lock` guards the pool, `loading` is one at a time."""

    def __init__(self, runs: Path, dtype: str = "auto", device: str = "auto", served: Mapping[str, str] | None = None):
        self.runs, self.dtype, self.device, self.served = runs, dtype, device, served or {}
        self.lock = threading.Lock()
        self.loading = threading.RLock()  # transformers changes settings of the whole process while it loads
        self.locks: dict[str, threading.RLock] = {}
        self.chats: OrderedDict[str, LocalChat] = OrderedDict()
        self.scalars: OrderedDict[str, Any] = OrderedDict()

    def found(self) -> list[Found]:
        """The world's base, the models that are served, the checkpoints of runs, and the endpoints whose key is set."""
        runs = []
        for folder in _runs_with_checkpoints(self.runs, DEEPEST):
            about = read_json(folder / "checkpoints" / "latest" / "tutelage.json") or {}
            role = ROLES.get(str(about.get("role")), "policy")
            runs.append(Found(folder.relative_to(self.runs).as_posix(), str(folder), role))
        places = {Path(one.spec).resolve(): one for one in runs}
        served = [
            places.get(Path(spec).expanduser().resolve(), Found(name, spec, "policy"))
            for name, spec in self.served.items()
        ]
        once: dict[str, Found] = {}
        for one in (Found("world base", "world", "policy"), *served, *runs):
            once.setdefault(one.spec, one)
        rows = list(once.values())
        for kind, variable in KEYS.items():
            if os.environ.get(variable):
                rows.append(Found(f"{kind}:MODEL", f"{kind}:", "endpoint"))
        return rows

    def using(self, spec: str) -> threading.RLock:
        """The lock of one model."""
        with self.lock:
            return self.locks.setdefault(spec, threading.RLock())

    def chat(self, spec: str, *, max_tokens: int, temperature: float, seed: int) -> Chat:
        """What answers for `spec`. A local one must be used under `using(spec)`, since its settings are the caller's."""
        options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature}
        if is_endpoint(spec):
            return open_chat(spec, **options)
        with self.using(spec):
            chat = self._local(spec)
            chat.max_tokens, chat.temperature, chat.seed = max_tokens, temperature, seed
            return chat

    def policy(self, spec: str) -> Any:
        """A local model without its chat's settings."""
        return self._local(spec).policy

    def scalar(self, spec: str) -> Any:
        from tutelage.models import load_scalar

        return self._kept(self.scalars, spec, lambda: load_scalar(spec, self.dtype, device=self.device))

    def _local(self, spec: str) -> LocalChat:
        options: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        return self._kept(self.chats, spec, lambda: LocalChat(spec.removeprefix("local:"), **options))

    def _kept(self, pool: OrderedDict[str, Any], spec: str, load: Callable[[], Any]) -> Any:
        """From the pool, else loaded into it; the one that was not used for longest makes room."""
        if (found := self._found(pool, spec)) is not None:
            return found
        with self.loading:
            if (found := self._found(pool, spec)) is None:
                found = load()
                with self.lock:
                    pool[spec] = found
                    while len(pool) > KEPT:
                        pool.popitem(last=False)
            return found

    def _found(self, pool: OrderedDict[str, Any], spec: str) -> Any:
        with self.lock:
            if spec in pool:
                pool.move_to_end(spec)
            return pool.get(spec)

    def read(
        self,
        messages: Sequence[Message],
        text: str,
        *,
        policy: str = "",
        reference: str = "",
        reward: str = "",
        ended: bool = True,
    ) -> Answered:
        """An answer token by token: the KL to a reference, and the reward of each prefix.

        ended: whether the policy said the end token; where it did not, that is no part of the KL. The reward model learned to score whole answers, so that all but its last reading are hints.
        """
        import torch

        from tutelage.data.templates import render_completion
        from tutelage.engine.packing import pack
        from tutelage.judges.prefixes import pieces_of, prefix_scores

        tokens: list[str] = []
        kl: list[float] = []
        rewards: list[float] = []
        with torch.no_grad():
            if reward:
                scalar = self.scalar(reward)
                with self.using(reward):
                    (read,) = prefix_scores(scalar, [(messages, text)])
                tokens, rewards = read.pieces, read.scores
            if policy and reference:
                tokenizer = self.policy(policy).tokenizer
                rendered = render_completion(tokenizer, messages, text, ended=ended)
                start = rendered.loss_mask.index(True)
                packed, targets = pack([rendered.input_ids]), torch.arange(start, len(rendered.input_ids))
                logprobs = []
                for spec in (policy, reference):
                    with self.using(spec):
                        logprobs.append(self.policy(spec).logprobs(packed, targets)[0])
                kl = (logprobs[0] - logprobs[1]).tolist()
                tokens = tokens or pieces_of(tokenizer, rendered.input_ids[start:])
        return Answered(tokens, kl, rewards)


def checkpoint_folder(spec: str) -> Path:
    """The folder that holds a checkpoint's weights, found without loading anything."""
    if spec == "world":
        from tutelage.world import base_path

        return base_path()
    path = Path(spec.removeprefix("local:")).expanduser()
    for folder in (path, path / "checkpoints" / "latest"):
        if is_checkpoint(folder):
            return folder.resolve()
    raise UserError("is not a model folder", where=spec, mend="give a run's folder or a Hugging Face folder")


def is_checkpoint(folder: Path) -> bool:
    return any((folder / name).exists() for name in MODEL_FILES)


def is_endpoint(spec: str) -> bool:
    return spec.partition(":")[0] in KEYS and ":" in spec


def made_from(spec: str, *names: str) -> str | None:
    """The checkpoint that a local one's tutelage.json gives as the first of `names` that it has; None where it has none,
    "" where that checkpoint is not on this machine."""
    about = read_json(checkpoint_folder(spec) / "tutelage.json") or {}
    named = next((about[name] for name in names if about.get(name) not in (None, "None")), None)
    if named is None:
        return None
    path = Path(named).expanduser()
    if path.parts[-3:] == ("tutelage", "world", "base"):  # wherever the program was installed then
        return "world"
    return str(path) if is_checkpoint(path) else ""


def reference_of(spec: str) -> str:
    """The checkpoint that a policy's KL is taken against: its run's reference, else what the run started from; itself
    where it was trained from nothing, "" where the reference is not on this machine."""
    found = made_from(spec, "reference", "parent")
    return spec if found is None else found


def stages_of(spec: str, found: Sequence[Found]) -> list[Found]:
    """What a checkpoint was made from, stage by stage from the base, and it; then the others of its folder."""
    policies = [one for one in found if one.role == "policy"]
    by_folder = {checkpoint_folder(one.spec): one for one in reversed(policies)}
    chain: list[Found] = []
    at: str | None = spec
    while at:
        folder = checkpoint_folder(at)
        one = by_folder.get(folder, Found(_short_name(folder), at, "policy"))
        if one in chain:
            break
        chain.insert(0, one)
        at = made_from(at, "parent")
    family = spec.rpartition("/")[0]
    beside = [one for one in reversed(policies) if family and one.spec.rpartition("/")[0] == family]
    return [*chain, *(one for one in beside if one not in chain)]


def _short_name(folder: Path) -> str:
    """A checkpoint's folder without the parts that every run has."""
    return "/".join(part for part in folder.parts[-4:] if part not in ("checkpoints", "model"))


def run_of(spec: str, runs: Path) -> str | None:
    """The run that made a checkpoint, as a path below the folder of runs."""
    path = Path(spec).expanduser().absolute()
    for folder in (path, *path.parents):
        if (folder / "config.yaml").exists() and folder.is_relative_to(runs.absolute()):
            return folder.relative_to(runs.absolute()).as_posix()
    return None


def require_known(spec: str, known: Sequence[Found], *, anything: bool) -> str:
    """A spec that this person may use. Without `anything`, only what was found: an address typed by somebody else
    would be sent this machine's keys."""
    if anything or spec in {one.spec for one in known}:
        return spec
    raise UserError(f"{spec!r} is not among the models here", mend="choose one of the list")


def _runs_with_checkpoints(root: Path, deepest: int) -> list[Path]:
    """Folders that hold checkpoints/latest, newest first."""
    found: list[Path] = []

    def look(folder: Path, depth: int) -> None:
        if is_checkpoint(folder / "checkpoints" / "latest"):
            found.append(folder)
        elif depth:
            for inner in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
                look(inner, depth - 1)

    if root.is_dir():
        look(root, deepest)
    return sorted(found, key=lambda p: -(p / "checkpoints" / "latest").stat().st_mtime)
