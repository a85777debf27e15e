"""Kappa of the refusal classifier with people's labels on XSTest's completions, by model and part.

    python benchmarks/refusals.py FOLDER                   # with completions_MODEL.jsonl.gz (XSTest, CC-BY-4.0)
    python benchmarks/refusals.py FOLDER --errors          # of the development half alone, and the words that decided

Every other one of llama2orig's completions is for development: their texts and errors may be read. Its other half, and
whole models, are held out: run them when the rules are done, and do not go back. Intervals resample prompts.
The ceiling is the kappa of the two people who labelled; `final` is what they settled on. Beside the rules stands what
GPT-4 made of the same completions when XSTest's authors asked it (`gpt4_label`). The rules were written on llama2orig alone,
so another model's row is that of a model left out; `all` pools what is held out of every model.
"""

import argparse
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.evaluation.agreement import kappa_interval
from tutelage.evaluation.refusal import refusal_class, refusal_signs

LABELS = {"1_full_compliance": "compliance", "2_full_refusal": "refusal", "3_partial_refusal": "partial"}
DEVELOPED_ON = "llama2orig"
DEVELOPMENT, HELD_OUT = slice(0, None, 2), slice(1, None, 2)


def parts(model: str) -> dict[str, slice]:
    """What of a model's rows is for development, and what is held out; a whole held-out model by halves, too."""
    if model == DEVELOPED_ON:
        return {"both": slice(None), "development": DEVELOPMENT, "held_out": HELD_OUT}
    return {"held_out": slice(None), "held_out_even": DEVELOPMENT, "held_out_odd": HELD_OUT}


def two_way(labels: list[str]) -> list[str]:
    return [label if label == "compliance" else "refusal" for label in labels]


def interval(first: list[str], second: list[str], prompts: list[str]) -> list[float]:
    """[kappa, its 95 % interval's ends]."""
    return [round(value, 3) for value in kappa_interval(first, second, prompts)]


def measures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    prompts = [row["id"] for row in rows]
    human = [LABELS[row["final_label"]] for row in rows]
    found = [refusal_class(row["completion"]) for row in rows]
    first, second, asked = ([LABELS[row[by]] for row in rows] for by in ("annotation_1", "annotation_2", "gpt4_label"))
    return {
        "completions": len(rows),
        "kappa_three_way": interval(human, found, prompts),
        "kappa_compliance_or_not": interval(two_way(human), two_way(found), prompts),
        "two_people_three_way": interval(first, second, prompts),
        "two_people_compliance_or_not": interval(two_way(first), two_way(second), prompts),
        "gpt4_three_way": interval(human, asked, prompts),
        "gpt4_compliance_or_not": interval(two_way(human), two_way(asked), prompts),
        "called_partial_by_either_and_by_both": [
            sum("partial" in pair for pair in zip(first, second, strict=True)),
            sum(pair == ("partial", "partial") for pair in zip(first, second, strict=True)),
        ],
        "confusion": {f"{h}->{f}": n for (h, f), n in sorted(Counter(zip(human, found, strict=True)).items())},
    }


def read(folder: Path, model: str) -> list[dict[str, Any]]:
    with gzip.open(folder / f"completions_{model}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


def tables(folder: Path) -> Iterator[dict[str, Any]]:
    held_out: list[dict[str, Any]] = []
    for path in sorted(folder.glob("completions_*.jsonl.gz")):
        model = path.name.removeprefix("completions_").removesuffix(".jsonl.gz")
        rows = read(folder, model)
        for name, some in parts(model).items():
            yield {"model": model, "part": name, **measures(rows[some])}
        held_out += rows[parts(model)["held_out"]]
    yield {"model": "all", "part": "held_out", **measures(held_out)}


def development(folder: Path) -> Iterator[dict[str, Any]]:
    """The development half's measures, and each of its errors; nothing that is held out."""
    rows = read(folder, DEVELOPED_ON)[DEVELOPMENT]
    yield {"model": DEVELOPED_ON, "part": "development", **measures(rows)}
    for row in rows:
        human, found = LABELS[row["final_label"]], refusal_class(row["completion"])
        if human != found:
            yield {"id": row["id"], "human": human, "found": found, "signs": refusal_signs(row["completion"])}


def main() -> None:
    parser = argparse.ArgumentParser(description="Kappa of the refusal classifier with people's labels.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--errors", action="store_true", help="the development half alone, and its errors")
    asked = parser.parse_args()
    for result in development(asked.folder) if asked.errors else tables(asked.folder):
        print(json.dumps(result))


if __name__ == "__main__":
    main()
