"""What every kind of `tutelage eval` leaves: eval.json, the page beside it, and where each model came from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.configs import EvalConfig
from tutelage.judges.prefixes import prefix_scores
from tutelage.models import ScalarModel, resolve
from tutelage.records import Prompt
from tutelage.report import write_report
from tutelage.runs import write_json
from tutelage.runs.lineage import environment, folder_hash

# What a run's report takes over from its evaluation.
CARRIED = (
    "win_rates",
    "ratings",
    "behaviours",
    "changes",
    "samples",
    "corpus_loss",
    "kl",
    "calibration",
    "rubric",
    "use_cases",
    "answers",
    "judge_agreement",
    "cost",
    "models",
    "asked",
)
LONGEST_CHAIN = 12


def add_prefixes(
    samples: Sequence[dict[str, Any]], asked: Sequence[Prompt], reward: ScalarModel, max_length: int
) -> None:
    """To each answer shown, what the reward model says of it prefix by prefix: `by_prefix`, {"pieces", "scores"}."""
    answers = [(p.messages, a) for p, row in zip(asked, samples, strict=True) for a in row["answers"].values()]
    found = prefix_scores(reward, [(messages, answer["text"]) for messages, answer in answers], max_length)
    for (_, answer), one in zip(answers, found, strict=True):
        answer["by_prefix"] = one.shown()


def write_evaluation(out: Path, result: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "eval.json", result)
    write_report(out, "eval.json")


def about(config: EvalConfig, models: Mapping[str, str]) -> dict[str, Any]:
    """What was asked, and of which models."""
    return {
        "name": "eval",
        "seed": config.seed,
        "versions": environment(),
        "asked": {"data": config.data, "split": config.split, "temperature": config.temperature},
        "models": {name: provenance(spec) for name, spec in models.items()},
    }


def provenance(spec: str) -> dict[str, Any]:
    """Of a checkpoint: its hash, what made it and from what, the newest first; of anything else its name."""
    if spec.partition(":")[0] in ("openai", "anthropic"):
        return {"source": spec, "kind": "endpoint"}
    if Path(spec).is_file():
        return {"source": spec, "kind": "outputs"}
    path = resolve(spec.removeprefix("local:"))
    chain: list[dict[str, str]] = []
    at: Path | None = path
    while at is not None and len(chain) < LONGEST_CHAIN and (file := at / "tutelage.json").is_file():
        card = json.loads(file.read_text(encoding="utf-8"))
        keys = ("stage", "data", "reward_model", "template")
        chain.append({key: card[key] for key in keys if card.get(key) is not None})
        parent = card.get("parent")
        at = Path(parent) if parent else None
        if at is not None and not at.is_dir():
            chain.append({"stage": str(parent)})
            break
    return {"source": spec, "kind": "checkpoint", "sha256": folder_hash(path), "made_by": chain}
