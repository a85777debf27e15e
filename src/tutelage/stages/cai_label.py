"""RL-CAI's labels: a model compares pairs of answers by a constitution (Bai et al. 2022, section 4.1).

The label of a pair is the probability of the first answer, from the log-probs of the options (A) and (B), as a soft
comparison that `tutelage reward` trains on. Every verdict is a row of verdicts.jsonl beside the output, written as it comes.

Departures from the paper:
1. Each pair is asked in both orders, and the log-odds are averaged: what a model feels for a letter cancels.
2. A verdict without a choice (the critic refused, looped, named no option) is left out and counted; one whose request
   failed is asked again the next time.
"""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from tutelage.configs import CAILabelConfig
from tutelage.constitutions import load_constitution
from tutelage.data.formats import check_file, write_jsonl
from tutelage.data.sources import read_whole
from tutelage.errors import UserError
from tutelage.evaluation.intervals import clustered_interval
from tutelage.judges.cache import key_of
from tutelage.judges.chats import Endpoint, open_chat
from tutelage.judges.critic import Critic
from tutelage.records import Comparison, Completion, Prompt
from tutelage.runs import Progress
from tutelage.runs.files import append_rows, whole_rows
from tutelage.stages.label import read_completions

CHUNK = 64  # pairs whose verdicts are written together
PAID = 8  # of an endpoint, whose verdicts cost money or hours: a kill loses at most so many
Row = dict[str, Any]
Pair = tuple[Prompt, Completion, Completion]


def run(config: CAILabelConfig) -> dict[str, Any]:
    """Compare the answers of a file (`tutelage sample --samples 2` writes one); returns counts and agreement."""
    # 1. Pairs of answers, the critic and its constitution.
    if config.critic is None:
        mend = "give a checkpoint's folder, openai:URL#MODEL or anthropic:MODEL"
        raise UserError("needs somebody who compares", where="option --critic (critic)", mend=mend)
    out = Path(config.out or "runs/cai-label/comparisons.jsonl").expanduser()
    check_file(out, config.data)
    constitution = load_constitution(config.constitution)
    if config.data.startswith("world"):
        mend = "tutelage sample --data world:harmful --samples 2 --out FILE, then --data FILE"
        raise UserError("the world has no completions by itself", where="option --data (data)", mend=mend)
    asked, groups = read_completions(Path(config.data))
    mixed = _with_splits(config.mix) if config.mix else []
    people = _ranked_by_people(config.human) if config.human else []
    pairs = [
        (asked[name], *pair) for name, group in groups.items() for pair in zip(group[::2], group[1::2], strict=False)
    ]
    single = sum(len(group) % 2 for group in groups.values())
    if single:
        print(f"cai-label: {single} answers are left without another one to compare with", file=sys.stderr)
    different = [pair for pair in pairs if pair[1].text != pair[2].text]
    options: dict[str, Any] = {"max_tokens": config.max_new_tokens, "seed": config.seed}
    options |= {"dtype": config.dtype, "device": config.device}
    critic = Critic(open_chat(config.critic, **options), constitution, config.think, config.clamp)

    # 2. A verdict on each, in both orders.
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = _verdicts(out.with_name("verdicts.jsonl"), critic, different, config)
    sound = [row for row in rows if row["problem"] is None]
    problems = dict(Counter(row["problem"] for row in rows if row["problem"]))
    for problem, count in problems.items():
        print(f"cai-label: {count} pairs left out: {problem}", file=sys.stderr)
    if not sound:
        said = ", ".join(f"{n} {problem}" for problem, n in problems.items()) or "all pairs hold two equal answers"
        raise UserError(
            f"no pair has a verdict ({said})", where=config.critic, mend="read verdicts.jsonl; use an abler critic"
        )

    # 3. Soft comparisons, with those of people mixed in.
    write_jsonl(out, [*map(_comparison, sound), *mixed])
    people_compared = sum(isinstance(one, Comparison) for one in mixed)
    agreement = agreement_with_people(sound, people) if people else None
    if agreement and not agreement["pairs"]:
        print(
            f"cai-label: {config.human} orders none of these pairs of answers, so no agreement is known",
            file=sys.stderr,
        )
    return {
        "stage": "cai-label",
        "out": str(out),
        "comparisons": len(sound) + people_compared,
        "ai_comparisons": len(sound),
        "human_comparisons": people_compared,
        "equal_answers": len(pairs) - len(different),
        "single_answers": single,
        "left_out": problems,
        "hard_labels": sum(row["hard"] for row in sound),
        "principles": _principles(rows, people),
        "agreement_with_people": agreement,
    }


def _ranked_by_people(spec: str) -> list[Comparison]:
    """All comparisons of a file: nothing is trained on them, so that none is set aside."""
    found = read_whole(spec)[0].comparisons
    if not found:
        raise UserError(
            "holds no comparisons", where=spec, mend="give people's rankings of the answers that --data holds"
        )
    return found


