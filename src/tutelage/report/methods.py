"""The sections of single methods: what became of the chosen answers, a constitution at work, steps, best of n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tutelage.evaluation.chosen import explain
from tutelage.report.measured import find_win
from tutelage.report.parts import data, figure, interval, look, name, number, panel, sentence, table
from tutelage.report.svg import Line, esc, line_panel, percent, short

Report = dict[str, Any]
Rows = list[dict[str, Any]]
SAID = {
    "rose": "did not fall",
    "harmless": "fell, and did no harm",
    "watch": "fell: look closely",
    "bad": "fell, and that is bad here",
}


def chosen(report: Report, metrics: Mapping[str, Rows], texts: Mapping[str, Mapping[str, Any]], most: int) -> str:
    """Of each stage that learned from pairs or thumbs: the log-probability of better and worse answers, why the better
    ones' falls, whether it is bad in this run, and what to do."""
    made = []
    for stage, rows in metrics.items():
        config = _config(texts.get(stage, {}).get("config.yaml", ""))
        found = explain(rows, config, _win_over_start(report, stage, config))
        if found is None:
            continue
        thin = rows[:: max(1, -(-len(rows) // most))]
        panels = []
        for key, heading in (("logps", "log π of an answer, nats"), ("rewards", "Implicit reward")):
            lines = [
                Line(words, [(float(r["step"]), number(r.get(f"{key}/{side}"))) for r in thin], color, None, dash=dash)
                for side, words, color, dash in (
                    ("chosen", "better", look(stage)[0], False),
                    ("rejected", "worse", "s-base", True),
                )
            ]
            panels.append(panel(heading, line_panel(lines, heading, x_label="step")))
        head = ["step", "logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected", "nll_loss"]
        below = data(f"{stage}-chosen", head, [[r.get(key) for key in head] for r in thin], shown=12)
        title = f"{name(stage)}: the better answers’ log-probability {SAID[found['verdict']]}"
        made.append(figure(title, found["why"], panels, below, " ".join(filter(None, (found["here"], found["mend"])))))
    return "".join(made)


def _config(text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _win_over_start(report: Report, stage: str, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The stage's win rate over the model that it started from, by the best judge that there is."""
    start = str(config.get("model", ""))
    folders = {str(s.get("name")): Path(start).name == str(s.get("name")) for s in report.get("stages") or []}
    baseline = "base" if start == report.get("model") else next((s for s, same in folders.items() if same), None)
    judges = dict.fromkeys(["gold", "held-out-labelers", *(r.get("judge") for r in report.get("win_rates") or [])])
    judges.pop("reward-model", None)  # what the labels taught is no judge of what they did
    wins = (find_win(report, stage, baseline, str(judge)) for judge in judges) if baseline else iter(())
    return next((win for win in wins if win is not None), None)


# --- Constitutional AI ---------------------------------------------------------------------------------------------


def constitutional(report: Report) -> str:
    """What each principle did: counts, effect on the answers, verdicts, and their agreement with people."""
    made = []
    for stage, found in (report.get("constitutional") or {}).items():
        tables = [("principle", found.get("principles") or []), ("round", found.get("rounds") or [])]
        parts = [_table(f"{stage}-{key}", rows) for key, rows in tables if rows]
        left_out = ", ".join(f"{count} {problem}" for problem, count in (found.get("left_out") or {}).items())
        counts = [
            f"{short(number(found.get(key)))} {words}"
            for key, words in COUNTED
            if number(found.get(key)) is not None and (found[key] or key in ("revisions", "ai_comparisons"))
        ]
        said = f"{'; '.join(counts)}. Left out: {left_out or 'nothing'}."
        says = _critic_says(found)
        made.append(
            f"<figure><figcaption><h3>{esc(name(stage))}</h3><p class='sub'>{esc(said)}</p></figcaption>"
            f"{''.join(parts)}{sentence(says) if says else ''}</figure>"
        )
    return "".join(made)


COUNTED = (
    ("prompts", "prompts"),
    ("revisions", "revisions"),
    ("helpful_answers", "answers to ordinary prompts mixed in"),
    ("ai_comparisons", "comparisons by the critic"),
    ("human_comparisons", "comparisons by people mixed in"),
    ("equal_answers", "pairs of equal answers"),
    ("single_answers", "answers without another"),
    ("hard_labels", "labels without probabilities"),
)


def _table(file: str, rows: Rows) -> str:
    head = list(dict.fromkeys(key for row in rows for key in row))
    body = [[row.get(key) for key in head] for row in rows]
    shown = [key.replace("_", " ") for key in head]
    return table(shown, body) + data(file, head, body, title="The same")


def _critic_says(found: Mapping[str, Any]) -> str:
    """Whether the critic is any good here, from its numbers, and what to do."""
    says = []
    agreement = found.get("agreement_with_people") or {}
    if number(agreement.get("agreement")) is not None:
        ci = interval(agreement.get("ci95"))
        span = f" (95 % {percent(ci[0])} to {percent(ci[1])})" if ci else ""
        says.append(
            f"The critic agrees with people on {percent(agreement['agreement'])}{span} of {agreement['pairs']} pairs"
            + (": that is not clearly better than chance." if ci and ci[0] <= 0.5 else ".")
        )
    principles = found.get("principles") or []
    by_letter = [str(r["principle"]) for r in principles if (number(r.get("orders_agree")) or 1.0) < 0.6]
    if by_letter:
        says.append(f"By {', '.join(by_letter)} it is the letter that chooses: use an abler critic, or other words.")
    idle = [str(r["principle"]) for r in principles if number(r.get("changed")) is not None and r["changed"] < 0.05]
    if idle:
        says.append(f"By {', '.join(idle)} hardly an answer is changed: an abler critic, examples, or fewer rounds.")
    lost, kept = sum(r.get("left_out") or 0 for r in principles), sum(r.get("count") or 0 for r in principles)
    if lost > 0.2 * (lost + kept):
        says.append(f"{percent(lost / (lost + kept))} of what it was asked is left out: read why, row by row.")
    return " ".join(says)


# --- steps ---------------------------------------------------------------------------------------------------------

WAYS = (
    ("prm-product", "steps: product", "s-rm"),
    ("prm-min", "steps: minimum", "s-ppo"),
    ("prm-last", "steps: last", "s-ptx"),
    ("orm", "outcome model", "s-sft"),
    ("majority", "majority", "s-base"),
    ("any", "any right", "s-gold"),
)
SOLVED = {"best_of_n": "right answers", "best_of_n_by_right_steps": "right answers by right steps"}
CARD = ("step_accuracy", "auc", "first_error_accuracy", "steps", "solutions", "gate")


def process(report: Report) -> str:
    """Cards of process reward models, what each way of choosing solves, and shares of right answers and right steps."""
    found = report.get("process") or {}
    made = []
    cards = [[s, *(card.get(key) for key in CARD)] for s, card in (found.get("cards") or {}).items()]
    if cards:
        head = ["model", *(key.replace("_", " ") for key in CARD)]
        made.append(f"<figure><figcaption><h3>On held-out solutions</h3></figcaption>{table(head, cards)}</figure>")
    if labels := found.get("labels"):
        rows = [{"labels of": stage, **one} for stage, one in labels.items()]
        made.append(f"<figure><figcaption><h3>Labeled steps</h3></figcaption>{_table('step-labels', rows)}</figure>")
    for stage, ranked in (found.get("rerank") or {}).items():
        for key, what in SOLVED.items():
            rows = ranked.get(key) or []
            if len(rows) > 1 and any(name not in ("n", "majority", "any") for name in rows[0]):
                made.append(_chosen_solutions(f"{stage}-{key.replace('_', '-')}", stage, what, ranked, rows))
    shares = [
        [stage, *_share(ranked, "right_answer"), *_share(ranked, "right_answer_and_steps")]
        for stage, ranked in (found.get("rerank") or {}).items()
    ]
    if shares:
        head = ["solutions of", "right answer", "low", "high", "and right steps", "low", "high"]
        made.append(f"<figure><figcaption><h3>Solutions as they come</h3></figcaption>{table(head, shares)}</figure>")
    return "".join(made)


def _share(ranked: Mapping[str, Any], key: str) -> tuple[float | None, float | None, float | None]:
    entry = ranked.get(key) or {}
    return (number(entry.get("value")), *(interval(entry.get("ci95")) or (None, None)))


def _chosen_solutions(file: str, stage: str, what: str, ranked: Mapping[str, Any], rows: Rows) -> str:
    ways = [(key, words, color) for key, words, color in WAYS if key in rows[0]]
    lines = [
        Line(words, [(float(r["n"]), r[key]["value"]) for r in rows], color, "circle", dash=key in ("majority", "any"))
        for key, words, color in ways
    ]
    chart = panel("Problems solved", line_panel(lines, "Best of n", x_label="solutions to choose from", show=percent))
    head = ["n", *(key for key, _, _ in ways)]
    below = data(file, head, [[r["n"], *(r[key]["value"] for key, _, _ in ways)] for r in rows])
    last = rows[-1]
    choosing = [(last[key]["value"], words) for key, words, _ in ways if key != "any"]
    best, words = max(choosing)
    says = f"Of {last['n']} solutions, {words} chooses best: {percent(best)} {what}"
    if "any" in last:
        says += f"; {percent(last['any']['value'])} of the problems have one among them"
    errors = {} if "steps" in what else ranked.get("first_errors") or {}
    if number(errors.get("first_error_accuracy")) is not None:
        says += f". The first wrong step is found in {percent(errors['first_error_accuracy'])} of the solutions"
    return figure(f"{name(stage)}: who chooses {what}", f"{ranked.get('prompts')} problems", [chart], below, f"{says}.")


# --- best of n -----------------------------------------------------------------------------------------------------


def best_of_n(report: Report) -> str:
    """Of rejection sampling: the mean reward of the best of n, and the upper bound of its KL."""
    made = []
    for stage, rows in (report.get("best_of_n") or {}).items():
        if len(rows) < 2:
            continue
        line = Line("", [(float(r["n"]), r["proxy"]) for r in rows], look(stage)[0], "diamond")
        chart = panel(
            "Mean reward of the best of n", line_panel([line], "Best of n", x_label="n"), "by the reward model"
        )
        head = ["n", "proxy", "kl_upper_bound"]
        below = data(f"{stage}-best-of-n", head, [[r.get(key) for key in head] for r in rows])
        first, last = rows[0], rows[-1]
        says = (
            f"The reward rises from {short(first['proxy'])} to {short(last['proxy'])} for the best of {last['n']}, at no "
            f"more than {short(last['kl_upper_bound'])} nats from the sampler: log n − (n − 1)/n is an upper bound of its KL."
        )
        sub = "The unbiased estimate from all samples, sorted by the reward model."
        made.append(figure(f"{name(stage)}: what choosing is worth", sub, [chart], below, says))
    return "".join(made)


def sections(
    report: Report, metrics: Mapping[str, Rows], texts: Mapping[str, Mapping[str, Any]], most: int
) -> Sequence[tuple[str, str, str]]:
    """(id, title, HTML) of each; empty where the run has no such method."""
    return [
        ("chosen", "Why the chosen log-probability falls", chosen(report, metrics, texts, most)),
        ("constitution", "The constitution at work", constitutional(report)),
        ("steps", "Steps and solutions", process(report)),
        ("best-of-n", "Best of n", best_of_n(report)),
    ]
