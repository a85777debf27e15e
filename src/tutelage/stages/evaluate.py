"""Measure what training changed: win rates and behaviors on held-out prompts, with the reward model's card.

The gold judge and the held-out labelers exist in the embedded world only; on other data the reward model
judges, and says so.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from tutelage.algorithms.best_of_n import best_of_n
from tutelage.configs import EvalConfig
from tutelage.data.kinds import prompt_kind
from tutelage.data.sources import demonstrations, load_texts, prompts
from tutelage.data.templates import Rendered, render_prompts
from tutelage.engine.sampling import SamplingParams
from tutelage.errors import UserError
from tutelage.evaluation.behaviors import behaviors, outcomes
from tutelage.evaluation.intervals import mean_interval, ratio_interval
from tutelage.evaluation.length_control import controlled
from tutelage.evaluation.paired import Losses, Outcomes, compare_behaviors, compare_losses
from tutelage.evaluation.ratings import Game, ratings
from tutelage.evaluation.refusal import refusal_outcomes, refusal_rates
from tutelage.evaluation.reward_card import share_interval
from tutelage.evaluation.verbosity import with_explained
from tutelage.evaluation.win_rate import win_rate_from_votes
from tutelage.models import Policy, load_policy, load_scalar, resolve
from tutelage.records import Message, Prompt
from tutelage.runs import Progress, check_folder
from tutelage.stages.abilities import Abilities, abilities
from tutelage.stages.evaluated import about, add_prefixes, write_evaluation
from tutelage.stages.language_modeling import as_document
from tutelage.stages.probing import items_for, measure
from tutelage.stages.reference import frozen_logprobs
from tutelage.stages.rollout import score_answers
from tutelage.stages.sample import draw, rendered_prompts, text_of

SUITES = dict.fromkeys(("harmful", "benign_lookalike", "opinion", "instruction", "closed_domain"), 120)
TRUTH = "closed_domain"  # the suite that made-up statements are counted on; the others show behaviors
SHOWN = 12  # prompts shown side by side in the report
NOT_SHOWN = ("finish", "ids")
CORPUS_TOKENS, CORPUS_SEED = 30_000, 101  # held-out text for the corpus loss
SHOTS = 3  # demonstrations before a prompt


def run(config: EvalConfig) -> dict[str, Any]:
    """Compare models; returns (and with --out writes) the measurements."""
    if config.judge:
        from tutelage.stages import judged

        return judged.run(config)
    # 1. The models, each with its name, and the prompts that none has seen.
    models, shots = _models(config)
    world = config.data == "world"
    asked = prompts(config.data, config.split, config.prompts, seed=77)[: config.prompts]
    suites = _suites(config.split) if world else {}
    closed = suites.pop(TRUTH, [])
    more = abilities(config)
    reward = load_scalar(config.reward_model, config.dtype, device=config.device) if config.reward_model else None
    reference = load_policy(models[config.kl_from], config.dtype, device=config.device) if config.kl_from else None
    params = SamplingParams(config.max_new_tokens, 0, config.temperature)

    # 2. One answer of each model to each prompt, and what it can do beside that.
    answers: dict[str, list[dict[str, Any]]] = {}
    findings: dict[str, list[dict[str, Any]]] = {}
    probed: dict[str, tuple[dict[str, Any], Outcomes]] = {}
    items = items_for(config.data, config.split, config.probes)
    losses: dict[str, Losses] = {}
    kl: dict[str, dict[str, Any]] = {}
    with Progress(len(models), "eval", unit="model") as bar:
        for number, (name, path) in enumerate(models.items(), 1):
            policy = load_policy(path, config.dtype, device=config.device)
            ask_after = partial(_answers, policy, shots.get(name, []), params, config)
            answers[name] = ask_after(asked, reward)
            findings[name] = [f for some in suites.values() for f in _judged(some, ask_after(some, None))]
            ask = partial(_said, policy, shots.get(name, []), params, config)
            texts = [a["text"] for a in answers[name]]
            probed[name] = measure(texts, ask, items, _known(asked, texts, findings[name]))
            if world:
                losses[name] = _corpus_losses(policy)
                _check_and_rate(more, name, asked, answers[name], closed, ask_after(closed, None))
            elif items:
                more.say_how_sure(name, ask, items)
            if name not in shots:
                more.measure(name, path, policy)
                if reference is not None:
                    kl[name] = _kl(policy, reference, asked, [a["ids"] for a in answers[name]], config.max_length)
            bar.update(number)

    # 3. Win rates of each later model over each earlier one, by each judge, and ratings of many.
    known = {name: more.all_outcomes(name, found) for name, (_, found) in probed.items()}
    result: dict[str, Any] = {
        "stage": "eval",
        **about(config, models),
        "win_rates": [],
        "ratings": {},
        "behaviours": {},
        "changes": compare_behaviors(known, more=compare_losses(losses)),
        "samples": _side_by_side(asked[:SHOWN], answers),
        "corpus_loss": {name: sum(nll) / sum(tokens) for name, (nll, tokens) in losses.items()},
        **({"kl": kl} if kl else {}),
    }
    if reward is not None:
        add_prefixes(result["samples"], asked[:SHOWN], reward, config.max_length)
    _compare(result, list(models), asked, answers, config)

    # 4. Behaviors on prompts made for each, mean length on the common ones, and the loss on text of the corpus.
    for name in models:
        lengths = behaviors([{"tokens": a["tokens"]} for a in answers[name]])
        result["behaviours"][name] = {**(behaviors(findings[name]) if world else {}), **lengths, **probed[name][0]}
        if world:
            result["behaviours"][name]["gold"] = _mean([a["gold"] for a in answers[name]])
            result["behaviours"][name]["corpus_loss"] = _loss_of(losses[name])
        result["behaviours"][name] |= refusal_rates(_refusals(asked, [a["text"] for a in answers[name]]))
    more.into(result)
    if config.out:
        write_evaluation(Path(config.out).expanduser(), result)
    return result


def _models(config: EvalConfig) -> tuple[dict[str, str], dict[str, list[Message]]]:
    """The models by name, the prompted one among them, and what stands before the prompts of that one."""
    models = dict(_named(spec) for spec in config.models)
    if len(models) < 2:
        raise UserError(
            "needs two models to compare", where="option --models (models)", mend="give base=FOLDER sft=FOLDER …"
        )
    if config.kl_from is not None and config.kl_from not in models:
        mend = f"name one of the models: {', '.join(models)}"
        raise UserError(f"{config.kl_from!r} is not compared", where="option --kl-from (kl_from)", mend=mend)
    if config.out:
        check_folder(Path(config.out).expanduser())
    return _with_prompted(models, config)


def _check_and_rate(
    more: Abilities,
    name: str,
    asked: list[Prompt],
    answers: list[dict[str, Any]],
    closed: list[Prompt],
    held: list[dict[str, Any]],
) -> None:
    """In the world: what a model made up, where it follows instructions, and the judge's form for each of its answers."""
    from tutelage.world import rubric

    def texts(rows: list[dict[str, Any]]) -> list[str]:
        return [row["text"] for row in rows]

    pairs = list(zip(closed, texts(held), strict=True)), list(zip(asked, texts(answers), strict=True))
    more.check_truth(name, *pairs)
    more.check_instructions(name, [*asked, *closed], _judged([*asked, *closed], [*answers, *held]))
    more.add(name, "right", {p.id: float(rubric.is_right(a["facets"])) for p, a in zip(asked, answers, strict=True)})
    rated = {p.id: [rubric.rating(p, a["text"], a["finish"])] for p, a in zip(asked, answers, strict=True)}
    more.rate("gold", name, rated, rubric.KNOWN)


