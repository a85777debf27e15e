"""`tutelage data stats`: the tables in which Ouyang et al. 2022 describe their data, made of yours.

Table 1 (use cases), and of appendix A table 6 (sizes), 7 (annotations), 8 (prompts a customer), 9 (prompt lengths),
10 (prompt lengths by category) and 11 (prompt and demonstration lengths).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tutelage.data.sources import assemble, read_contents, split_of
from tutelage.errors import UserError
from tutelage.records import Dataset, Message

# Table 1: shares of the use cases among the API prompts of the reward model's data, in percent.
PAPER_SHARES = {
    "generation": 45.6,
    "open_qa": 12.4,
    "brainstorming": 11.2,
    "chat": 8.4,
    "rewrite": 6.6,
    "summarization": 4.2,
    "classification": 3.5,
    "other": 3.5,
    "closed_qa": 2.6,
    "extract": 1.9,
}
CUSTOMER_LIMIT = 200  # the paper takes at most so many prompts of one customer


def stats(spec: str, tokenizer: Any = None) -> dict[str, Any]:
    """The tables of a file or folder; lengths are in words, or in tokens of a tokenizer."""
    contents = read_contents(spec)
    for one in contents:
        if one.faults or one.too_degenerate:
            raise (one.faults or one.degenerate)[0]
    data, declared = assemble(contents)
    if not data.prompts:
        raise UserError("holds no prompts", where=spec, mend="give prompts, demonstrations or comparisons")

    def length(text: str) -> int:
        return len(text.split()) if tokenizer is None else len(tokenizer(text, add_special_tokens=False)["input_ids"])

    def split(prompt_id: str) -> str:
        return split_of(prompt_id, declared)

    by_split: dict[str, list[int]] = {}
    by_category: dict[str, list[int]] = {}
    of_prompt: dict[str, int] = {}
    for prompt in data.prompts:
        words = of_prompt[prompt.id] = sum(length(m["content"]) for m in prompt.messages)
        by_split.setdefault(split(prompt.id), []).append(words)
        by_category.setdefault(prompt.category or "not stated", []).append(words)
    written = [length(_answer(one.messages)) for one in data.demonstrations]
    answers = [length(text) for one in data.comparisons for text in one.completions or []]
    answers += [length(one.completion) for one in data.thumbs]
    return {
        "spec": spec,
        "unit": "words" if tokenizer is None else "tokens",
        "use_cases": _use_cases(data),
        "sizes": _sizes(data, split),
        "annotations": _annotations(data),
        "per_customer": _per_customer(data, split),
        "prompt_lengths": {name: describe(values) for name, values in by_split.items()},
        "prompt_lengths_by_category": {name: describe(values) for name, values in by_category.items()},
        "demonstration_lengths": {
            "prompt": describe([of_prompt[d.prompt_id] for d in data.demonstrations]),
            "demonstration": describe(written),
            "completion": describe(answers),
        },
    }


def describe(values: Sequence[int]) -> dict[str, float]:
    """Count, mean, standard deviation and quartiles, as the paper's tables give them."""
    if not values:
        return {"count": 0}
    low, first, median, third, high = np.percentile(values, [0, 25, 50, 75, 100]).tolist()
    mean, std = float(np.mean(values)), float(np.std(values))
    return {
        "count": len(values),
        "mean": round(mean, 1),
        "std": round(std, 1),
        "min": low,
        "25%": first,
        "50%": median,
        "75%": third,
        "max": high,
    }


def _answer(messages: Sequence[Message]) -> str:
    return messages[-1]["content"]


def _use_cases(data: Dataset) -> dict[str, dict[str, Any]]:
    counts = Counter(p.category or "not stated" for p in data.prompts)
    total = sum(counts.values())
    return {
        name: {"count": count, "percent": round(100 * count / total, 1), "paper_percent": PAPER_SHARES.get(_key(name))}
        for name, count in counts.most_common()
    }


def _key(name: str) -> str:
    return name.lower().replace(" ", "_").replace("-", "_")


