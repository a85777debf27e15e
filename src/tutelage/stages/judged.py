"""`tutelage eval --judge`: any models on any prompts by any judges.

A model is a checkpoint, an endpoint or a file of outputs; a judge is a reward model, a language model or the
world's gold. What endpoints said is kept in the output folder, so that a run that was stopped, or repeated with
one more model, asks for nothing twice.
"""

import sys
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from tutelage.configs import EvalConfig
from tutelage.data.foreign import prompt_id
from tutelage.data.length_data import read_length_data
from tutelage.data.outputs import read_outputs
from tutelage.data.sources import prompts
from tutelage.errors import UserError
from tutelage.evaluation.behaviors import rate
from tutelage.evaluation.comparison import compare_by_verdicts
from tutelage.evaluation.length_control import Gamed, controlled
from tutelage.evaluation.paired import Outcomes, compare_behaviors
from tutelage.evaluation.ratings import Game, ratings
from tutelage.evaluation.refusal import refusal_class
from tutelage.evaluation.verbosity import with_explained
from tutelage.judges.cache import Cache, Reply, key_of
from tutelage.judges.chats import ChatFailedError, Endpoint, open_chat
from tutelage.judges.llm import LLMJudge
from tutelage.judges.verdict import Judge, Match, ScoringJudge, Verdict
from tutelage.records import Prompt
from tutelage.runs import Progress, write_json
from tutelage.stages.probing import asker, items_for, measure

SHOWN = 12  # prompts shown side by side
OUTPUT_KINDS = (".jsonl", ".jsonl.gz", ".json", ".parquet")
JUDGES = "reward:CHECKPOINT, openai:URL#MODEL, anthropic:MODEL, local:CHECKPOINT or gold"
Answers = list[Reply | None]


def run(config: EvalConfig) -> dict[str, Any]:
    """Compare models by the judges of `config.judge`; returns (and writes) the measurements."""
    # 1. What is asked, who answers, who judges.
    out = Path(config.out or "runs/eval")
    specs = dict(_named(spec) for spec in config.models)
    if len(specs) < 2:
        raise UserError("needs two models to compare", where="option --models (models)", mend="give a=… b=…")
    asked = prompts(config.data, config.split, config.prompts, seed=77)[: config.prompts]
    kept = Cache(out / "judgments.jsonl")
    judges = [open_judge(spec, config, kept) for spec in config.judge]
    difficulty, gamed = length_terms(config.length_data, asked)

    # 2. One answer of each model to each prompt; where there is none, that is counted.
    outputs = Cache(out / "answers.jsonl")
    answers = {name: answers_of(spec, asked, config, outputs) for name, spec in specs.items()}

    # 3. Each later model over each earlier one, by each judge.
    result: dict[str, Any] = {"stage": "eval", "win_rates": [], "ratings": {}, "behaviours": {}, "samples": []}
    for judge in judges:
        games: list[Game] = []
        for baseline, policy in combinations(specs, 2):
            matches = both_answered(asked, answers[policy], answers[baseline])
            verdicts = judged(judge, matches)
            row = {"policy": policy, "baseline": baseline, "judge": judge.name}
            result["win_rates"].append({**row, **summary(matches, verdicts, len(asked), difficulty, gamed)})
            games += [
                Game(policy, baseline, verdict.points, match.prompt.id, (len(match.a), len(match.b)))
                for match, verdict in zip(matches, verdicts, strict=True)
                if verdict.points is not None
            ]
        if len(specs) > 2 and games:
            result["ratings"][judge.name] = ratings(games)
    found: dict[str, Outcomes] = {}
    for name in specs:
        lengths = [len(text) for text in answers[name] if text is not None]
        unanswered = len(asked) - len(lengths)
        mean = sum(lengths) / len(lengths) if lengths else None
        result["behaviours"][name], found[name] = behaviors_of(specs[name], answers[name], config)
        result.setdefault("answers", {})[name] = {"unanswered": unanswered, "mean_characters": mean}
    result["changes"] = compare_behaviors(found)
    for i, prompt in enumerate(asked[:SHOWN]):
        shown = {name: {"text": answers[name][i]} for name in specs if answers[name][i] is not None}
        result["samples"].append(
            {
                "prompt_id": prompt.id,
                "category": prompt.category,
                "prompt": prompt.messages[-1]["content"],
                "answers": shown,
            }
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "eval.json", result)
    return result


def both_answered(asked: Sequence[Prompt], ours: Answers, theirs: Answers) -> list[Match]:
    pairs = zip(asked, ours, theirs, strict=True)
    return [Match(p, a, b) for p, a, b in pairs if a is not None and b is not None]


def judged(judge: Judge, matches: Sequence[Match]) -> list[Verdict]:
    """A verdict on each match; says beforehand what a language model will be asked."""
    if not isinstance(judge, LLMJudge):
        return judge.compare_all(matches)
    calls, words = judge.pending(matches)
    if calls:
        print(f"eval: {judge.name} will be asked {calls} times, about {words:,} words in all", file=sys.stderr)
    with Progress(2 * len(matches), "judge", unit="call") as bar:
        return judge.compare_all(matches, bar.update)


