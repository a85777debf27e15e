"""`tutelage eval --judge`: any models on any prompts by any judges.

A model is a checkpoint, an endpoint or a file of outputs; a judge is a reward model, a language model, people who
compared the answers before, or the world's gold. What endpoints said is kept in the output folder, so that a run that was stopped, or repeated with
one more model, asks for nothing twice.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from tutelage.configs import EvalConfig
from tutelage.data.foreign import prompt_id
from tutelage.data.kinds import prompt_kind
from tutelage.data.length_data import read_length_data
from tutelage.data.outputs import read_outputs
from tutelage.data.sources import prompts
from tutelage.errors import UserError
from tutelage.evaluation.agreement import agreement_row
from tutelage.evaluation.comparison import compare_by_verdicts
from tutelage.evaluation.length_control import Gamed, controlled
from tutelage.evaluation.paired import Outcomes, compare_behaviors
from tutelage.evaluation.ratings import Game, ratings
from tutelage.evaluation.refusal import refusal_outcomes, refusal_rates
from tutelage.evaluation.verbosity import with_explained
from tutelage.judges.cache import Cache, Reply, key_of
from tutelage.judges.chats import Chat, ChatFailedError, Endpoint, LocalChat, open_chat
from tutelage.judges.llm import LLMJudge
from tutelage.judges.people import PeopleJudge, people_judge
from tutelage.judges.reward import RewardJudge, reward_judge
from tutelage.judges.rubric import rate_all
from tutelage.judges.verdict import Judge, Match, ScoringJudge, Verdict
from tutelage.models import ScalarModel, load_scalar
from tutelage.named_data import local_data
from tutelage.records import Prompt
from tutelage.runs import Progress
from tutelage.stages.abilities import Abilities, abilities
from tutelage.stages.costs import Bill, agree, answers_bill, judge_bill, probes_bill, rubric_bill
from tutelage.stages.evaluated import about, add_prefixes, write_evaluation
from tutelage.stages.probing import asker, items_for, measure

SHOWN = 12  # prompts shown side by side
OUTPUT_KINDS = (".jsonl", ".jsonl.gz", ".json", ".parquet")
JUDGES = "reward:CHECKPOINT, openai:URL#MODEL, anthropic:MODEL, local:CHECKPOINT, gold, people:FILE or people:PROJECT"
Answers = list[Reply | None]
Pairs = dict[tuple[str, str], list[Match]]  # (policy, baseline) -> prompts that both answered
Key = tuple[str, str, str]  # policy, baseline, prompt


def run(config: EvalConfig) -> dict[str, Any]:
    """Compare models by the judges of `config.judge`; returns (and writes) the measurements."""
    # 1. What is asked, who answers, who judges.
    out = Path(config.out or "runs/eval")
    specs = dict(_named(spec) for spec in config.models)
    if len(specs) < 2:
        raise UserError("needs two models to compare", where="option --models (models)", mend="give a=… b=…")
    asked = prompts(config.data, config.split, config.prompts, seed=77)[: config.prompts]
    more = abilities(config)
    kept = Cache(out / "judgments.jsonl")
    judges = [open_judge(spec, config, kept) for spec in config.judge]
    difficulty, gamed = length_terms(config.length_data, asked)

    # 2. One answer of each model to each prompt; where there is none, that is counted.
    outputs = Cache(out / "answers.jsonl")
    bills = [bill for spec in specs.values() for bill in _asking(spec, asked, config, outputs)]
    agree(bills, config)
    answers = {name: answers_of(spec, asked, config, outputs) for name, spec in specs.items()}

    # 3. Each later model over each earlier one, by each judge; and how far judges agree with people.
    pairs = {
        (policy, baseline): both_answered(asked, answers[policy], answers[baseline])
        for baseline, policy in combinations(specs, 2)
    }
    judging = [
        bill
        for judge in judges
        if isinstance(judge, LLMJudge)
        for bill in judge_bill(judge, [match for matches in pairs.values() for match in matches], config)
        + (rubric_bill(judge, _answered(asked, answers), config) if config.rubric else [])
    ]
    agree(judging, config)
    result: dict[str, Any] = {"stage": "eval", **about(config, specs), "win_rates": [], "ratings": {}}
    result["cost"] = bills + judging
    said: dict[str, dict[Key, float]] = {}
    for judge in judges:
        rows, games, said[judge.name] = verdicts_of(judge, pairs, len(asked), difficulty, gamed)
        result["win_rates"] += rows
        if len(specs) > 2 and games:
            result["ratings"][judge.name] = ratings(games)
    result["judge_agreement"] = with_people([j for j in judges if isinstance(j, PeopleJudge)], said, pairs)

    # 4. Behaviors of each model, what each can do, and what changed between them.
    found: dict[str, Outcomes] = {}
    result |= {"behaviours": {}, "answers": {}, "samples": _shown(asked[:SHOWN], answers)}
    if (scalar := _reward_model(judges, config)) is not None:
        add_prefixes(result["samples"], asked[:SHOWN], scalar, config.max_length)
    for name in specs:
        lengths = [len(text) for text in answers[name] if text is not None]
        mean = sum(lengths) / len(lengths) if lengths else None
        result["behaviours"][name], others = behaviors_of(name, specs[name], asked, answers[name], config, more)
        rate_one_by_one(more, judges, name, asked, answers[name], config)
        found[name] = more.all_outcomes(name, others)
        result["answers"][name] = {"unanswered": len(asked) - len(lengths), "mean_characters": mean}
    result["changes"] = compare_behaviors(found)
    more.into(result)
    write_evaluation(out, result)
    return result


def _asking(spec: str, asked: list[Prompt], config: EvalConfig, kept: Cache) -> list[Bill]:
    """What an endpoint will be asked as a model; nothing of the others."""
    if not spec.startswith(("openai:", "anthropic:")) or _is_file(spec):
        return []
    chat = open_chat(spec, **_options(config))
    new = [p.messages for p, key in zip(asked, _keys(chat, asked, config), strict=True) if kept.get(key) is None]
    items = len(items_for(config.data, config.split, config.probes)) if config.probes else 0
    return answers_bill(chat, new, config) + probes_bill(chat, items, config)


def verdicts_of(
    judge: Judge, pairs: Pairs, asked: int, difficulty: Mapping[str, float] | None = None, gamed: Gamed | None = None
) -> tuple[list[dict[str, Any]], list[Game], dict[Key, float]]:
    """A judge's win rates, its verdicts as games, and its one verdict on each pair of answers that has one.

    difficulty, gamed: what length control knows besides the lengths (`length_terms`).
    """
    rows, games, said = [], [], {}
    for (policy, baseline), matches in pairs.items():
        row = {"policy": policy, "baseline": baseline, "judge": judge.name}
        if isinstance(judge, PeopleJudge):  # each vote by itself; those of one prompt are a cluster
            votes = [(match, vote) for match in matches for vote in judge.votes(match)]
            judged_ones, verdicts = [m for m, _ in votes], [Verdict(vote) for _, vote in votes]
            unvoted = len(matches) - len({m.prompt.id for m in judged_ones})
            rows.append(
                {**row, **summary(judged_ones, verdicts, asked - unvoted, difficulty, gamed), "unvoted": unvoted}
            )
            one_each = judge.compare_all(matches)
        else:
            judged_ones, verdicts = list(matches), judged(judge, matches)
            rows.append({**row, **summary(judged_ones, verdicts, asked, difficulty, gamed)})
            one_each = verdicts
        for match, verdict in zip(judged_ones, verdicts, strict=True):
            if verdict.points is not None:
                lengths = len(match.a), len(match.b)
                games.append(Game(policy, baseline, verdict.points, match.prompt.id, lengths))
        for match, verdict in zip(matches, one_each, strict=True):
            if verdict.points is not None:
                said[policy, baseline, match.prompt.id] = verdict.points
    return rows, games, said


def with_people(people: Sequence[PeopleJudge], said: dict[str, dict[Key, float]], pairs: Pairs) -> list[dict[str, Any]]:
    """Cohen's kappa of people's verdicts with every other judge's on the same pairs, and of people among themselves."""
    rows = []
    for one in people:
        votes = [
            (a, b, match.prompt.id)
            for matches in pairs.values()
            for match in matches
            for a, b in combinations(one.votes(match), 2)
        ]
        if votes:
            first, second, clusters = zip(*votes, strict=True)
            rows.append({"people": one.name, "judge": None, **agreement_row(first, second, clusters)})
        for name, theirs in said.items():
            common = [key for key in said[one.name] if key in theirs]
            if name != one.name and common:
                ours, others = [said[one.name][key] for key in common], [theirs[key] for key in common]
                row = agreement_row(ours, others, [prompt for _, _, prompt in common])
                rows.append({"people": one.name, "judge": name, **row})
    return rows


