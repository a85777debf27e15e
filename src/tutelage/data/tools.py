"""Rows that annotation tools, arenas and step labelers export, turned into records.

Label Studio, Argilla and Potato let a project name its fields: the prompt is looked for under the usual names, and
what is left (or a list of answers) are the candidates. Whatever a person chose becomes dense ranks.
"""

import re
from typing import Any

from tutelage.data.foreign import (
    Item,
    answer_text,
    comparison,
    demonstration,
    preference,
    prompt_messages,
    stepwise,
    unpaired,
)
from tutelage.data.formats import Row, named
from tutelage.data.validation import DegenerateRow, check_messages, check_text
from tutelage.errors import UserError
from tutelage.records import Comparison

PROMPT_NAMES = ("prompt", "instruction", "question", "query", "input", "context", "messages")
LIST_NAMES = ("completions", "responses", "answers", "candidates", "items", "translations", "outputs")
TIES = {"tie", "equal", "same", "both", "both_good", "no preference", "neither is better", "0"}
BOTH_BAD = {"tie (bothbad)", "bothbad", "both_bad", "both bad", "neither", "all bad"}
NOT_ANSWERS = {"id", "metadata", "category", "source", "user_id", "labeler", "split", "title", "label_annotations"}


# --- votes on pairs ------------------------------------------------------------------------------------------------


def alpacafarm(row: Row, where: str) -> list[Item]:
    """`instruction, input, output_1, output_2, preference` (1 or 2; 1.5 and 0 are ties)."""
    ask = check_text(row["instruction"], f"{where}, field instruction")
    more = check_text(row.get("input", ""), f"{where}, field input")
    prompt = [{"role": "user", "content": f"{ask}\n\n{more}" if more.strip() else ask}]
    texts = [check_text(row[name], f"{where}, field {name}") for name in ("output_1", "output_2")]
    known: dict[float, list[int | None]] = {1: [1, 2], 2: [2, 1], 1.5: [1, 1], 0: [1, 1]}
    ranks = known.get(row["preference"]) if isinstance(row["preference"], int | float) else None
    if ranks is None or isinstance(row["preference"], bool):
        raise UserError(
            f"is {row['preference']!r}, not 1 or 2", where=f"{where}, field preference", mend="1.5 says that they tie"
        )
    return comparison(row, prompt, texts, ranks, where)


def arena(row: Row, where: str) -> list[Item]:
    """Arena votes: `conversation_a, conversation_b, winner`; the two must differ in their last answer only."""
    sides = [check_messages(row[f"conversation_{x}"], f"{where}, field conversation_{x}") for x in "ab"]
    row = {**row, "labeler": row["judge"]} if isinstance(row.get("judge"), str) else row
    if row["winner"] in ("model_a", "model_b"):
        order = (0, 1) if row["winner"] == "model_a" else (1, 0)
        return preference({**_remarks(row), "chosen": sides[order[0]], "rejected": sides[order[1]]}, where)
    if sides[0][:-1] != sides[1][:-1]:
        raise DegenerateRow("the two dialogues differ before their last answer", where=where, mend="take the row out")
    texts = {x: side[-1]["content"] for x, side in zip("ab", sides, strict=True)}
    return _vote({**_remarks(row), "prompt": sides[0][:-1]}, texts, row["winner"], f"{where}, field winner")


def thumbs(row: Row, where: str) -> list[Item]:
    """One answer with a thumb: `prompt, completion` (or `response`), `thumbs` up or down."""
    known: dict[Any, bool] = {"up": True, "down": False, "👍": True, "👎": False, 1: True, -1: False, 0: False}
    up = known.get(row["thumbs"]) if isinstance(row["thumbs"], str | int | float) else None
    if up is None:
        raise UserError(
            f"is {row['thumbs']!r}, not up or down", where=f"{where}, field thumbs", mend="write up or down"
        )
    if "completion" not in row and "response" not in row:
        raise UserError("has no answer", where=where, mend="add the field `completion`")
    return unpaired({**row, "completion": row.get("completion", row.get("response")), "label": up}, where)