def summary(
    matches: Sequence[Match],
    verdicts: Sequence[Verdict],
    asked: int,
    difficulty: Mapping[str, float] | None = None,
    gamed: Gamed | None = None,
) -> dict[str, Any]:
    """The win rate with its interval, what was not judged, and the rate at equal lengths."""
    found = compare_by_verdicts(
        [v.points for v in verdicts],
        [m.prompt.id for m in matches],
        flipped=[v.flipped for v in verdicts],
        problems=[v.problem for v in verdicts],
        asked=asked,
    )
    rows = [(v.points, m) for m, v in zip(matches, verdicts, strict=True) if v.points is not None]
    points = [one for one, _ in rows]
    ours, theirs = [len(m.a) for _, m in rows], [len(m.b) for _, m in rows]
    hard = None if difficulty is None else [difficulty[m.prompt.id] for _, m in rows]
    return with_explained({**found, "length_controlled": controlled(points, ours, theirs, hard, gamed)})


def length_terms(path: str | None, asked: Sequence[Prompt]) -> tuple[dict[str, float] | None, Gamed | None]:
    """The difficulty of each prompt by its id, and the gamed baselines, of a file; None for what it does not hold."""
    if path is None:
        return None, None
    by_words, rows = read_length_data(Path(path))
    keys = {p.id: prompt_id(p.messages) for p in asked}
    lacking = [name for name, key in keys.items() if key not in by_words]
    if lacking:
        what = f"has no difficulty for {len(lacking)} of {len(asked)} prompts (the first: {lacking[0]})"
        raise UserError(what, where=path, mend="give a row with prompt and instruction_difficulty for each")
    gamed = Gamed(*zip(*rows, strict=True)) if rows else None
    return {name: by_words[key] for name, key in keys.items()}, gamed


def answers_of(spec: str, asked: list[Prompt], config: EvalConfig, kept: Cache) -> Answers:
    """A model's answers: read from a file, or asked for; None where there is none."""
    if _is_file(spec):
        found = read_outputs(Path(spec))
        rows = [found.get(p.id, found.get(prompt_id(p.messages))) for p in asked]
        if not any(rows):
            raise UserError("answers none of the prompts", where=spec, mend="give outputs for the prompts of --data")
        return [None if row is None else Reply(*row) for row in rows]
    options = {"max_tokens": config.max_new_tokens, "temperature": config.temperature}
    chat = open_chat(spec, dtype=config.dtype, seed=config.seed, **options)
    keys = [key_of(chat.name, options, config.seed, p.id, p.messages) for p in asked]
    new = [i for i, key in enumerate(keys) if kept.get(key) is None]
    if new:
        if isinstance(chat, Endpoint):
            most = len(new) * config.max_new_tokens
            print(f"eval: {chat.name} will be asked {len(new)} prompts, for {most:,} tokens at most", file=sys.stderr)
        done = 0
        with Progress(len(new), "eval", unit="answer") as bar:

            def answered(place: int, reply: Reply) -> None:
                nonlocal done
                kept.put(keys[new[place]], reply, model=spec, prompt_id=asked[new[place]].id)
                done += 1
                bar.update(done)

            failed = [
                one
                for one in chat.answers([asked[i].messages for i in new], answered)
                if isinstance(one, ChatFailedError)
            ]
        if failed:
            print(f"warning: {spec} left {len(failed)} of {len(asked)} prompts: {failed[0]}", file=sys.stderr)
    return [kept.get(key) for key in keys]


def behaviors_of(spec: str, said: Answers, config: EvalConfig) -> tuple[dict[str, Any], Outcomes]:
    """Refusals and verbosity of a model's answers; sycophancy, where it can be asked (a file of outputs cannot)."""
    answered = {i: refusal_class(text) for i, text in enumerate(said) if text is not None}
    refusals: dict[str, dict[Hashable, float]] = {
        name: {i: float(kind == label) for i, kind in answered.items()}
        for name, label in (("full_refusal", "refusal"), ("partial_refusal", "partial"))
    }
    can_be_asked = config.probes and not _is_file(spec)
    items = items_for(config.data, config.split, config.probes) if can_be_asked else []
    options = {"max_tokens": config.max_new_tokens, "temperature": config.temperature}
    chat = open_chat(spec, dtype=config.dtype, seed=config.seed, **options) if items else None
    rates, outcomes = measure(said, asker(chat) if chat else lambda _: [], items, refusals)
    return {**{name: rate([*flags.values()]) for name, flags in refusals.items() if flags}, **rates}, outcomes


def _is_file(spec: str) -> bool:
    return spec.endswith(OUTPUT_KINDS) and Path(spec).is_file()


def open_judge(spec: str, config: EvalConfig, kept: Cache) -> Judge:
    kind, _, rest = spec.partition(":")
    if spec == "gold":
        if config.data != "world":
            raise UserError("judges the embedded world only", where="--judge gold", mend=f"use one of: {JUDGES}")
        return ScoringJudge("gold", _gold)
    if kind == "reward" and rest:
        from tutelage.judges.reward import reward_judge

        return reward_judge(rest, config.dtype, config.max_length)
    if kind in ("openai", "anthropic", "local") and rest:
        options = {"dtype": config.dtype} if kind == "local" else {}
        return LLMJudge(open_chat(spec, **options), kept)
    raise UserError(f"unknown judge {spec!r}", where="option --judge (judge)", mend=f"use one of: {JUDGES}")


def _gold(asked: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
    from tutelage.world import gold

    finishes = [answer.finish if isinstance(answer, Reply) else "stop" for answer in answers]
    return [gold.score(p, a, finish).total for p, a, finish in zip(asked, answers, finishes, strict=True)]


def _named(spec: str) -> tuple[str, str]:
    """NAME=MODEL; without a name, the model is its own."""
    name, separator, model = spec.partition("=")
    return (name, model) if separator and "/" not in name and ":" not in name else (spec, spec)
