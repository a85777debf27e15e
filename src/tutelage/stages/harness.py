"""EleutherAI's lm-eval on a model, by its own command: local task files, or tasks that it knows by name.

A checkpoint goes through its `hf` backend; a model behind a URL (`tutelage serve` too) through `local-chat-completions`,
which has no log-probabilities, so that only tasks with written answers run there. Those are asked in a chat; where one
of the models is behind a URL, checkpoints are asked in theirs, so that all read the same.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from tutelage.engine.device import resolve_device
from tutelage.errors import UserError
from tutelage.evaluation.behaviors import rate
from tutelage.evaluation.intervals import mean_interval
from tutelage.judges.chats import Endpoint, open_chat
from tutelage.models import resolve

PREFIX = "lm-eval:"  # of TASK/METRIC among the behaviors
DTYPES = {"float32": "float32", "bfloat16": "bfloat16"}
FAR = ("openai:", "anthropic:")
SCORED = ("loglikelihood", "loglikelihood_rolling", "multiple_choice")  # kinds of tasks that nothing is written in
CHATS_WRITE = "give tasks with written answers (output_type: generate_until), or the checkpoint itself"
INSTALL = "pip install 'tutelage[lm-eval]'"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@dataclass
class Scores:
    """rates: as of the other behaviors, by lm-eval:TASK/METRIC; outcomes: by document, where it has them."""

    rates: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, float]] = field(default_factory=dict)


def far(models: Sequence[str]) -> list[str]:
    """Those of NAME=MODEL that are behind a URL."""
    return [one for one in models if any(s.startswith(FAR) for s in (one, one.partition("=")[2]))]


def check_harness(specs: Sequence[str], models: Sequence[str]) -> None:
    """A UserError where tasks need lm-eval and it is not installed, a task file does not exist, or a chat cannot do it."""
    for spec in specs:
        if spec.endswith((".yaml", ".yml")):
            kind = _read_task(Path(spec).expanduser()).get("output_type")
            if kind in SCORED and (chats := far(models)):
                raise UserError(
                    f"needs log-probabilities of texts ({kind}), which no chat gives",
                    where=f"option --tasks {spec} on {chats[0]}",
                    mend=CHATS_WRITE,
                )
    if specs and importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "lm-eval is not installed",
            where=f"option --tasks {specs[0]}",
            mend=f"{INSTALL}, or give world, or a file of questions (.jsonl)",
        )


def _read_task(path: Path) -> dict[str, Any]:
    """A task file of lm-eval; its key `task` is the task's name."""
    try:
        held = yaml.load(path.read_text(encoding="utf-8"), Loader=_AnyTag)
    except FileNotFoundError:
        raise UserError("there is no such file", where=f"option --tasks {path}", mend="give a task file") from None
    except yaml.YAMLError as error:
        raise UserError(f"is not YAML ({error})", where=str(path), mend="give a task file of lm-eval") from None
    name = held.get("task", held.get("group")) if isinstance(held, dict) else None
    if not isinstance(name, str):
        raise UserError("names no task", where=str(path), mend="give a task file of lm-eval, with the key task")
    return {**held, "task": name}


class _AnyTag(yaml.SafeLoader):
    """Reads lm-eval's `!function module.name` as text; nothing of it is run here."""


_AnyTag.add_multi_constructor("!", lambda loader, tag, node: f"{tag} {node.value}")


def run_harness(
    spec: str, tasks: Sequence[str], folder: Path | None, dtype: str, device: str, *, in_chat: bool = False
) -> Scores:
    """Every task on one model; lm-eval's results stay in `folder`, where there is one. Files alone need no network.

    in_chat: put each document into the chat template of a checkpoint, as an endpoint does.
    """
    groups: dict[Path | None, list[str]] = {}  # lm-eval takes one folder of task files at a time
    for one in tasks:
        path = Path(one).expanduser()
        if path.suffix in (".yaml", ".yml"):
            groups.setdefault(path.absolute().parent, []).append(_read_task(path)["task"])
        else:
            groups.setdefault(None, []).append(one)
    found = Scores()
    with TemporaryDirectory() as scratch:
        for number, (place, names) in enumerate(groups.items()):
            out = (folder or Path(scratch)) / str(number)
            words = [sys.executable, "-m", "lm_eval", *_model(spec, dtype, device, in_chat), "--tasks", ",".join(names)]
            words += ["--output_path", str(out), "--log_samples", *(["--include_path", str(place)] if place else [])]
            scores = _run(words, {**OFFLINE, **os.environ} if place else dict(os.environ), out, spec)
            found.rates |= scores.rates
            found.outcomes |= scores.outcomes
    return found