def _known(asked: list[Prompt], texts: list[str], findings: list[dict[str, Any]]) -> Outcomes:
    """What the judge of the suites saw, and how answers to the common prompts refuse."""
    return {**_refusals(asked, texts), **outcomes(findings)}


def _refusals(asked: list[Prompt], texts: list[str]) -> Outcomes:
    return refusal_outcomes([prompt_kind(p) for p in asked], texts)


def _mean(values: Sequence[float]) -> dict[str, Any]:
    mean, low, high = mean_interval(values)
    return {"value": mean, "ci95": [low, high] if len(values) > 1 else None, "prompts": len(values)}


def _loss_of(losses: Losses) -> dict[str, Any]:
    """Nats a token with its interval; the documents are the units."""
    value, low, high = ratio_interval(*losses)
    return {"value": value, "ci95": [low, high], "prompts": len(losses[1])}


def _compare(
    result: dict[str, Any],
    models: list[str],
    asked: list[Prompt],
    answers: dict[str, list[dict[str, Any]]],
    config: EvalConfig,
) -> None:
    """Fill in `win_rates`, a row for each pair and judge, and the `ratings` of three models or more by each judge."""
    games: dict[str, list[Game]] = {}
    for baseline, policy in combinations(models, 2):
        ours, theirs = answers[policy], answers[baseline]
        for judge, points in _verdicts(asked, ours, theirs, config).items():
            row = {"policy": policy, "baseline": baseline, "judge": judge, **win_rate_from_votes(points)}
            lengths = [(len(a["text"]), len(b["text"])) for a, b in zip(ours, theirs, strict=True)]
            at_equal = controlled(points, [a for a, _ in lengths], [b for _, b in lengths])
            result["win_rates"].append(with_explained({**row, "length_controlled": at_equal}))
            rows = zip(points, asked, lengths, strict=True)
            played = (Game(policy, baseline, won, prompt.id, both) for won, prompt, both in rows)
            games.setdefault(judge, []).extend(played)
    if len(models) > 2:
        result["ratings"] = {judge: ratings(some) for judge, some in games.items()}


