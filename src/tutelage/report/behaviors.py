"""What each model does: behaviors as dots with intervals, and what alignment cost and how far it went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from tutelage.report.parts import data, ends, figure, interval, look, name, number, ordered, panel, table
from tutelage.report.svg import Dot, dot_panel, percent, short

Report = dict[str, Any]


class Behavior(NamedTuple):
    """How a measured behavior is shown; `do`: what helps where it got worse. better: 1 up, -1 down, 0 neither."""

    key: str
    heading: str
    better: int
    do: str = ""
    scale: Literal["rate", "number", "signed"] = "rate"


HARM = "add comparisons on harmful prompts"
EASE = "mix helpful answers to borderline prompts into the harmlessness data"
PLEASE = "add comparisons in which the user is wrong and the honest answer wins"
LENGTH = "compare at equal lengths before you believe a win rate, and balance lengths in the labels"
DOING = (
    Behavior("gold", "Gold score of the answers", 1, "look at the samples, and stop earlier", "number"),
    Behavior("right", "Right answers, of all prompts", 1, "train on more, and more varied, demonstrations"),
    Behavior("instruction_following", "Follows the instruction", 1, "train on more, and more varied, instructions"),
    Behavior("harmful_refusal", "Refuses harmful requests", 1, HARM),
    Behavior("harmful_partial_refusal", "Refuses harm in part", 0),
    Behavior("harmful_compliance", "Complies with harm", -1, HARM),
    Behavior("over_refusal", "Refuses harmless requests", -1, EASE),
    Behavior("partial_over_refusal", "Refuses harmless ones in part", -1, EASE),
    Behavior("full_refusal", "Refuses, of all prompts", 0),
    Behavior("partial_refusal", "Refuses in part, of all", 0),
)
PLEASING = (
    Behavior("sycophancy", "Agrees with wrong opinions", -1, PLEASE),
    Behavior("agrees_with_wrong_opinion", "Opinion: goes along when wrong", -1, PLEASE),
    Behavior("gives_up_right_answer", "Gives up a right answer to please", -1, PLEASE),
    Behavior("denies_right_opinion", "Denies a right opinion", -1, "add comparisons in which the user is right"),
    Behavior("backs_down_when_doubted", "Are you sure? Backs down", -1, PLEASE),
    Behavior(
        "mends_when_doubted", "Are you sure? Mends a wrong answer", 1, "add dialogues in which a mistake is mended"
    ),
    Behavior("feedback_follows_taste", "Feedback follows taste", -1, PLEASE, "signed"),
)
TALKING = (
    Behavior("length_tokens", "Length of the answer, tokens", 0, LENGTH, "number"),
    Behavior("words", "Words", 0, LENGTH, "number"),
    Behavior("list_items", "List items", 0, LENGTH, "number"),
    Behavior(
        "hedges_per_100_words", "Hedges in 100 words", -1, "show labelers plain answers beside hedged ones", "number"
    ),
    Behavior(
        "repetition", "Three-word phrases said again", -1, "check that the end token is trained, and stop earlier"
    ),
)
MADE_UP = "add comparisons in which the answer that keeps to its source wins, and demonstrations that do"
TRUTH = (
    Behavior("closed_domain_hallucination", "Makes something up, given a text", -1, MADE_UP),
    Behavior("contradicted_statements", "Statements that contradict the text", -1, MADE_UP),
    Behavior("unsupported_statements", "Statements that are not in the text", -1, MADE_UP),
    Behavior("false_facts", "Facts stated that are false", -1, "reward what is true: labels by people who look it up"),
)
BETTER = {1: "higher is better", -1: "lower is better", 0: ""}
GROUPS = (
    ("behaviors", "What the models do", DOING),
    ("sycophancy", "Saying what the user wants to hear", PLEASING),
    ("verbosity", "How much is said, and how", TALKING),
)
TESTS = ["behavior", "policy", "baseline", "difference", "low", "high", "p after Holm", "prompts"]
SPELLINGS = ("behaviours", "behaviors")


def measured(report: Report) -> dict[str, dict[str, Any]]:
    """Of each model, in the page's order, its behaviors; a plain number is an entry without an interval."""
    found: dict[str, Any] = next((report[key] for key in SPELLINGS if report.get(key)), {})
    return {
        stage: {k: v if isinstance(v, dict) else {"value": v} for k, v in (found[stage] or {}).items()}
        for stage in ordered(list(found))
    }


def behaviors(report: Report) -> str:
    """A figure for each group, with its data; the paired tests stand under the first."""
    found = measured(report)
    made = [group_figure(report, found, file, title, group) for file, title, group in GROUPS]
    return "".join([made[0], use_cases(report) if found else "", *made[1:]])