def _sizes(data: Dataset, split: Callable[[str], str]) -> dict[str, dict[str, int]]:
    """Table 6: how many of each kind are in each split."""
    kinds: dict[str, list[str]] = {
        "prompts": [p.id for p in data.prompts],
        "demonstrations": [d.prompt_id for d in data.demonstrations],
        "comparisons": [c.prompt_id for c in data.comparisons],
        "thumbs": [t.prompt_id for t in data.thumbs],
        "step labels": [s.prompt_id for s in data.steps],
    }
    return {name: dict(Counter(map(split, ids))) for name, ids in kinds.items() if ids}


def _annotations(data: Dataset) -> dict[str, float]:
    """Table 7: shares of what labelers said besides the order, among the answers or comparisons that they judged."""
    out: dict[str, float] = {}
    flagged = [flags for one in data.comparisons for flags in one.flags or []]
    for name, count in Counter(flag for flags in flagged for flag in flags).most_common():
        out[name] = round(count / len(flagged), 4)
    if data.comparisons:
        rated = [r for one in data.comparisons for r in one.ratings or [] if r is not None]
        ties = sum(_tied(one.ranks) for one in data.comparisons)
        out["comparisons with a tie"] = round(ties / len(data.comparisons), 4)
        out["all answers bad"] = round(sum(bool(one.all_bad) for one in data.comparisons) / len(data.comparisons), 4)
        out["answers a comparison"] = round(sum(len(one.ranks) for one in data.comparisons) / len(data.comparisons), 2)
        out["labelers"] = len({one.labeler for one in data.comparisons if one.labeler})
        if rated:
            out["mean rating"] = round(sum(rated) / len(rated), 2)
    return out


def _tied(ranks: Sequence[int | None]) -> bool:
    given = [rank for rank in ranks if rank is not None]
    return len(set(given)) < len(given)


def _per_customer(data: Dataset, split: Callable[[str], str]) -> dict[str, dict[str, float]]:
    """Table 8: prompts a customer (`user_id`), and how many customers are above the paper's limit."""
    by_split: dict[str, Counter[str]] = {}
    for prompt in data.prompts:
        if prompt.user_id:
            by_split.setdefault(split(prompt.id), Counter())[prompt.user_id] += 1
    return {
        name: {
            "customers": len(counts),
            "mean": round(sum(counts.values()) / len(counts), 2),
            "max": max(counts.values()),
            f"above {CUSTOMER_LIMIT}": sum(count > CUSTOMER_LIMIT for count in counts.values()),
        }
        for name, counts in by_split.items()
    }


def lines(tables: dict[str, Any]) -> list[str]:
    """The tables for a terminal."""
    unit = tables["unit"]
    out = ["Use cases (the paper's table 1)"]
    widest = max(row["percent"] for row in tables["use_cases"].values())
    for name, row in tables["use_cases"].items():
        paper = "" if row["paper_percent"] is None else f"   paper {row['paper_percent']:4.1f} %"
        bar = "█" * max(1, round(24 * row["percent"] / widest))
        out.append(f"  {name:<22} {row['count']:>8,} {row['percent']:5.1f} % {bar:<24}{paper}")
    out.append("Sizes (table 6)")
    for name, row in tables["sizes"].items():
        out.append(f"  {name:<22} " + ", ".join(f"{split} {count:,}" for split, count in row.items()))
    if tables["annotations"]:
        out.append("Annotations (table 7)")
        out += [f"  {name:<22} {value:>8}" for name, value in tables["annotations"].items()]
    if tables["per_customer"]:
        out.append("Prompts a customer (table 8)")
        for name, row in tables["per_customer"].items():
            out.append(f"  {name:<22} " + ", ".join(f"{key} {value:,}" for key, value in row.items()))
    for key, title in (
        ("prompt_lengths", "Prompt lengths (table 9)"),
        ("prompt_lengths_by_category", "Prompt lengths by category (table 10)"),
        ("demonstration_lengths", "Prompts of demonstrations, demonstrations, and answers compared (table 11)"),
    ):
        out.append(f"{title}, in {unit}")
        head = ("count", "mean", "std", "min", "25%", "50%", "75%", "max")
        out.append(f"  {'':<22} " + " ".join(f"{name:>8}" for name in head))
        for name, row in tables[key].items():
            if row["count"]:
                out.append(f"  {name:<22} " + " ".join(f"{row[column]:>8,.0f}" for column in head))
    return out