def _shown(asked: Sequence[Prompt], answers: dict[str, Answers]) -> list[dict[str, Any]]:
    """Answers side by side."""
    return [
        {
            "prompt_id": prompt.id,
            "category": prompt.category,
            "prompt": prompt.messages[-1]["content"],
            "answers": {name: {"text": said[i]} for name, said in answers.items() if said[i] is not None},
        }
        for i, prompt in enumerate(asked)
    ]


def _reward_model(judges: Sequence[Judge], config: EvalConfig) -> ScalarModel | None:
    """What reads the shown answers prefix by prefix: `reward_model`, else the first judge that is a reward model."""
    if config.reward_model is not None:
        return load_scalar(config.reward_model, config.dtype, device=config.device)
    return next((judge.reward for judge in judges if isinstance(judge, RewardJudge)), None)


def both_answered(asked: Sequence[Prompt], ours: Answers, theirs: Answers) -> list[Match]:
    pairs = zip(asked, ours, theirs, strict=True)
    return [Match(p, a, b) for p, a, b in pairs if a is not None and b is not None]


def judged(judge: Judge, matches: Sequence[Match]) -> list[Verdict]:
    """A verdict on each match."""
    if not isinstance(judge, LLMJudge):
        return judge.compare_all(matches)
    before = len(judge.failures)
    with Progress(2 * len(matches), "judge", unit="call") as bar:
        found = judge.compare_all(matches, bar.update)
    if failed := judge.failures[before:]:
        print(f"warning: {judge.name} left {len(failed)} calls: {failed[0]}", file=sys.stderr)
    return found


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
    at_equal = controlled(points, ours, theirs, hard, gamed, [m.prompt.id for _, m in rows])
    return with_explained({**found, "length_controlled": at_equal})


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
    chat = open_chat(spec, **_local(config), **_options(config))
    keys = _keys(chat, asked, config)
    new = [i for i, key in enumerate(keys) if kept.get(key) is None]
    if isinstance(chat, Endpoint) and len(new) < len(keys):
        chat.answers_others = True
    if new:
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


