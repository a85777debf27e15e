"""A comparison of models as one HTML file: the matrix, ratings, and every answer side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.evaluation.intervals import wilson
from tutelage.report.document import document
from tutelage.report.parts import data, facts, figure, panel
from tutelage.report.reward_strip import LEGEND, in_words, largest_change, reading, tinted
from tutelage.report.svg import Dot, dot_panel, esc

LIMIT = 2_500_000  # bytes; beyond it the rewards word by word are left out
SHADES = {"full": "", "partial": "", "refused": "even"}  # to refuse is neither good nor bad
CELL_HEAD = ["prompt", "category", "model", "state", "class", "words", "reward"]
SHOWN = {"cut": "cut off", "queued": "waiting", "running": "waiting"}  # states in words


def render_comparison(found: Mapping[str, Any]) -> str:
    """The page. found:

    id, exported; columns: [{name, kind, identity, kept}]; settings: [(what, value)]; counts: {state: n}; notes: [str];
    ratings: [{judge, rows, verdicts, sentence}]; rows: [{id, category, messages, hidden, cells, verdicts, votes}], a cell
    being {model, state, class, words, reward, reason, pieces: [(same|new|gone, text)], text, names_itself, by_prefix}.
    Of a hidden row there is nothing but its prompt.
    """
    page = _page(found, strips=True)
    return page if len(page.encode()) <= LIMIT else _page(found, strips=False)


def _page(found: Mapping[str, Any], *, strips: bool) -> str:
    columns, rows = found["columns"], found["rows"]
    names = [one["name"] for one in columns]
    labels = short_names(names)
    title = f"{', '.join(names)}: {len(rows)} prompts"
    first = found["ratings"][0]["sentence"] if found["ratings"] else ""
    read = any(reading(cell) for row in rows for cell in row["cells"])
    notes = [*found["notes"]]
    if read and not strips:
        notes.append("The rewards word by word are left out: the page would be too large.")
    sections = [
        ("ratings", "Ratings", _ratings(found["ratings"], labels)),
        ("classes", "Who answers, and who refuses", _classes(names, rows, labels)),
        ("matrix", "Prompts by models", _matrix(columns, rows)),
        ("answers", "Answers side by side", (LEGEND if read and strips else "") + _answers(rows, strips)),
        ("made", "How these answers were made", _made(found)),
    ]
    counts = ", ".join(f"{n} {words}" for words, n in _states(found["counts"]).items())
    intro = f"<p>{esc(first)}</p>" if first else ""
    intro += f'<p class="small">{esc(counts)}. A copy of {esc(found["exported"])}; votes after it are not in it.</p>'
    intro += "".join(f'<p class="callout">{esc(note)}</p>' for note in notes)
    return document(title, "comparison", f"{len(columns)} models, {len(rows)} prompts", intro, sections)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names for the charts: without the folders that they are in, where these are not needed to tell them apart."""
    last = [name.rpartition("/")[2] or name for name in names]
    alone = len(set(last)) == len(last)
    return {name: (end if alone else name)[-24:] for name, end in zip(names, last, strict=True)}


def _states(counts: Mapping[str, int]) -> dict[str, int]:
    """How many answers there are of each state, in words, without those that no answer is in."""
    made: dict[str, int] = {}
    for state, n in counts.items():
        if n or state == "done":
            words = SHOWN.get(state, state)
            made[words] = made.get(words, 0) + n
    return made