# --- exports of annotation tools -----------------------------------------------------------------------------------


def argilla(row: Row, where: str) -> list[Item]:
    """A record of Argilla 2: `fields` and `responses`, or flat as it is pushed to the hub (`QUESTION.responses`)."""
    if "fields" in row:
        data = row["fields"]
        answers = [
            (question, one.get("value"), one.get("user_id"), one.get("status", "submitted"))
            for question, given in row["responses"].items()
            for one in (given if isinstance(given, list) else [given])
        ]
    else:
        data = {
            k: v for k, v in row.items() if "." not in k and isinstance(v, str | list) and k not in ("id", "status")
        }
        answers = []
        for key in (k for k in row if k.endswith(".responses")):
            count = len(row[key])
            users, status = row.get(f"{key}.users") or [None] * count, row.get(f"{key}.status") or ["submitted"] * count
            answers += list(zip([key.removesuffix(".responses")] * count, row[key], users, status, strict=True))
    prompt, candidates = _fields(data, where)
    items: list[Item] = []
    for question, value, user, status in answers:
        if status != "submitted":
            continue
        who = {**prompt, **({"labeler": str(user)} if user is not None else {})}
        items += _said(who, candidates, value, f"{where}, question {question}")
    return _finished(items, where)


def label_studio(row: Row, where: str) -> list[Item]:
    """A task of Label Studio's JSON export: `data` and `annotations` with Pairwise, Ranker, Choices or TextArea."""
    prompt, candidates = _fields(row["data"], where)
    items: list[Item] = []
    for one in row["annotations"]:
        if one.get("was_cancelled"):
            continue
        by = one.get("completed_by")
        who = {**prompt, "labeler": str(by.get("id") if isinstance(by, dict) else by)} if by is not None else prompt
        who |= {"seconds": one["lead_time"]} if isinstance(one.get("lead_time"), int | float) else {}
        who |= {"created": one["created_at"]} if isinstance(one.get("created_at"), str) else {}
        for result in one.get("result", []):
            kind, value = result.get("type"), result.get("value", {})
            place = f"{where}, control {result.get('from_name', kind)}"
            if kind == "pairwise":
                sides = dict(zip(("left", "right"), candidates.values(), strict=False))
                items += _vote(who, sides, value.get("selected", "tie"), place)
            elif kind == "ranker":
                order = value.get("ranker")
                order = next(iter(order.values()), []) if isinstance(order, dict) else order
                items += _vote(who, candidates, order, place)
            elif kind == "choices" and candidates:
                items += _vote(who, candidates, value["choices"][0], place)
            elif kind == "textarea":
                text = value["text"]
                items += _said(who, {}, text if isinstance(text, str) else "\n".join(text), place)
    return _finished(items, where)


def potato(row: Row, where: str) -> list[Item]:
    """An item of Potato joined with its `label_annotations`: pairwise (binary or scale) and ranking."""
    prompt, candidates = _fields({k: v for k, v in row.items() if k != "label_annotations"}, where)
    letters = dict(zip("ABCDEFGHI", candidates.values(), strict=False))
    items: list[Item] = []
    if isinstance(row.get("user_id"), str):  # in Potato the annotator, not the customer
        prompt = {**prompt, "labeler": row["user_id"]}
    for scheme, value in row["label_annotations"].items():
        place = f"{where}, scheme {scheme}"
        if "rank_order" in value:
            groups = [part.split("=") for part in str(value["rank_order"]).split(",")]
            ranked = [{"value": name.strip(), "rank": i} for i, group in enumerate(groups, 1) for name in group]
            items += _vote(prompt, letters, ranked, place)
        elif "scale_value" in value:
            scale = float(value["scale_value"])
            items += _vote(prompt, letters, "A" if scale < 0 else "B" if scale > 0 else "tie", place)
        elif "selection" in value:
            items += _vote(prompt, letters, value["selection"], place)
    return _finished(items, where)


