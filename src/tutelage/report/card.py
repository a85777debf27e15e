"""The model card: of each model what it is trained from, on what, and its limits as measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.report.behaviors import measured
from tutelage.report.measured import JUDGES
from tutelage.report.parts import badge, ends, facts, interval, look, name, number, ordered
from tutelage.report.svg import esc, percent, short

Report = dict[str, Any]
LIMITS = (
    ("harmful_compliance", "complies with harmful requests"),
    ("over_refusal", "refuses harmless requests"),
    ("sycophancy", "agrees with wrong opinions"),
    ("agrees_with_wrong_opinion", "goes along with a user's wrong opinion"),
    ("gives_up_right_answer", "gives up a right answer to please"),
    ("backs_down_when_doubted", "backs down when doubted"),
)
KINDS = {"endpoint": "a model behind an API; what it was trained on is not known here", "outputs": "a file of outputs"}


def model_card(report: Report) -> str:
    models = report.get("models") or _from_stages(report)
    if not models:
        return ""
    made = "".join(_card(report, stage, models[stage]) for stage in ordered(list(models)))
    return (
        "<p>What each model is, and where it falls short on the prompts of this report. It was measured on these prompts "
        f"only: measure again on your own before you rely on it.</p><div class='cols'>{made}</div>"
    )


def _from_stages(report: Report) -> dict[str, dict[str, Any]]:
    """Of a report without provenance: the models that were measured, by the stage that made each."""
    made_by = {str(s.get("name")): s for s in report.get("stages") or []}
    return {
        stage: {"source": str(made_by[stage].get("checkpoint")), "made_by": [{"stage": made_by[stage].get("verb")}]}
        for stage in measured(report)
        if stage in made_by
    }


def _card(report: Report, stage: str, about: dict[str, Any]) -> str:
    chain = about.get("made_by") or []
    steps = [str(step.get("stage") or "a checkpoint of another origin") for step in chain]
    data = dict.fromkeys(f"{step.get('stage')}: {_short_hash(step['data'])}" for step in chain if step.get("data"))
    reward = next((step["reward_model"] for step in chain if step.get("reward_model")), None)
    pairs = [
        ("is", KINDS.get(str(about.get("kind")))),
        ("trained", " ← ".join(steps)),
        ("on data", "; ".join(data)),
        ("reward model", _tail(reward) if reward else None),
        ("from", _tail(about.get("source"))),
        ("sha256", str(about["sha256"])[:16] if about.get("sha256") else None),
    ]
    limits = "".join(f"<li>{esc(line)}</li>" for line in _limits(report, stage))
    found = f'<p class="tiny">As measured</p><ul class="plain small">{limits}</ul>' if limits else ""
    return f'<div class="answer {look(stage)[0]}"><p class="who">{badge(stage)}{esc(name(stage))}</p>{facts(pairs)}{found}</div>'


def _tail(path: Any) -> str:
    """A path's last parts: whose machine it was on is nobody's business."""
    parts = Path(str(path)).parts if path and "://" not in str(path) else (str(path or ""),)
    return "/".join(parts[-4:])


def _short_hash(value: Any) -> str:
    text = str(value)
    return f"sha256 {text[:12]}" if len(text) == 64 else text


def _limits(report: Report, stage: str) -> list[str]:
    """Shares of what it should not do, what it lost of the base's language, and against whom it loses."""
    found, lines = measured(report).get(stage, {}), []
    for key, words in LIMITS:
        value = number((found.get(key) or {}).get("value"))
        if value is not None:
            lines.append(f"{words}: {percent(value)}{_span(found[key])} of {short(number(found[key].get('prompts')))}")
    for row in report.get("changes") or []:
        if row["behavior"] == "corpus_loss" and row["policy"] == stage and row["changed"] and row["difference"] > 0:
            low, high = ends(row)
            span = f" ({short(low)} to {short(high)})"
            lines.append(f"lost {short(row['difference'])}{span} nats a token of {name(row['baseline'])}’s language")
    for row in report.get("win_rates") or []:
        ci = interval(row.get("ci95"))
        if row["policy"] == stage and ci and ci[1] < 0.5:
            lines.append(_loses(row["baseline"], row["judge"], row["win_rate"]))
        elif row["baseline"] == stage and ci and ci[0] > 0.5:
            lines.append(_loses(row["policy"], row["judge"], 1 - row["win_rate"]))
    return lines


def _loses(other: str, judge: str, rate: float) -> str:
    return f"loses to {name(other)} by {JUDGES.get(judge, judge)}: wins {percent(rate)}"


def _span(entry: dict[str, Any]) -> str:
    ci = interval(entry.get("ci95"))
    return f" ({percent(ci[0])} to {percent(ci[1])})" if ci else ""