def _run(words: list[str], environment: dict[str, str], out: Path, spec: str) -> Scores:
    started = time.time()
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    # A folder that an earlier evaluation left holds its results too.
    fresh = [path for path in out.rglob("results*.json") if path.stat().st_mtime >= started - 1]
    if done.returncode or not fresh:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        mend = INSTALL if "No module named" in said else CHATS_WRITE if "oglikelihood" in said else "mend what it says"
        mend += "; the command was: " + " ".join(words)
        raise UserError(f"lm-eval did not finish: {said}", where=f"--tasks on {spec}", mend=mend)
    return read_scores(max(fresh, key=lambda path: path.stat().st_mtime))


def _model(spec: str, dtype: str, device: str, in_chat: bool) -> list[str]:
    if spec.startswith(FAR):
        chat = open_chat(spec)
        assert isinstance(chat, Endpoint)
        if chat.kind != "openai":
            raise UserError("lm-eval asks OpenAI's API", where=spec, mend="give openai:URL#MODEL, or a checkpoint")
        about = f"model={chat.model},base_url={chat.url}/chat/completions,num_concurrent=4,max_retries=3"
        return ["--model", "local-chat-completions", "--model_args", about, "--apply_chat_template"]
    path, there = resolve(spec.removeprefix("local:")), str(resolve_device(device))
    about = f"pretrained={path},dtype={DTYPES.get(dtype, 'auto')}"
    template = ["--apply_chat_template"] if in_chat else []
    return ["--model", "hf", "--model_args", about, "--device", there, *template]


def read_scores(results: Path) -> Scores:
    """lm-eval's results file and the samples beside it."""
    held = json.loads(results.read_text(encoding="utf-8"))
    stamp = results.name.removeprefix("results_").removesuffix(".json")
    found = Scores()
    for task, scores in held["results"].items():
        samples = results.with_name(f"samples_{task}_{stamp}.jsonl")
        rows = [json.loads(line) for line in samples.read_text("utf-8").splitlines()] if samples.is_file() else []
        for key, value in scores.items():
            metric, _, filtered = key.partition(",")
            if isinstance(value, bool) or not isinstance(value, int | float) or metric.endswith("_stderr"):
                continue
            if metric in ("sample_len", "sample_count"):
                continue
            name = f"{PREFIX}{task}/{metric}" + ("" if filtered in ("", "none") else f",{filtered}")
            by_document = _by_document(rows, metric, filtered)
            if by_document:
                found.outcomes[name] = by_document
            found.rates[name] = _entry(float(value), by_document, scores.get(f"{metric}_stderr,{filtered}"))
    if not found.rates:
        raise UserError("holds no score", where=str(results), mend="choose a task with a metric")
    return found


def _by_document(rows: Sequence[Mapping[str, Any]], metric: str, filtered: str) -> dict[str, float]:
    """A metric of each document, where the task has it for single ones (a corpus' BLEU has none)."""
    mine = [row for row in rows if row.get("filter", filtered) == filtered]
    values = {str(row["doc_id"]): row.get(metric) for row in mine}
    numbers = {name: float(v) for name, v in values.items() if isinstance(v, int | float)}
    return numbers if len(numbers) == len(values) else {}


def _entry(value: float, by_document: Mapping[str, float], error: Any) -> dict[str, Any]:
    """lm-eval's value, with Wilson's interval where documents are 0 or 1, Student's t for other numbers, else its own error."""
    values = [*by_document.values()]
    if values and set(values) <= {0.0, 1.0} and abs(sum(values) / len(values) - value) < 1e-6:
        return rate(values)
    if len(values) > 1 and abs(sum(values) / len(values) - value) < 1e-6:
        _, low, high = mean_interval(values)
        return {"value": value, "ci95": [low, high], "prompts": len(values)}
    ends = [value - 1.96 * error, value + 1.96 * error] if isinstance(error, int | float) else None
    return {"value": value, "ci95": ends, "prompts": len(values) or None}
