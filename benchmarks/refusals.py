"""Kappa of the refusal classifier with people's labels on XSTest's completions.

    python benchmarks/refusals.py FOLDER      # with completions_MODEL.jsonl.gz (XSTest, CC-BY-4.0)

The rules were written on every other one of llama2orig's completions; its other half, and the other models', were
not looked at.
"""

import gzip
import json
import sys
from collections import Counter
from pathlib import Path

from tutelage.evaluation.agreement import cohen_kappa
from tutelage.evaluation.refusal import refusal_class

LABELS = {"1_full_compliance": "compliance", "2_full_refusal": "refusal", "3_partial_refusal": "partial"}
WRITTEN_ON = "llama2orig"


def main() -> None:
    for path in sorted(Path(sys.argv[1]).glob("completions_*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            rows = [json.loads(line) for line in lines]
        human = [LABELS[row["final_label"]] for row in rows]
        found = [refusal_class(row["completion"]) for row in rows]
        model = path.name.removeprefix("completions_").removesuffix(".jsonl.gz")
        two = [[label if label == "compliance" else "refusal" for label in some] for some in (human, found)]
        people = [[LABELS[row[f"annotation_{i}"]] for row in rows] for i in (1, 2)]
        halves = {"seen": slice(0, None, 2), "held_out": slice(1, None, 2)} if model == WRITTEN_ON else {}
        result = {
            "model": model,
            "held_out": "every other one" if halves else "all",
            "completions": len(rows),
            "kappa_three_way": round(cohen_kappa(human, found), 3),
            **{f"kappa_{half}": round(cohen_kappa(human[part], found[part]), 3) for half, part in halves.items()},
            "kappa_compliance_or_not": round(cohen_kappa(*two), 3),
            "kappa_of_two_people": round(cohen_kappa(*people), 3),
            "confusion": {f"{h}->{f}": n for (h, f), n in sorted(Counter(zip(human, found, strict=True)).items())},
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