def _options(config: EvalConfig) -> dict[str, Any]:
    return {"max_tokens": config.max_new_tokens, "temperature": config.temperature}


def _local(config: EvalConfig) -> dict[str, Any]:
    """What only a checkpoint on this machine is told."""
    return {"dtype": config.dtype, "device": config.device, "seed": config.seed}


def _keys(chat: Chat, asked: Sequence[Prompt], config: EvalConfig) -> list[str]:
    """Under what each answer is kept."""
    return [key_of(chat.name, _options(config), config.seed, p.id, p.messages) for p in asked]


def behaviors_of(
    name: str, spec: str, asked: Sequence[Prompt], said: Answers, config: EvalConfig, more: Abilities
) -> tuple[dict[str, Any], Outcomes]:
    """Refusals and verbosity of a model's answers; sycophancy and tasks where it can be asked (a file of outputs cannot)."""
    refusals = refusal_outcomes([prompt_kind(p) for p in asked], said)
    can_be_asked = not _is_file(spec)
    items = items_for(config.data, config.split, config.probes) if can_be_asked and config.probes else []
    wanted = items or ((more.tasks or more.harness) and can_be_asked)
    chat = open_chat(spec, **_local(config), **_options(config)) if wanted else None
    if chat and items and config.data != "world":
        more.say_how_sure(name, asker(chat), items)
    if more.tasks or more.harness:
        more.measure(name, spec, chat.policy if isinstance(chat, LocalChat) else None)
    rates, outcomes = measure(said, asker(chat) if chat else lambda _: [], items, refusals)
    return {**refusal_rates(refusals), **rates}, outcomes