def _ratings(standings: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> str:
    """Bradley-Terry by each kind of judge, which are never pooled."""
    if not standings:
        return "<p>No verdicts yet.</p>"
    panels, table, says = [], [], []
    for standing in standings:
        dots = []
        for row in standing["rows"]:
            dots.append(Dot(labels[row["model"]], row["rating"], tuple(row["ci95"]), "s-rm"))
            even = row["length_controlled"]
            at_equal = [even["rating"], *even["ci95"]] if even else [None] * 3
            if even:
                dots.append(Dot("at equal length", even["rating"], tuple(even["ci95"]), "s-rm", "diamond", True))
            table.append(
                [standing["judge"], row["model"], row["rating"], *row["ci95"], row["games"], row["ties"], *at_equal]
            )
        ends = [end for dot in dots for end in (dot.ci or (dot.value,))]
        chart = dot_panel(dots, "Ratings", limits=(min(ends) - 20, max(ends) + 20), show=lambda v: f"{v:.0f}")
        panels.append(panel(standing["judge"], chart, f"{standing['verdicts']} verdicts"))
        says.append(f"{standing['judge']}: {standing['sentence']}")
    head = ["judge", "model", "rating", "low", "high", "games", "ties", "at equal length", "low", "high"]
    sub = "Bradley–Terry with ties, in Elo points around 1000; 95 % intervals over resampled prompts."
    return figure("Ratings, by each kind of judge", sub, panels, data("ratings", head, table), " ".join(says))


def _classes(names: Sequence[str], rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> str:
    """The share of each model's answers that refuse, and how long they are."""
    dots, table = [], []
    for place, name in enumerate(names):
        cells = [row["cells"][place] for row in rows if not row["hidden"]]
        known = [cell for cell in cells if cell["class"]]
        counts = [sum(cell["class"] == kind for cell in known) for kind in ("full", "partial", "refused")]
        if known:
            low, high = wilson(counts[2], len(known))
            dots.append(Dot(labels[name], counts[2] / len(known), (low, high), "s-sft", "square"))
            words = sum(cell["words"] for cell in known) / len(known)
            table.append([name, *counts, len(cells) - len(known), counts[2] / len(known), low, high, words])
        else:
            table.append([name, *counts, len(cells), None, None, None, None])
    if not dots:
        return ""
    head = ["model", "in full", "in part", "refused", "no answer", "share refused", "low", "high", "words an answer"]
    apart = [a for a in dots for b in dots if a.ci and b.ci and a.ci[0] > b.ci[1]]
    says = (
        f"{apart[0].label} refuses clearly more often than another: read the prompts on which only one of them does."
        if apart
        else "No model refuses clearly more often than another on these prompts: more prompts would tell smaller differences."
    )
    chart = panel("Share of answers that refuse", dot_panel(dots, "Refusals"), "95 % Wilson intervals")
    return figure("How often each model refuses", "", [chart], data("classes", head, table), says)


def _matrix(columns: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{esc(one['name'])}<br><span class='tiny'>{esc(one['kept'])}</span></th>" for one in columns)
    body = []
    for number, row in enumerate(rows, 1):
        asked = " ".join(row["messages"][-1]["content"].split())
        name = f'<a href="#p-{number}">{number}. {esc(asked[:90])}{"…" if len(asked) > 90 else ""}</a>'
        about = f'<br><span class="tiny">{esc(row["category"])}</span>' if row["category"] else ""
        cells = "".join(_cell(cell) for cell in row["cells"])
        if row["hidden"]:
            cells = f'<td colspan="{len(columns)}">hidden until you vote</td>'
        body.append(f"<tr><td>{name}{about}</td>{cells}</tr>")
    table = [
        [row["id"], row["category"], c["model"], c["state"], c["class"], c["words"], c["reward"]]
        for row in rows
        for c in row["cells"]
    ]
    link = data("answers", CELL_HEAD, table, title="Every cell, without its text")
    return f'<div class="scroll"><table class="cells"><thead><tr><th>Prompt</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>{link}'


def _cell(cell: Mapping[str, Any]) -> str:
    if not cell["class"]:
        return f"<td>{esc(SHOWN.get(cell['state'], cell['state']))}</td>"
    said = [f"{cell['words']} words"]
    said += [] if cell["reward"] is None else [f"reward {cell['reward']:.2f}"]
    said += ["cut off"] if cell["state"] == "cut" else []
    return f'<td class="{SHADES[cell["class"]]}"><b>{esc(cell["class"])}</b><br><span class="tiny">{", ".join(said)}</span></td>'


def _answers(rows: Sequence[Mapping[str, Any]], strips: bool) -> str:
    made = []
    for number, row in enumerate(rows, 1):
        asked = "".join(
            f'<p class="tiny">{esc(turn["role"])}</p><div class="prompt" dir="auto">{esc(turn["content"])}</div>'
            for turn in row["messages"]
        )
        largest = largest_change(row["cells"])
        cells = "".join(_answer(cell, largest, strips) for cell in row["cells"])
        said = [f"{judge}: {text}" for judge, text in row["verdicts"]]
        said += [f"vote: {text}{f' (unrated: {why})' if why else ''}" for text, why in row["votes"]]
        below = f'<p class="small">{esc("; ".join(said))}</p>' if said else ""
        body = f'<div class="cols">{cells}</div>{below}' if not row["hidden"] else "<p>Hidden until you vote.</p>"
        made.append(f'<article id="p-{number}"><h3>{number}. {esc(row["id"])}</h3>{asked}{body}</article>')
    note = "<p class='sub'>Underlined: only in this answer; struck out: only in the first of the row.</p>"
    return note + "".join(made)


def _answer(cell: Mapping[str, Any], largest: float, strips: bool) -> str:
    who = f'<p class="who">{esc(cell["model"])}</p>'
    if not cell["class"]:
        why = f": {cell['reason']}" if cell["reason"] else ""
        return (
            f'<div class="answer">{who}<p class="empty">{esc(SHOWN.get(cell["state"], cell["state"]) + why)}</p></div>'
        )
    said = [cell["class"], f"{cell['words']} words"]
    said += [] if cell["reward"] is None else [f"reward {cell['reward']:.2f}"]
    said += ["cut off before its end"] if cell["state"] == "cut" else []
    said += ["names itself"] if cell["names_itself"] else []
    text = "".join(f"{OPEN[kind]}{esc(piece)}{CLOSE[kind]}" for kind, piece in cell["pieces"])
    shown = f'<p class="text" dir="auto">{text}</p>' if text else '<p class="empty">(empty)</p>'
    tint = tinted(dict(cell), largest) if strips else ""
    strip = (
        f'<details><summary>Reward, word by word</summary><p class="text rw">{tint}</p>{in_words(dict(cell))}</details>'
    )
    return f'<div class="answer">{who}<p class="tiny">{esc(" · ".join(said))}</p>{shown}{strip if tint else ""}</div>'


OPEN, CLOSE = {"same": "", "new": "<ins>", "gone": "<del>"}, {"same": "", "new": "</ins>", "gone": "</del>"}


def _made(found: Mapping[str, Any]) -> str:
    columns = [(one["name"], f"{one['kind']}, {one['identity']}; {one['kept']}") for one in found["columns"]]
    return facts([("comparison", found["id"]), *found["settings"], *columns])
