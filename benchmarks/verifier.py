"""Whether a small verifier tells real models' right solutions from wrong ones: writes verifier.json.

    python benchmarks/verifier.py --model FOLDER --solutions FILE [--threads 1] [--out DIR]

FILE: lines of a question and, for each of several models, a solution with `is_correct` (GSM8K's released ones). An outcome
verifier (`tutelage prm --supervision outcome`) learns from the solutions to three quarters of the questions and ranks those to
the rest: AUC with its interval, over all solutions and for each model's alone (a style is no merit).
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TRAIN = ["--supervision", "outcome", "--aggregation", "last", "--epochs", 1, "--batch-size", 16]
TRAIN += ["--learning-rate", 2e-5, "--max-length", 512]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--solutions", required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("runs/verifier"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    opened = gzip.open if args.solutions.endswith(".gz") else open
    with opened(args.solutions, "rt", encoding="utf-8") as lines:
        questions = [json.loads(line) for line in lines]
    cut = len(questions) * 3 // 4
    parts = {"train": questions[:cut], "test": questions[cut:]}
    (args.out / "data").mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        rows = [row for question in part for _, row in solutions_of(question)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (args.out / "data" / f"{name}.jsonl").write_text(text)
    trained = args.out / "verifier"
    if not (trained / "summary.json").exists():
        command = [sys.executable, "-m", "tutelage", "prm", "--model", args.model, "--data", args.out / "data", *TRAIN]
        command += ["--out", trained, *(["--resume"] if (trained / "metrics.jsonl").exists() else [])]
        env = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
        subprocess.run([str(word) for word in command], check=True, env=env)
    found = measured(trained, parts["test"]) | {"model": Path(args.model).name}
    (args.results / "verifier.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def solutions_of(question: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The models' names, and rows of steps with one label each: what came out in the end."""
    rows = []
    for name, one in question.items():
        if isinstance(one, dict) and (steps := [line for line in one["solution"].split("\n") if line.strip()]):
            right = one["is_correct"]
            row = {"prompt": question["question"], "completions": steps, "labels": [right] * len(steps)}
            rows.append((name, row | {"outcome": right}))
    return rows


def measured(verifier: Path, questions: list[dict[str, Any]]) -> dict[str, Any]:
    from tutelage.evaluation.step_card import auc, auc_interval
    from tutelage.models import load_step_model
    from tutelage.stages.step_scores import score_steps

    named = [pair for question in questions for pair in solutions_of(question)]
    asked = [([{"role": "user", "content": row["prompt"]}], row["completions"]) for _, row in named]
    scores = [one[-1] for one in score_steps(load_step_model(verifier), asked, 512)]
    right = [row["labels"][-1] for _, row in named]
    found: dict[str, Any] = {"questions": len(questions)}
    for model in ("all", *dict.fromkeys(name for name, _ in named)):
        some = [i for i, (name, _) in enumerate(named) if model in ("all", name)]
        ranked = [scores[i] for i in some], [right[i] for i in some]
        share = sum(ranked[1]) / len(some)
        found[model] = {"auc": auc(*ranked), "ci95": auc_interval(*ranked), "solutions": len(some), "right": share}
    return found


if __name__ == "__main__":
    main()