def _fields(data: Any, where: str) -> tuple[Row, dict[str, str]]:
    """(the row of the prompt and its remarks, candidate answers by name) of a tool's free fields."""
    if not isinstance(data, dict):
        raise UserError(f"is {named(data)}, not an object", where=f"{where}, field data", mend="export as JSON")
    name = next((n for n in PROMPT_NAMES if data.get(n)), None)
    if name is None:
        raise UserError("has no prompt", where=where, mend=f"name the prompt's field {', '.join(PROMPT_NAMES)}")
    row = {**_remarks(data), "prompt": prompt_messages({"prompt": data[name]}, where)}
    listed = next((data[n] for n in LIST_NAMES if isinstance(data.get(n), list)), None)
    if listed is not None:
        named_items = [(str(i), one) for i, one in enumerate(listed, 1)]
        if all(isinstance(one, dict) and "id" in one for one in listed):  # Label Studio's Ranker
            named_items = [(str(one["id"]), one.get("body", one.get("text", one.get("html")))) for one in listed]
        return row, {key: answer_text(text, f"{where}, answer {key}") for key, text in named_items}
    texts = {k: v for k, v in data.items() if isinstance(v, str) and k != name and k not in NOT_ANSWERS}
    return row, {key: check_text(text, f"{where}, field {key}") for key, text in texts.items()}


def _remarks(row: Row) -> Row:
    keep = ("category", "source", "user_id", "split", "labeler", "created")
    return {key: row[key] for key in keep if isinstance(row.get(key), str)}


def _said(who: Row, candidates: dict[str, str], value: Any, where: str) -> list[Item]:
    """A written answer where there is nothing to choose from, else a choice."""
    if len(candidates) < 2:
        if not isinstance(value, str):
            return []
        return demonstration(who, [*who["prompt"], {"role": "assistant", "content": value}], where)
    return _vote(who, candidates, value, where)


def _vote(who: Row, candidates: dict[str, str], value: Any, where: str) -> list[Item]:
    """The comparison that a choice makes: one name, an order of names, or names with ranks."""
    if len(candidates) < 2:
        raise UserError("has fewer than two answers to choose from", where=where, mend="give the answers' fields")
    names, word, all_bad = list(candidates), str(value).strip().lower(), None
    ranks: list[int | None]
    if isinstance(value, list):
        given = [(one["value"], one["rank"]) if isinstance(one, dict) else (one, i) for i, one in enumerate(value, 1)]
        places = {_candidate(name, names, where): rank for name, rank in given}
        dense = {rank: i for i, rank in enumerate(sorted(set(places.values())), 1)}
        ranks = [dense[places[name]] if name in places else None for name in names]
    elif word in TIES or word in BOTH_BAD:
        ranks, all_bad = [1] * len(names), True if word in BOTH_BAD else None
    else:
        best = _candidate(value, names, where)
        ranks = [1 if name == best else 2 if len(names) == 2 else None for name in names]
        who = who if len(names) == 2 else {**who, "rest_below": True}
    return comparison(who, who["prompt"], list(candidates.values()), ranks, where, all_bad=all_bad)


def _candidate(value: Any, names: list[str], where: str) -> str:
    """The candidate that a label means: its name, however written, else its number or letter."""
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in names}
    word = re.sub(r"[^a-z0-9]", "", str(value).lower())
    if word in plain:
        return plain[word]
    tail = re.search(r"([a-i]|\d)$", word)
    number = -1 if tail is None else int(tail[1]) - 1 if tail[1].isdigit() else ord(tail[1]) - ord("a")
    if not 0 <= number < len(names):
        raise UserError(f"{value!r} names none of {', '.join(names)}", where=where, mend="use the answers' names")
    return names[number]