def _with_splits(spec: str) -> list[Prompt | Comparison]:
    """All comparisons of a file, those set aside too, and the prompts whose split it declares."""
    whole, declared = read_whole(spec)
    asked = [replace(p, split=declared[p.id]) for p in whole.prompts if p.id in declared]
    return [*asked, *whole.comparisons]


def _verdicts(path: Path, critic: Critic, pairs: list[Pair], config: CAILabelConfig) -> list[Row]:
    """One row a pair; a pair that the file has a verdict on (same critic, same question) is not asked again."""
    known = {row["key"]: row for row in whole_rows(path) if row["problem"] != "failed"}
    questions = []
    for prompt, a, b in pairs:
        principle = critic.draw(config.seed, prompt.id, a.id, b.id)
        how = (config.think, config.clamp if config.think else None)
        key = key_of(critic.chat.name, principle.choice, prompt.messages, a.text, b.text, how)
        questions.append((key, prompt, a, b, principle))
    missing = [question for question in questions if question[0] not in known]
    with Progress(len(pairs), "verdicts", done=len(pairs) - len(missing), unit="pair") as bar:
        size = PAID if isinstance(critic.chat, Endpoint) else CHUNK
        for start in range(0, len(missing), size):
            some = missing[start : start + size]
            found = critic.compare([(prompt, a.text, b.text, principle) for _, prompt, a, b, principle in some])
            new = []
            for (key, prompt, a, b, principle), verdict in zip(some, found, strict=True):
                row: Row = {"schema": "tutelage.verdict/1", "id": f"{a.id}-{b.id}", "key": key, "prompt_id": prompt.id}
                row |= {"messages": prompt.messages, "completion_ids": [a.id, b.id], "completions": [a.text, b.text]}
                new.append({**row, "principle": principle.id, "question": principle.choice, **vars(verdict)})
            append_rows(path, new)
            known |= {row["key"]: row for row in new}
            bar.update(len(pairs) - len(missing) + start + len(some))
    return [known[key] for key, *_ in questions]


def _comparison(row: Row) -> Comparison:
    p = row["probability"]
    return Comparison(
        id=f"ai-{row['id']}",
        prompt_id=row["prompt_id"],
        completion_ids=row["completion_ids"],
        ranks=[1, 1] if p == 0.5 else [1, 2] if p > 0.5 else [2, 1],
        messages=row["messages"],
        completions=row["completions"],
        labeler=f"ai:{row['principle']}",
        probability=p,
    )


def _principles(rows: list[Row], people: list[Comparison]) -> list[Row]:
    """By principle: how many verdicts, how many were left out, how sure they are, how often the two orders name the same
    answer, and, where people ranked the same pairs, how often it orders them as they do."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["principle"], []).append(row)
    table = []
    for name, drawn in sorted(groups.items()):
        group = [row for row in drawn if row["problem"] is None]
        n = len(group)
        entry: Row = {"principle": name, "count": n, "left_out": len(drawn) - n}
        table.append(entry)
        if not group:
            continue
        alike = [
            (r["logprobs"][0][0] > r["logprobs"][0][1]) != (r["logprobs"][1][0] > r["logprobs"][1][1]) for r in group
        ]
        entry["sureness"] = sum(abs(r["probability"] - 0.5) * 2 for r in group) / n
        entry["orders_agree"] = sum(alike) / n
        if people and (found := agreement_with_people(group, people))["pairs"]:
            entry |= {"people_agree": found["agreement"], "people_pairs": found["pairs"]}
    return table


def agreement_with_people(rows: list[Row], people: list[Comparison]) -> dict[str, Any]:
    """Of the pairs that people order too: how often the model orders them alike, with a 95 % interval (clusters: prompts),
    and when it is sure (p beyond 0.8).

    A pair that several people order counts for each of them; ranks of different rankings are not compared. Prompts and answers
    are the same if their words are, whatever their ids.
    """
    rankings: dict[str, list[dict[str, int | None]]] = {}
    for one in people:
        ranks = dict(zip(map(str.strip, one.completions or []), one.filled_ranks(), strict=False))
        rankings.setdefault(json.dumps(one.messages, sort_keys=True), []).append(ranks)
    alike, sure, asked = [], [], []
    for row in rows:
        p, (a, b) = row["probability"], map(str.strip, row["completions"])
        for ranks in rankings.get(json.dumps(row["messages"], sort_keys=True), []):
            first, second = ranks.get(a), ranks.get(b)
            if first is None or second is None or first == second or p == 0.5:
                continue
            alike.append((p > 0.5) == (first < second))
            asked.append(row["prompt_id"])
            if abs(p - 0.5) > 0.3:
                sure.append(alike[-1])
    _, low, high = clustered_interval(alike, asked) if len(set(asked)) > 1 else (0.0, 0.0, 0.0)
    return {
        "pairs": len(alike),
        "agreement": sum(alike) / len(alike) if alike else None,
        "ci95": [low, high] if len(set(asked)) > 1 else None,
        "sure_pairs": len(sure),
        "agreement_when_sure": sum(sure) / len(sure) if sure else None,
    }
