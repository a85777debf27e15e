"""Best of n solutions: by a process reward model, by an outcome reward model, and by majority voting.

For n = 1, 2, 4, … the share of problems whose chosen solution has the right answer, without bias over the N solutions that
there are (score: the estimator of algorithms/best_of_n.py; majority: means over subsets drawn at random).
"""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from tutelage.algorithms.best_of_n import best_of_n
from tutelage.algorithms.process import AGGREGATIONS, solution_scores
from tutelage.configs import RerankConfig
from tutelage.data.templates import render_completions
from tutelage.engine.packing import offsets_of
from tutelage.errors import UserError
from tutelage.evaluation.intervals import mean_interval
from tutelage.evaluation.step_card import auc, auc_interval, step_card
from tutelage.models import is_step_model, load_scalar, load_step_model
from tutelage.records import Completion, Prompt
from tutelage.runs import check_folder, write_json
from tutelage.solutions import final_answer, solves, split_steps
from tutelage.stages.label import read_completions
from tutelage.stages.reward import score_groups
from tutelage.stages.step_scores import guarded_steps, whole_scores

DRAWS = 64  # subsets for majority voting at each n
Groups = list[tuple[Prompt, list[Completion]]]


def run(config: RerankConfig) -> dict[str, Any]:
    """Choose among solutions; returns the table (and with --out writes it)."""
    # 1. Problems whose answer is known, each with its solutions.
    if config.data.startswith("world"):
        mend = "tutelage sample --data world:reasoning --split report --samples 16 --out FILE, then --data FILE"
        raise UserError("the world has no completions by itself", where="option --data (data)", mend=mend)
    if config.out:
        check_folder(Path(config.out).expanduser())
    asked, found = read_completions(Path(config.data))
    groups = [(asked[name], group) for name, group in found.items() if asked[name].answer is not None]
    if not groups:
        raise UserError(
            "no prompt has an answer to check against", where=config.data, mend="give prompts a field answer"
        )
    right = [[solves(one.text, prompt.answer) for one in group] for prompt, group in groups]
    result: dict[str, Any] = {"stage": "rerank", "prompts": len(groups), "solutions": sum(map(len, right))}
    by_steps = _by_right_steps(groups)
    result["right_answer"] = _share(right)
    if by_steps is not None:
        result["right_answer_and_steps"] = _share(by_steps)

    # 2. What each way of choosing makes of n solutions.
    scores: dict[str, list[list[float]]] = {}
    if config.prm is not None:
        steps = _steps(config.prm, groups, config)
        for name in AGGREGATIONS:
            scores[f"prm-{name}"] = [_aggregated(name, one) for one in steps]
        result["first_errors"] = _first_errors(groups, steps)
    if config.orm is not None:
        scores["orm"] = _outcome(config.orm, groups, config)
    smallest = min(len(one) for one in right)
    sizes = sorted({*(2**k for k in range(smallest.bit_length()) if 2**k <= smallest), smallest})
    result["best_of_n"] = [_at(n, groups, right, scores, config.seed) for n in sizes]
    if by_steps is not None:
        result["best_of_n_by_right_steps"] = [_at(n, groups, by_steps, scores, config.seed) for n in sizes]
    flat = [one for row in right for one in row]
    result["auc"] = {
        name: {"value": auc(values, flat), "ci95": auc_interval(values, flat)}
        for name, rows in scores.items()
        for values in [[value for row in rows for value in row]]
    }
    if config.out:
        out = Path(config.out).expanduser()
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "rerank.json", result)
    return result


def _share(right: list[list[bool]]) -> dict[str, Any]:
    """Of the solutions that are right, with its interval over problems."""
    return _interval([sum(row) / len(row) for row in right])


def _by_right_steps(groups: Groups) -> list[list[bool]] | None:
    """In the world: whether each solution has the right answer, and every step before it is right too."""
    from tutelage.world.reasoning import is_reasoning, solved

    if not all(is_reasoning(prompt) for prompt, _ in groups):
        return None
    return [[solved(prompt, one.text)[1] for one in group] for prompt, group in groups]


