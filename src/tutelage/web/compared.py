"""What goes out of a comparison: its tables as CSV, and all of it as the data of one offline page."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from tutelage.report.parts import plain
from tutelage.workbench.comparisons import Column, Comparison


def kept_words(column: Column, same: bool) -> str:
    """Whether a column's answers could be made again."""
    if column.kind == "endpoint":
        return "stored, not reproducible"
    return "reproducible" if same else f"stored; the {'file' if column.kind == 'outputs' else 'weights'} changed since"


def as_csv(rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows([[plain(value) for value in row] for row in rows])
    return out.getvalue()


def answer_rows(one: Comparison, revealed: Sequence[bool]) -> list[list[Any]]:
    """A line a cell; of a blind row that this person has not seen, one that says so."""
    rows: list[list[Any]] = [["prompt_id", "category", "prompt", "model", "state", "class", "words", "reward", "text"]]
    for p, asked in enumerate(one.prompts):
        about = [asked.id, asked.category, asked.messages[-1]["content"]]
        if not revealed[p]:
            rows.append([*about, "", "hidden until you vote", "", "", "", ""])
            continue
        for c, model in enumerate(one.columns):
            cell = one.cells[p, c]
            known = cell.refusal if cell.state in ("done", "cut") else ""
            rows.append([*about, model.name, cell.state, known, cell.words, cell.reward, cell.text])
    return rows


def rating_rows(standings: Mapping[str, Mapping[str, Any]]) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["judge", "model", "rating", "low95", "high95", "games", "ties", "even_rating", "even_low95", "even_high95"]
    ]
    for judge, standing in standings.items():
        for r in standing["rows"]:
            even = r["length_controlled"]
            at_equal = [even["rating"], *even["ci95"]] if even else [None] * 3
            rows.append([judge, r["model"], r["rating"], *r["ci95"], r["games"], r["ties"], *at_equal])
    return rows


def as_page(
    one: Comparison, shown: Sequence[Mapping[str, Any]], kept: Sequence[bool], ratings: Mapping[str, Any]
) -> dict[str, Any]:
    """What `report.comparison` draws. shown: each row as this person sees it, with `opened`, what its reading shows."""
    s = one.settings
    judges = ", ".join(judge_name(judge) for judge in s.judges)
    settings: list[tuple[str, Any]] = [
        ("temperature", s.temperature),
        ("longest answer, tokens", s.max_tokens),
        ("seed", s.seed),
    ]
    settings += [
        ("reward model", s.reward_identity),
        ("judges", judges),
        ("votes", "blind" if s.blind else "names shown"),
    ]
    return {
        "id": one.id,
        "exported": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "columns": [
            {"name": c.name, "kind": c.kind, "identity": judge_name(c.identity), "kept": kept_words(c, same)}
            for c, same in zip(one.columns, kept, strict=True)
        ],
        "settings": [*settings, ("made", one.created)],
        "counts": one.counts(),
        "notes": _notes(ratings),
        "ratings": [{**standing, "judge": judge_name(judge)} for judge, standing in ratings["standings"].items()],
        "rows": [_page_row(row) for row in shown],
    }


def _notes(ratings: Mapping[str, Any]) -> list[str]:
    """What the ratings leave out."""
    notes = []
    if ratings["seen"] is not None:
        notes.append(
            f"Ratings are of the {ratings['seen']} prompts, of {ratings['of']}, that you have voted on or looked at."
        )
    for judge, counts in ratings["lost"].items():
        lost = f"{counts['unparsable']} verdicts could not be read, {counts['failed']} failed"
        notes.append(f"{judge_name(judge)}: {lost}; they are in no rating.")
    if ratings["unrated"]:
        notes.append(f"{ratings['unrated']} votes are kept but not rated: the names were known.")
    return notes


def _page_row(row: Mapping[str, Any]) -> dict[str, Any]:
    opened, asked = row["opened"], row["prompt"]
    made = {"id": asked.id, "category": asked.category or "", "messages": asked.messages, "hidden": row["hidden"]}
    if row["hidden"]:
        return {**made, "cells": [], "verdicts": [], "votes": []}
    cells = [
        {
            "model": found["model"].name,
            "state": found["cell"].state,
            "class": found["class"][0] if found["answered"] else "",
            "words": found["cell"].words,
            "reward": found["cell"].reward,
            "reason": without_addresses(found["cell"].reason),
            "pieces": found["pieces"] if found["cell"].text else [],
            "names_itself": found["names_itself"],
            "by_prefix": {"pieces": found["cell"].tokens, "scores": found["cell"].prefix_rewards},
        }
        for found in opened["cells"]
    ]
    verdicts = [(judge_name(judge), text) for judge, text in opened["verdicts"]]
    return {**made, "cells": cells, "verdicts": verdicts, "votes": [(text, why) for _, text, why in opened["votes"]]}


def without_addresses(said: str) -> str:
    """What went wrong, without the addresses and files that it names: the page goes to others."""
    return re.sub(r"\w+://[^\s,;)]+|(?<![\w/])~?(/[^\s,;:)]+){2,}", "…", said)


def judge_name(spec: str) -> str:
    """A judge's or an endpoint's spec without addresses and folders of this machine: the page goes to others."""
    kind, colon, rest = spec.partition(":")
    if "#" in rest:
        return f"{kind}:{rest.rpartition('#')[2]}"
    return f"{kind}{colon}{'/'.join(PurePosixPath(rest).parts[-2:])}" if "/" in rest else spec
