"""Pieces of the page: stage looks, figures with their data, tables, links to CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from tutelage.report.svg import Pair, esc, marker, short

NAMES = {
    "base": "Base",
    "sft": "SFT",
    "ppo": "PPO",
    "ppo-no-kl": "PPO, no KL",
    "ppo-ptx": "PPO-ptx",
    "reward": "Reward model",
    "pretrain": "Base",
    "dpo": "DPO",
    "ipo": "IPO",
    "kto": "KTO",
    "orpo": "ORPO",
    "simpo": "SimPO",
    "rloo": "RLOO",
    "grpo": "GRPO",
    "online-dpo": "Online DPO",
    "rejection": "Rejection sampling",
    "cai": "SL-CAI",
    "rl-cai": "RL-CAI",
}
ORDER = [
    "base",
    "pretrain",
    "sft",
    "reward",
    "ppo",
    "ppo-ptx",
    "ppo-no-kl",
    "dpo",
    "ipo",
    "kto",
    "orpo",
    "simpo",
    "rloo",
    "grpo",
]


def name(stage: str) -> str:
    return NAMES.get(stage, stage)


def ordered(stages: Sequence[str]) -> list[str]:
    return sorted(dict.fromkeys(stages), key=lambda s: (ORDER.index(s) if s in ORDER else len(ORDER), s))


def look(stage: str) -> tuple[str, str, bool]:
    """(CSS class of the color, marker, hollow) of a stage: the same everywhere in the page."""
    for start, found in (
        ("base", ("s-base", "circle", False)),
        ("pretrain", ("s-base", "circle", False)),
        ("sft", ("s-sft", "square", False)),
        ("reward", ("s-rm", "diamond", False)),
        ("ppo-ptx", ("s-ptx", "triangle", False)),
        ("ppo-no", ("s-ppo", "triangle", True)),
        ("ppo", ("s-ppo", "triangle", False)),
        ("dpo", ("s-dpo", "cross", False)),
        ("ipo", ("s-dpo", "square", False)),
        ("kto", ("s-dpo", "diamond", False)),
        ("orpo", ("s-dpo", "circle", False)),
        ("simpo", ("s-dpo", "circle", True)),
        ("rloo", ("s-ppo", "square", False)),
        ("grpo", ("s-ppo", "diamond", False)),
        ("online-dpo", ("s-dpo", "cross", True)),
        ("rejection", ("s-sft", "square", True)),
        ("cai", ("s-cai", "star", False)),
        ("rl-cai", ("s-cai", "star", True)),
    ):
        if stage.startswith(start):
            return found
    return "s-gold", "circle", False


def badge(stage: str) -> str:
    """The stage's mark as a small picture; the color comes from the class around it."""
    _, shape, hollow = look(stage)
    return f'<svg viewBox="0 0 16 16" aria-hidden="true">{marker(8, 8, shape, hollow)}</svg>'


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(float(value)) < float("inf") else None


def interval(value: Any) -> Pair | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(value: Any) -> str:
        return esc(short(value, 4)) if isinstance(value, float) else esc("–" if value is None else value)

    top = "".join(f"<th>{esc(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{cell(v)}</td>" for v in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def plain(value: Any) -> Any:
    """For a CSV: a text that a spreadsheet would take for a formula is quoted."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def csv_link(file: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows([plain(value) for value in row] for row in rows)
    return (
        f'<a class="csv" download="{esc(file)}.csv" href="data:text/csv;charset=utf-8,{quote(text.getvalue())}">CSV</a>'
    )


def data(
    file: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    shown: int = 60,
    title: str = "Data",
    address: str | None = None,
) -> str:
    """The numbers under a chart: a folded table and the same as CSV. address: where the CSV is, if not in the page."""
    step = max(1, -(-len(rows) // shown))
    some = f"<p class='tiny'>Every {step}th row; all of them are in the CSV.</p>" if step > 1 else ""
    link = csv_link(file, head, rows) if address is None else f'<a class="csv" href="{esc(address)}">CSV</a>'
    fold = f"<details><summary>{esc(title)}</summary>{some}{table(head, rows[::step])}</details>"
    return f'<div class="data">{link}{fold}</div>'


def figure(title: str, sub: str, panels: Sequence[str], below: str, says: str, wide: bool = False) -> str:
    """Charts side by side; `says`: under them, in one sentence what they show and what to do; `below`: their data."""
    under = f'<p class="sub">{esc(sub)}</p>' if sub else ""
    inner = "".join(panels)
    return (
        f"<figure><figcaption><h3>{esc(title)}</h3>{under}</figcaption>"
        f'<div class="panels{" two" if wide else ""}">{inner}</div>{sentence(says)}{below}</figure>'
    )


def sentence(says: str) -> str:
    """What a chart shows, and what to do about it."""
    return f'<p class="says">{esc(says)}</p>'


def panel(heading: str, chart: str, tiny: str = "") -> str:
    small = f'<p class="tiny">{esc(tiny)}</p>' if tiny else ""
    return f'<div class="panel"><h4>{esc(heading)}</h4>{small}{chart}</div>'


def facts(pairs: Sequence[tuple[str, Any]]) -> str:
    rows = "".join(f"<dt>{esc(k)}</dt><dd>{esc(v)}</dd>" for k, v in pairs if v not in (None, "", "–"))
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def ends(entry: dict[str, Any]) -> tuple[float | None, float | None]:
    """The two ends of an entry's interval, for a table."""
    return interval(entry.get("ci95")) or (None, None)