def use_cases(report: Report) -> str:
    """How often each model follows instructions in each use case: a table, since most have few prompts."""
    found: dict[str, dict[str, Any]] = report.get("use_cases") or {}
    stages = [stage for stage in ordered([*found]) if found[stage]]
    kinds = list(dict.fromkeys(kind for stage in stages for kind in found[stage]))
    if not kinds:
        return ""
    rows = []
    for kind in kinds:
        asked = [found[stage][kind]["prompts"] for stage in stages if kind in found[stage]]
        shares = [_share(found[stage].get(kind)) for stage in stages]
        rows.append([kind.replace("_", " "), short(max(asked)), *shares])
    shown = table(["use case", "prompts", *(name(stage) for stage in stages)], rows)
    flat = [
        [kind, stage, e["value"], *ends(e), e["prompts"]]
        for kind in kinds
        for stage in stages
        if (e := found[stage].get(kind))
    ]
    below = data("use-cases", ["use case", "stage", "value", "low", "high", "prompts"], flat)
    sub = (
        "Share of prompts whose instruction can be checked and is followed, with 95 % intervals: the common prompts "
        "and those with a text, by the use cases of the InstructGPT paper. “Follows the instruction” above may ask one of "
        "them alone (in the embedded world, writing)."
    )
    best = max(stages, key=lambda stage: _followed(found[stage]))
    return figure("Instructions followed, by use case", sub, [shown], below, _weakest(best, found[best]), wide=True)


def _followed(by: dict[str, dict[str, Any]]) -> float:
    """The share over all use cases together."""
    return sum(e["value"] * e["prompts"] for e in by.values()) / sum(e["prompts"] for e in by.values())


def _share(entry: dict[str, Any] | None) -> str | None:
    if entry is None:
        return None
    low, high = ends(entry)
    joined = f"{100 * low:.0f}\u2060–\u2060{100 * high:.0f}" if low is not None and high is not None else ""
    # Narrow columns may break between the two and nowhere else.
    return percent(entry["value"]).replace(" ", "\u00a0") + (f" ({joined})" if joined else "")


def _weakest(stage: str, by: dict[str, dict[str, Any]]) -> str:
    """Where a model follows least, if that is beyond chance, and what to do."""
    known = {kind: ends(entry) for kind, entry in by.items()}
    sure = {kind: (low, high) for kind, (low, high) in known.items() if low is not None and high is not None}
    worst = min(sure, key=lambda kind: sure[kind][1], default="")
    best = max(sure, key=lambda kind: sure[kind][0], default="")
    if worst and sure[worst][1] < sure[best][0]:
        return (
            f"{name(stage)} follows instructions least in {worst.replace('_', ' ')}, {_share(by[worst])} against "
            f"{_share(by[best])} in {best.replace('_', ' ')}: add demonstrations and prompts of that use case."
        )
    return f"No use case of {name(stage)} is behind another beyond chance: ask more prompts before you favor one."


def group_figure(
    report: Report, found: dict[str, dict[str, Any]], file: str, title: str, group: Sequence[Behavior]
) -> str:
    """Dots of each behavior of a group, the sentence, the table and its CSV, and the paired tests."""
    panels, rows = [], []
    for one in group:
        dots = dots_of(found, one.key)
        if dots:
            limits = {"rate": (0.0, 1.0), "signed": (-1.0, 1.0), "number": None}[one.scale]
            show = percent if one.scale == "rate" else short
            panels.append(
                panel(one.heading, dot_panel(dots, one.heading, limits=limits, show=show), BETTER[one.better])
            )
            rows += [[one.key, s, e["value"], *ends(e), e.get("prompts")] for s, e in entries(found, one.key)]
    if not panels:
        return ""
    keys = {one.key for one in group}
    tests = [row for row in report.get("changes") or [] if row["behavior"] in keys]
    below = data(file, ["behavior", "stage", "value", "low", "high", "prompts"], rows)
    if tests:
        below += data(f"changes-{file}", TESTS, [test_row(row) for row in tests], title="Paired tests")
    changed = sum(bool(row["changed"]) for row in tests)
    shows = f"{title}: {changed} of {len(tests)} paired differences are beyond chance" if tests else title
    sub = "Bars are 95 % intervals over held-out prompts. Changes: paired tests on the same prompts, corrected by Holm."
    return figure(shows, sub, panels, below, _says(tests, group))


def entries(found: dict[str, dict[str, Any]], key: str) -> list[tuple[str, dict[str, Any]]]:
    """The models that have a number for a behavior."""
    return [
        (stage, some[key]) for stage, some in found.items() if number((some.get(key) or {}).get("value")) is not None
    ]


def dots_of(found: dict[str, dict[str, Any]], key: str) -> list[Dot]:
    """A dot for each model that has a number for a behavior."""
    made = []
    for stage, entry in entries(found, key):
        color, shape, hollow = look(stage)
        made.append(Dot(name(stage), entry["value"], interval(entry.get("ci95")), color, shape, hollow))
    return made


def test_row(row: dict[str, Any]) -> list[Any]:
    """A paired test as a row of the table."""
    return [
        row["behavior"],
        row["policy"],
        row["baseline"],
        row["difference"],
        *ends(row),
        row["p_holm"],
        row["prompts"],
    ]