def _verdicts(
    asked: list[Prompt], ours: list[dict[str, Any]], theirs: list[dict[str, Any]], config: EvalConfig
) -> dict[str, list[float]]:
    """Points at each prompt: by gold and held-out labelers in the world, by the reward model, if any, elsewhere."""

    def by(score: str) -> list[float]:
        pairs = zip(ours, theirs, strict=True)
        return [1.0 if a[score] > b[score] else 0.5 if a[score] == b[score] else 0.0 for a, b in pairs]

    if config.data == "world":
        return {"gold": by("gold"), "held-out-labelers": _votes(asked, ours, theirs, config.seed)}
    return {} if config.reward_model is None else {"reward-model": by("proxy")}


def _side_by_side(asked: list[Prompt], answers: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {
            "prompt_id": prompt.id,
            "category": prompt.category,
            "prompt": prompt.messages[-1]["content"],
            "answers": {
                name: {k: v for k, v in rows[i].items() if k not in NOT_SHOWN} for name, rows in answers.items()
            },
        }
        for i, prompt in enumerate(asked)
    ]


def _with_prompted(models: dict[str, str], config: EvalConfig) -> tuple[dict[str, str], dict[str, list[Message]]]:
    """The models, the one to be prompted a second time right after itself, and what stands before its prompts then."""
    if config.prompted is None:
        return models, {}
    if config.prompted not in models:
        mend = f"name one of the models: {', '.join(models)}"
        raise UserError(f"{config.prompted!r} is not compared", where="option --prompted (prompted)", mend=mend)
    shown = demonstrations(config.data, SHOTS, config.seed)
    name = f"{config.prompted}-prompted"
    if name in models:
        mend = "give that model another name"
        raise UserError(f"{name!r} is the prompted model's name", where="option --models (models)", mend=mend)
    order = list(models.items())
    order.insert(list(models).index(config.prompted) + 1, (name, models[config.prompted]))
    return dict(order), {name: [message for one in shown for message in one.messages or []]}


def _said(
    policy: Policy,
    shots: Sequence[Message],
    params: SamplingParams,
    config: EvalConfig,
    conversations: list[list[Message]],
) -> list[str | None]:
    """Answers to probes; None where a conversation has outgrown the model."""
    asked = [Prompt(id=f"probe-{i}", messages=[*shots, *messages]) for i, messages in enumerate(conversations)]
    rendered = render_prompts(policy.tokenizer, [p.messages for p in asked])
    fits = [p for p, ids in zip(asked, rendered, strict=True) if len(ids) < config.max_length]
    rows = draw(policy, fits, 1, params, config.seed, config.max_length) if fits else []
    said = {p.id: text_of(policy, row[0]) for p, row in zip(fits, rows, strict=True)}
    return [said.get(p.id) for p in asked]


def _named(spec: str) -> tuple[str, str]:
    name, separator, path = spec.partition("=")
    if not separator:
        name, path = Path(spec).name, spec
    resolve(path)
    return name, path


def _suites(split: str) -> dict[str, list[Prompt]]:
    from tutelage import world

    return {name: world.suite(name, split, n) for name, n in SUITES.items()}


def _answers(
    policy: Any,
    shots: Sequence[Message],
    params: SamplingParams,
    config: EvalConfig,
    asked: list[Prompt],
    reward: Any,
) -> list[dict[str, Any]]:
    shown = [replace(prompt, messages=[*shots, *prompt.messages]) for prompt in asked]
    samples = [row[0] for row in draw(policy, shown, 1, params, config.seed, config.max_length)]
    rows: list[dict[str, Any]] = [
        {"text": text_of(policy, s), "tokens": len(s.tokens), "finish": s.finish, "ids": s.tokens} for s in samples
    ]
    if reward is not None:
        for row, score in zip(
            rows, score_answers(reward, policy, asked, samples, config.max_length, 16384).tolist(), strict=True
        ):
            row["proxy"] = score
    if config.data == "world":
        from tutelage.world import gold

        for row, prompt in zip(rows, asked, strict=True):
            judged = gold.score(prompt, row["text"], row["finish"])
            row |= {"gold": judged.total, "facets": judged.facets}
    return rows


