"""What is wrong with a run, in plain words: alarms of its steps, reward hacking, and what must hold at the first step."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tutelage.evaluation.chosen import explain
from tutelage.evaluation.hacking import hacked
from tutelage.evaluation.overoptimization import Point, curve, exploited
from tutelage.runs.alarms import on_policy_alarms
from tutelage.runs.files import read_log
from tutelage.runs.rollback import rollbacks
from tutelage.workbench.watching import ON_POLICY, RunView

ROUNDING = 0.05  # nats an answer by which the first KL may differ from 0
AGREE = 0.1  # nats a token: sampler and trainer (as check_first_rollout has it)
NEAR_ONE = 0.1  # of the ratio new : old, which the updates of the first step move


def alarms(run: RunView) -> list[dict[str, Any]]:
    """What is or was wrong: each kind once, with its first and last step; hacking first, then where it went back."""
    back = [
        {"since": one.step, "until": one.step, "now": False, "message": f"{one.reason}; went back to step {one.to}"}
        for one in rollbacks(run.path)
    ]
    if run.stage not in ON_POLICY:
        return back
    found: dict[str, dict[str, Any]] = {}
    for row in read_log(run.path / "metrics.jsonl"):
        for message in on_policy_alarms(row, row["step"]):
            kind = message.partition(":")[2] or message
            one = found.setdefault(kind, {"since": row["step"]})
            one |= {"message": message, "until": row["step"]}
    steps = [{**one, "now": one["until"] >= run.steps} for one in found.values()]
    return [*filter(None, [hacking(run)]), *back, *steps]


def chosen_answers(run: RunView) -> dict[str, Any] | None:
    """Of a run that learns from pairs or thumbs: why the better answers' log-probability falls, and if that is bad here."""
    return explain(read_log(run.path / "metrics.jsonl"), {"stage": run.stage, **run.config})


# --- proxy and gold ------------------------------------------------------------------------------------------------


def judged_samples(run: RunView) -> list[dict[str, Any]]:
    """The rows of samples.jsonl that have proxy, KL and gold; in the embedded world the gold judge scores them here.

    Only a page asks the judge: training never reads it.
    """
    rows = [r for r in read_log(run.path / "samples.jsonl") if {"step", "proxy", "kl", "tokens", "text"} <= r.keys()]
    if rows and run.config.get("data") == "world" and "gold" not in rows[0]:
        count, seed = int(run.config.get("eval_prompts") or 0), int(run.config.get("seed") or 0)
        for row in rows:
            row["gold"] = _gold(row.get("prompt_id", ""), row["text"], row.get("finish", "stop"), count, seed)
    return [row for row in rows if row.get("gold") is not None]


@lru_cache(maxsize=65536)
def _gold(prompt: str, text: str, finish: str, count: int, seed: int) -> float | None:
    from tutelage.world import gold

    asked = _asked(count, seed).get(prompt)
    return None if asked is None else gold.score(asked, text, finish).total


@lru_cache(maxsize=16)
def _asked(count: int, seed: int) -> dict[str, Any]:
    from tutelage.world import prompts

    return {prompt.id: prompt for prompt in prompts("tune", count, seed)} if count else {}


def proxy_and_gold(run: RunView) -> list[Point]:
    """Means of proxy, gold, KL and length at each step whose samples carry gold; empty where none do."""
    return curve(judged_samples(run), lambda row: row["gold"]) if run.stage in ON_POLICY else []


def hacking(run: RunView) -> dict[str, Any] | None:
    """The alarm that the proxy rises while gold falls, with the KL since when, and what the answers changed."""
    rows = judged_samples(run)
    points = curve(rows, lambda row: row["gold"])
    if not hacked(points):
        return None
    peak, last = max(points, key=lambda p: p["gold"]), points[-1]
    before, after = ([r["text"] for r in rows if r["step"] == p["step"]] for p in (peak, last))
    message = (
        f"Proxy up, gold down since KL = {peak['kl']:.1f}: proxy {peak['proxy']:.2f} → {last['proxy']:.2f}, "
        f"gold {peak['gold']:.2f} → {last['gold']:.2f}. {exploited(before, after)} "
        f"Raise {'beta' if run.stage == 'online-dpo' else 'kl_coef'}, or go back to the checkpoint nearest to step {peak['step']}"
    )
    return {"since": peak["step"], "until": last["step"], "message": message, "now": True}


# --- the first step ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Invariant:
    """Something that must hold before anything is learned. holds: None where the run does not say."""

    holds: bool | None
    text: str
    otherwise: str  # what it means when it does not hold


def first_step(run: RunView) -> list[Invariant]:
    """The checks of an on-policy run's first rollout (stages.rollout.check_first_rollout), read from what it logged."""
    row = next((r for r in read_log(run.path / "metrics.jsonl") if r.get("step") == 1), None)
    if row is None or run.stage not in ON_POLICY:
        return []
    scores = [s["proxy"] for s in read_log(run.path / "samples.jsonl") if s.get("step") == 1 and "proxy" in s]
    return [
        _kl_is_zero(row),
        _near(
            row.get("val/ratio"),
            1.0,
            NEAR_ONE,
            "new : old probability of a token, mean of the first updates, is {}; it should be 1",
            "the update sees other weights or another temperature than the rollout did",
        ),
        _near(
            row.get("sampling/sampling_logp_difference/mean"),
            0.0,
            AGREE,
            "sampler and trainer differ by {} nats a token; it should be 0 up to rounding",
            "temperature or template differ between them",
        ),
        _ends(row.get("val/num_eos_tokens")),
        _spread(scores, row.get("reward_std")),
    ]


def _kl_is_zero(row: dict[str, Any]) -> Invariant:
    """The first rollout comes before any update, so the policy is its reference; k3 cannot cancel out as k1 can."""
    known = [row[name] for name in ("objective/kl", "objective/kl_k3") if name in row]
    words = "the first KL is {} nats an answer; it should be 0"
    otherwise = "policy and reference are not the same checkpoint"
    return _near(max(known, key=abs, default=None), 0.0, ROUNDING, words, otherwise)


def _near(value: float | None, aim: float, within: float, text: str, otherwise: str) -> Invariant:
    if value is None:
        return Invariant(None, text.format("not logged"), otherwise)
    return Invariant(abs(value - aim) <= within, text.format(f"{value:.3f}"), otherwise)


def _ends(ended: float | None) -> Invariant:
    otherwise = "the end token was not trained in SFT, or max_new_tokens is too small"
    if ended is None:
        return Invariant(None, "answers that ended by themselves: not logged", otherwise)
    return Invariant(ended > 0, f"{ended:.0f} answers ended with the end token; some should", otherwise)


def _spread(scores: Sequence[float], within_prompts: float | None) -> Invariant:
    """Of the rewards: over the held-out answers of the first step, else over the answers to one prompt."""
    otherwise = "the reward model gives every answer the same score, so there is nothing to learn"
    text = "rewards of the first answers differ: {}"
    if len(scores) > 1:
        return Invariant(max(scores) > min(scores), text.format(f"{min(scores):.2f} to {max(scores):.2f}"), otherwise)
    if within_prompts is None:
        return Invariant(None, text.format("not logged"), otherwise)
    return Invariant(within_prompts > 0, text.format(f"standard deviation {within_prompts:.2f}"), otherwise)