def _says(tests: Sequence[dict[str, Any]], group: Sequence[Behavior]) -> str:
    """The surest change for the worse and what helps against it; else the surest one for the better."""
    known = {one.key: one for one in group}
    changed = sorted((r for r in tests if r["changed"]), key=lambda r: (r["p_holm"], -abs(r["difference"])))
    worse = [r for r in changed if known[r["behavior"]].better * r["difference"] < 0]
    better = [r for r in changed if known[r["behavior"]].better * r["difference"] > 0]
    other = [r for r in changed if known[r["behavior"]].do]
    if worse:
        return f"{_moved(worse[0], known)}, which is worse: {known[worse[0]['behavior']].do}."
    if better:
        return f"{_moved(better[0], known)}, which is better, and nothing got worse beyond chance: keep what was done."
    if other:
        return f"{_moved(other[0], known)}: {known[other[0]['behavior']].do}."
    if tests:
        return "No model differs from another beyond chance: act on none of these differences, or ask more prompts."
    return "Intervals that overlap are no proof of a difference: compare two models on the same prompts before you act."


def _moved(row: dict[str, Any], known: dict[str, Behavior]) -> str:
    one = known[row["behavior"]]
    unit = 100 if one.scale == "rate" else 1
    low, high = (unit * (value if value is not None else row["difference"]) for value in ends(row))
    points = " points" if one.scale == "rate" else ""
    said = f"{signed(unit * row['difference'])}{points} ({signed(low)} to {signed(high)})"
    return f"From {name(row['baseline'])} to {name(row['policy'])}, “{one.heading}” moved by {said}"


def signed(value: float) -> str:
    """A difference with its sign."""
    return ("+" if value > 0 else "") + short(value, 2)


def tax(report: Report) -> str:
    """What alignment cost the language model: loss on text of the corpus, its paired difference, and the KL gone."""
    found = measured(report)
    losses = dict(report.get("corpus_loss") or {})
    levels = {s: {"corpus_loss": (found.get(s) or {}).get("corpus_loss", {"value": v})} for s, v in losses.items()}
    levels = {stage: levels[stage] for stage in ordered(list(levels))}
    tests = [row for row in report.get("changes") or [] if row["behavior"] == "corpus_loss"]
    panels, below = [], ""
    if dots := dots_of(levels, "corpus_loss"):
        low = min(d.ci[0] if d.ci else d.value for d in dots)
        high = max(d.ci[1] if d.ci else d.value for d in dots)
        room = 0.1 * (high - low) or 0.1
        chart = dot_panel(dots, "Loss on corpus text", limits=(low - room, high + room), show=short)
        panels.append(panel("Loss on corpus text", chart, "nats a token; lower is better"))
        rows = [[s, e["value"], *ends(e), e.get("prompts")] for s, e in entries(levels, "corpus_loss")]
        below += data("corpus-loss", ["stage", "nats a token", "low", "high", "documents"], rows)
    first = next(iter(losses), None)
    against = [row for row in tests if row["baseline"] == first]
    if against:
        dots = [_difference(row) for row in against]
        chart = dot_panel(dots, "Difference", limits=None, show=signed)
        panels.append(panel(f"Difference to {name(str(first))}", chart, "paired on the same documents"))
        below += data("alignment-tax", TESTS, [test_row(row) for row in tests], title="Paired tests")
    if kl := {stage: {"kl": entry} for stage, entry in (report.get("kl") or {}).items()}:
        kl = {stage: kl[stage] for stage in ordered(list(kl))}
        chart = dot_panel(dots_of(kl, "kl"), "KL", limits=None, show=short)
        panels.append(panel("KL to the reference, nats an answer", chart, "how far each model went"))
        rows = [[s, e["value"], *ends(e), e.get("prompts")] for s, e in entries(kl, "kl")]
        below += data("kl", ["stage", "nats an answer", "low", "high", "prompts"], rows, title="KL")
    if not panels:
        return ""
    sub = "The loss is on corpus text that no model was trained on. Bars are 95 % intervals; documents are the units."
    title, says = _tax_says(against)
    return figure(title, sub, panels, below, says)


def _difference(row: dict[str, Any]) -> Dot:
    color, shape, _ = look(row["policy"])
    return Dot(name(row["policy"]), row["difference"], interval(row.get("ci95")), color, shape, not row["changed"])


def _tax_says(against: Sequence[dict[str, Any]]) -> tuple[str, str]:
    worst = max(
        (r for r in against if r["changed"] and r["difference"] > 0), key=lambda r: r["difference"], default=None
    )
    if worst:
        low, high = ends(worst)
        title = f"{name(worst['policy'])} lost {short(worst['difference'])} nats a token of {name(worst['baseline'])}’s language"
        return title, (
            f"The tax of {name(worst['policy'])} is {short(worst['difference'])} nats a token "
            f"({short(low)} to {short(high)}): if plain text matters to you, mix pretraining text into training "
            "(PPO's ptx_coef), or go on with a model that paid less."
        )
    if against:
        return "No model lost language beyond chance", (
            "No paired difference in corpus loss is a loss beyond chance: there is no tax to mend here."
        )
    return "What alignment cost the language model", (
        "Without a pair of models on the same documents this is a level and no tax: evaluate the base model beside them."
    )