def _answered(asked: Sequence[Prompt], answers: Mapping[str, Answers]) -> list[tuple[Prompt, str]]:
    """Every answer that there is, with its prompt."""
    return [(p, a) for said in answers.values() for p, a in zip(asked, said, strict=True) if a is not None]


def rate_one_by_one(
    more: Abilities, judges: Sequence[Judge], name: str, asked: Sequence[Prompt], said: Answers, config: EvalConfig
) -> None:
    """Likert and marks of a model's answers: by people who gave some, by the world's judge, by language models if asked."""
    given: list[tuple[Prompt, Reply]] = [(p, a) for p, a in zip(asked, said, strict=True) if a is not None]
    for judge in judges:
        if isinstance(judge, PeopleJudge):
            ratings = {p.id: judge.ratings(p, a) for p, a in given}
            rated = {key: some for key, some in ratings.items() if some}
            if rated:
                more.rate(judge.name, name, rated, counts={"unrated": len(asked) - len(rated)})
        elif judge.name == "gold":
            from tutelage.world import gold, rubric

            more.check_truth(name, given, given)
            more.check_instructions(name, [p for p, _ in given], [gold.behavior(p, a, a.finish) for p, a in given])
            more.rate("gold", name, {p.id: [rubric.rating(p, a, a.finish)] for p, a in given}, rubric.KNOWN)
        elif isinstance(judge, LLMJudge) and config.rubric:
            found, counts = rate_all(judge, [p for p, _ in given], [a for _, a in given])
            rated = {p.id: [one] for (p, _), one in zip(given, found, strict=True) if one is not None}
            more.rate(judge.name, name, rated, counts={**counts, "unrated": len(asked) - len(rated)})


def _is_file(spec: str) -> bool:
    return spec.endswith(OUTPUT_KINDS) and Path(spec).is_file()


def open_judge(spec: str, config: EvalConfig, kept: Cache) -> Judge:
    kind, _, rest = spec.partition(":")
    if spec == "gold":
        if config.data != "world":
            raise UserError("judges the embedded world only", where="--judge gold", mend=f"use one of: {JUDGES}")
        return ScoringJudge("gold", _gold)
    if kind == "reward" and rest:
        return reward_judge(rest, config.dtype, config.max_length, device=config.device)
    if kind == "people" and rest:
        project = rest if rest.startswith(("feedback:", "http://", "https://")) else f"feedback:{rest}"
        return people_judge(rest if Path(rest).exists() else local_data(project), spec)
    if kind in ("openai", "anthropic", "local") and rest:
        return LLMJudge(open_chat(spec, dtype=config.dtype, device=config.device, any_temperature=True), kept)
    raise UserError(f"unknown judge {spec!r}", where="option --judge (judge)", mend=f"use one of: {JUDGES}")


def _gold(asked: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
    from tutelage.world import gold

    finishes = [answer.finish if isinstance(answer, Reply) else "stop" for answer in answers]
    return [gold.score(p, a, finish).total for p, a, finish in zip(asked, answers, finishes, strict=True)]


def _named(spec: str) -> tuple[str, str]:
    """NAME=MODEL; without a name, the model is its own."""
    name, separator, model = spec.partition("=")
    return (name, model) if separator and "/" not in name and ":" not in name else (spec, spec)
