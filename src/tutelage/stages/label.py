"""Labels for completions: simulated labelers, a reward model or a language model rank the K completions of each prompt."""

import random
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from tutelage.configs import LabelConfig
from tutelage.data.formats import check_file, read_rows, write_jsonl
from tutelage.data.validation import record_of
from tutelage.errors import UserError
from tutelage.evaluation.reward_card import share_interval
from tutelage.judges.cache import Cache
from tutelage.judges.llm import LLMJudge
from tutelage.judges.rankers import Ranker, ScoreRanker
from tutelage.records import Comparison, Completion, Prompt
from tutelage.runs import Progress

READ = (Prompt.schema_name, Completion.schema_name)
KINDS = "world:PANEL, model:CHECKPOINT (a reward model), openai:URL#MODEL, anthropic:MODEL or local:CHECKPOINT"


def run(config: LabelConfig) -> dict[str, Any]:
    """Rank a file of prompts and completions (`tutelage sample` writes one), or a project's items."""
    if config.project is not None:
        from tutelage.stages.label_queue import step_scorer, take_all

        scorer = step_scorer(config.by, config.device)
        return take_all(
            config, config.project, [scorer] if scorer is not None else open_rankers(config.by, config.device)
        )
    rankers = open_rankers(config.by, config.device)
    out = Path(config.out or "runs/comparisons.jsonl").expanduser()
    check_file(out, config.data)
    if config.data == "world":
        mend = "tutelage sample --samples 4 --out FILE, then --data FILE"
        raise UserError("the world has no completions by itself", where="option --data (data)", mend=mend)
    prompts, groups = read_completions(Path(config.data))
    rng = random.Random(f"label {config.seed}")
    records: list[Comparison] = []
    agreements: list[bool] = []
    pairs_of: list[str] = []  # the prompt of each of them
    known_of: list[str] = []
    known: list[bool] = []  # whether a labeler without noise or tastes would have said the same
    truth = _truth(config)
    with Progress(len(groups), "label", unit="prompt") as bar:
        for number, (prompt_id, group) in enumerate(groups.items(), 1):
            prompt = prompts[prompt_id]
            texts, finishes = [c.text for c in group], [c.finish for c in group]
            drawn = rng.sample(rankers, min(2, len(rankers)))
            first, second = drawn[0], drawn[1] if len(drawn) > 1 else None
            ranks = first.rank(prompt, texts, finishes, rng)
            records.append(
                Comparison(
                    id=f"{prompt_id}-{first.id}",
                    prompt_id=prompt_id,
                    completion_ids=[c.id for c in group],
                    ranks=list(ranks),
                    labeler=first.id,
                    messages=prompt.messages,
                    completions=texts,
                    category=prompt.category,
                )
            )
            if second is not None and rng.random() < config.overlap:  # agreement is measured where two labelers rank
                agreements += _same_order(ranks, second.rank(prompt, texts, finishes, rng))
                pairs_of += [prompt_id] * (len(agreements) - len(pairs_of))
                if truth is not None:
                    known += _same_order(ranks, truth.rank(prompt, texts, finishes, random.Random(0)))
                    known_of += [prompt_id] * (len(known) - len(known_of))
            bar.update(number)
    write_jsonl(out, records)
    return {
        "stage": "label",
        "out": str(out),
        "comparisons": len(records),
        "labelers": len(rankers),
        "agreement": sum(agreements) / len(agreements) if agreements else None,
        "agreement_ci95": share_interval(agreements, pairs_of),
        "ceiling": sum(known) / len(known) if known else None,
        "ceiling_ci95": share_interval(known, known_of),
        "agreement_pairs": len(agreements),
    }


def open_rankers(by: str, device: str = "auto") -> Sequence[Ranker]:
    """The labelers that `--by` names: a panel of the world, or one model.

    What a language model said is kept in runs/labels.jsonl and not asked again.
    """
    kind, _, rest = by.partition(":")
    if kind == "world":
        from tutelage.world.labelers import panel

        return panel(rest or "fair")
    if kind == "model" and rest:
        from tutelage.judges.reward import reward_judge

        return [ScoreRanker(Path(rest).name, reward_judge(rest, device=device))]
    if kind in ("openai", "anthropic", "local") and rest:
        from tutelage.judges.chat_labeler import ChatLabeler
        from tutelage.judges.chats import open_chat

        return [ChatLabeler(rest, LLMJudge(open_chat(by, device=device), Cache(Path("runs/labels.jsonl"))))]
    raise UserError(f"unknown labeler {by!r}", where="option --by (by)", mend=f"use {KINDS}")


def _truth(config: LabelConfig) -> Ranker | None:
    """Who labels the world's prompts without noise or tastes."""
    if not config.by.startswith("world"):
        return None
    from tutelage.world.labelers import Labeler, Tastes

    return Labeler("truth", Tastes(noise=0.0))


def _same_order(a: Sequence[int], b: Sequence[int]) -> list[bool]:
    """For each pair that both order: whether they order it alike."""
    pairs = combinations(range(len(a)), 2)
    return [(a[i] < a[j]) == (b[i] < b[j]) for i, j in pairs if a[i] != a[j] and b[i] != b[j]]


def read_completions(path: Path, least: int = 2) -> tuple[dict[str, Prompt], dict[str, list[Completion]]]:
    """Prompts by id, and the completions of each that has `least` or more, of a file that `tutelage sample` wrote."""
    prompts: dict[str, Prompt] = {}
    groups: dict[str, list[Completion]] = {}
    for number, row in read_rows(path):
        record = record_of(row, f"{path}, row {number}") if row.get("schema") in READ else None
        if isinstance(record, Prompt):
            prompts[record.id] = record
        elif isinstance(record, Completion):
            groups.setdefault(record.prompt_id, []).append(record)
        else:
            raise UserError(
                "is neither a prompt nor a completion",
                where=f"{path}, row {number}",
                mend="give a file that `tutelage sample` wrote",
            )
    if orphan := next((name for name in groups if name not in prompts), None):
        what, mend = f"has completions of a prompt {orphan!r} that it does not hold", "put the prompt's row into it"
        raise UserError(what, where=str(path), mend=mend)
    found = {name: group for name, group in groups.items() if len(group) >= least}
    if not found:
        words, mend = ("two completions", "sample with --samples 4") if least > 1 else ("a completion", "sample first")
        raise UserError(f"has no prompt with {words}", where=str(path), mend=mend)
    if len(found) < len(groups):
        print(f"{path.name}: {len(groups) - len(found)} prompts have one completion alone: left out", file=sys.stderr)
    return prompts, found