def _kl(
    policy: Policy, reference: Policy, asked: list[Prompt], answers: list[list[int]], max_length: int
) -> dict[str, Any]:
    """KL(policy | reference), nats an answer: the mean log-ratio of answers that the policy drew."""
    rendered = [
        Rendered(ids + answer, [False] * len(ids) + [True] * len(answer))
        for ids, answer in zip(rendered_prompts(policy, asked, max_length), answers, strict=True)
    ]
    ours, theirs = (frozen_logprobs(model, rendered, 16384) for model in (policy, reference))
    mean, low, high = mean_interval([a - b for a, b in zip(ours, theirs, strict=True)])
    return {"value": mean, "ci95": [low, high], "prompts": len(asked)}


def _corpus_losses(policy: Policy) -> Losses:
    """-log p of corpus documents that no model has seen, and their tokens: what alignment cost the language model."""
    texts = load_texts("world", CORPUS_TOKENS, policy.tokenizer, seed=CORPUS_SEED)
    documents = [as_document(ids, 512) for ids in texts if len(ids) > 1]
    logprobs = frozen_logprobs(policy, documents, 16384)
    return [-value for value in logprobs], [sum(one.loss_mask[1:]) for one in documents]


def _judged(asked: list[Prompt], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from tutelage.world import gold

    return [gold.behavior(p, r["text"], r["finish"]) for p, r in zip(asked, rows, strict=True)]


def _votes(asked: list[Prompt], ours: list[dict[str, Any]], theirs: list[dict[str, Any]], seed: int) -> list[float]:
    """One vote a prompt, each by a labeler of the panel that no training data came from."""
    from tutelage.world.labelers import panel

    labelers, rng, votes = panel("held-out"), random.Random(f"votes {seed}"), []
    for prompt, a, b in zip(asked, ours, theirs, strict=True):
        ranks = rng.choice(labelers).rank(prompt, [a["text"], b["text"]], [a["finish"], b["finish"]], rng)
        votes.append(1.0 if ranks[0] < ranks[1] else 0.5 if ranks[0] == ranks[1] else 0.0)
    return votes


def reward_model_against_gold(
    reward_path: str, policy_path: str, dtype: str, prompts_count: int = 150, samples: int = 8, *, device: str = "auto"
) -> dict[str, Any]:
    """The reward model within one policy's samples on the world's tuning prompts: gold order and best-of-n."""
    from tutelage.world import gold
    from tutelage.world import prompts as world_prompts

    policy, reward = load_policy(policy_path, dtype, device=device), load_scalar(reward_path, dtype, device=device)
    asked = world_prompts("tune", prompts_count, seed=5)
    drawn = draw(policy, asked, samples, SamplingParams(64), 11, 1024)
    right: list[float] = []
    pairs_of: list[str] = []
    import torch

    by_n: dict[int, list[tuple[float, float]]] = {
        n: [] for n in sorted({2**k for k in range(samples.bit_length())} | {samples})
    }
    for prompt, row in zip(asked, drawn, strict=True):
        proxy = score_answers(reward, policy, [prompt] * samples, row, 1024, 16384)
        golds = torch.tensor([gold.score(prompt, text_of(policy, s), s.finish).total for s in row])
        for i, j in combinations(range(samples), 2):
            if golds[i] != golds[j]:
                right.append(float((proxy[i] > proxy[j]) == (golds[i] > golds[j])) if proxy[i] != proxy[j] else 0.5)
                pairs_of.append(prompt.id)
        for n, found in by_n.items():
            found.append((best_of_n(proxy, golds, n), best_of_n(proxy, proxy, n)))
    table = []
    for n, found in by_n.items():
        gold_mean, proxy_mean = (_mean([row[place] for row in found]) for place in (0, 1))
        table.append({"n": n, "gold": gold_mean["value"], "proxy": proxy_mean["value"], "gold_ci95": gold_mean["ci95"]})
    accuracy = sum(right) / len(right) if right else None
    return {"gold_accuracy": accuracy, "gold_accuracy_ci95": share_interval(right, pairs_of), "best_of_n": table}