def _interval(shares: list[float]) -> dict[str, Any]:
    mean, low, high = mean_interval(shares)
    return {"value": mean, "ci95": [low, high]}


def _steps(path: str, groups: Groups, config: RerankConfig) -> list[list[list[float]]]:
    """Scores of the steps of every solution of every problem."""
    model = load_step_model(path, config.dtype, device=config.device)
    flat = [(prompt.messages, one.text) for prompt, group in groups for one in group]
    scores = iter(guarded_steps(model, [m for m, _ in flat], [t for _, t in flat], config.max_length))
    return [[next(scores) for _ in group] for _, group in groups]


def _aggregated(name: str, steps: list[list[float]]) -> list[float]:
    offsets = offsets_of(torch.tensor([len(one) for one in steps]))
    flat = torch.tensor([score for one in steps for score in one])
    return solution_scores(AGGREGATIONS[name](flat, offsets), offsets).tolist()


def _outcome(path: str, groups: Groups, config: RerankConfig) -> list[list[float]]:
    """One score a solution, of a model of outcomes: trained by prm --supervision outcome, or by reward."""
    if is_step_model(path):
        model = load_step_model(path, config.dtype, device=config.device)
        found = iter([score for one in _steps(path, groups, config) for score in whole_scores(model, one).tolist()])
        return [[next(found) for _ in group] for _, group in groups]
    reward = load_scalar(path, config.dtype, device=config.device)
    return score_groups(
        reward, [render_completions(reward.tokenizer, p.messages, [s.text for s in group]) for p, group in groups]
    )


def _first_errors(groups: Groups, steps: list[list[list[float]]]) -> dict[str, Any] | None:
    """In the world: how well the scores find the first wrong step of each solution."""
    from tutelage.world.reasoning import is_reasoning, step_labels

    if not all(is_reasoning(prompt) for prompt, _ in groups):
        return None
    judged = [
        (scores, [label > 0 for label in step_labels(prompt, one.text)], None)
        for (prompt, group), rows in zip(groups, steps, strict=True)
        for one, scores in zip(group, rows, strict=True)
        if split_steps(one.text)
    ]
    return step_card(judged, each_step=True)


def _at(
    n: int, groups: Groups, right: list[list[bool]], scores: dict[str, list[list[float]]], seed: int
) -> dict[str, Any]:
    """The share of problems solved by the best of n, by each way of choosing."""
    row: dict[str, Any] = {"n": n, "majority": _interval(_majority(n, groups, right, seed))}
    for name, rows in scores.items():
        shares = [
            best_of_n(torch.tensor(values), torch.tensor(is_right, dtype=torch.float32), n)
            for values, is_right in zip(rows, right, strict=True)
        ]
        row[name] = _interval(shares)
    row["any"] = _interval([1 - _none_of(n, is_right) for is_right in right])
    return row


def _majority(n: int, groups: Groups, right: list[list[bool]], seed: int) -> list[float]:
    """For each problem how often one of n solutions that have the commonest answer is right.

    Equal counts are drawn among, and so are the solutions of one answer.
    """
    found = []
    for (prompt, group), is_right in zip(groups, right, strict=True):
        rng = random.Random(f"{seed} {prompt.id}")
        answers = [final_answer(one.text) for one in group]
        wins = 0.0
        for _ in range(DRAWS):
            drawn = [i for i in rng.sample(range(len(answers)), n) if answers[i] is not None]
            counts = Counter(answers[i] for i in drawn)
            most = max(counts.values(), default=0)
            shares = {a: sum(is_right[i] for i in drawn if answers[i] == a) / most for a in counts if counts[a] == most}
            wins += sum(shares.values()) / max(len(shares), 1)
        found.append(wins / DRAWS)
    return found


def _none_of(n: int, is_right: list[bool]) -> float:
    """P(no right one among n drawn without replacement): 1 - pass@n (Chen et al. 2021)."""
    total, wrong = len(is_right), len(is_right) - sum(is_right)
    chance = 1.0
    for k in range(n):
        chance *= max(wrong - k, 0) / (total - k)
    return chance