def _finished(items: list[Item], where: str) -> list[Item]:
    if not any(isinstance(item, Comparison) or not isinstance(item, str) for item in items):
        raise DegenerateRow("has no finished annotation", where=where, mend="take the row out")
    return items


# --- steps of solutions --------------------------------------------------------------------------------------------


def prm800k(row: Row, where: str) -> list[Item]:
    """PRM800K: the chosen path through the solution, and each other completion behind the steps before it."""
    question, label = row["question"], row["label"]
    if not isinstance(question, dict) or not isinstance(label, dict) or not isinstance(label.get("steps"), list):
        raise UserError("is no row of PRM800K", where=where, mend="give question.problem and label.steps")
    for number, step in enumerate(label["steps"], start=1):
        _check_step(step, f"{where}, field label, step {number}")
    ask = {"prompt": question.get("problem"), "labeler": row.get("labeler"), "created": row.get("timestamp")}
    steps: list[str] = []
    labels: list[int] = []
    items: list[Item] = []
    for step in label["steps"]:
        options = [c for c in step.get("completions") or [] if c.get("rating") in (-1, 0, 1)]
        chosen, written = step.get("chosen_completion"), step.get("human_completion")
        best = step["completions"][chosen] if chosen is not None else None
        for one in options:
            if one is not best:
                items += _steps(ask, [*steps, one["text"]], [*labels, one["rating"]], where)
        if best is None and written:  # a labeler wrote the right step in place of those
            best = {"text": written.get("text"), "rating": 1}
        if best is None or best.get("rating") not in (-1, 0, 1):
            if steps and not options:  # nobody rated what comes next: the steps before it stand
                items += _steps(ask, steps, labels, where)
            break
        steps, labels = [*steps, best["text"]], [*labels, best["rating"]]
    else:
        items += _steps(ask, steps, labels, where)
    if not items:
        raise DegenerateRow("has no labeled step", where=where, mend="take the row out")
    return items


def _check_step(step: Any, where: str) -> None:
    """A step of PRM800K: completions with text and rating, of which chosen_completion names one."""
    options = (step.get("completions") or []) if isinstance(step, dict) else None
    if not isinstance(options, list) or not all(isinstance(one, dict) and "text" in one for one in options):
        raise UserError("is no step of PRM800K", where=where, mend="give completions, each with text and rating")
    chosen, written = step.get("chosen_completion"), step.get("human_completion")
    if chosen is not None and not (isinstance(chosen, int) and 0 <= chosen < len(options)):
        what, mend = f"chosen_completion is {chosen!r}, of {len(options)} completions", "give its place, from 0"
        raise UserError(what, where=where, mend=mend)
    if written and not isinstance(written, dict):
        raise UserError("human_completion is no object", where=where, mend="give it text, or null")


def math_shepherd(row: Row, where: str) -> list[Item]:
    """Math-Shepherd: `input` with ки behind each step, `label` the same text with + or - in its place."""
    text = check_text(row["input"], f"{where}, field input")
    marked = check_text(row["label"], f"{where}, field label")
    pieces, position, labels = text.split("ки"), 0, []
    for piece in pieces[:-1]:
        position += len(piece) + 1
        mark = marked[position - 1 : position]
        if mark not in ("+", "-"):
            raise UserError(
                "does not follow the steps of input", where=f"{where}, field label", mend="put + or - behind each step"
            )
        labels.append(1 if mark == "+" else -1)
    problem, begun, first = pieces[0].partition("Step 1:")
    if not begun:
        what, mend = "has no Step 1:, so that problem and solution are one", "write Step 1: before the first step"
        raise UserError(what, where=f"{where}, field input", mend=mend)
    steps = [piece.strip() for piece in (f"Step 1:{first}", *pieces[1:-1])]
    return _steps({"prompt": problem.strip()}, steps[: len(labels)], labels, where)


def _steps(ask: Row, steps: list[str], labels: list[int], where: str) -> list[Item]:
    return stepwise({**ask, "completions": steps, "labels": labels}, where)
