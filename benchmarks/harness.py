"""EleutherAI's lm-eval on a local task: through `tutelage serve`, and its own `hf` backend on the same checkpoint.

    pip install 'lm-eval[api,hf]'      # in an environment of its own, or: pip install 'tutelage[lm-eval]'
    python benchmarks/harness.py --model CHECKPOINT [--lm-eval PATH/TO/lm_eval] [--questions 40]

Two tasks are written from the embedded world's facts: multiple choice (log-likelihoods; `local-completions`) and short
answers (greedy generation with the chat template; `local-chat-completions`). Scores must be equal to the last digit that
float32 rounding leaves. Prints one JSON object. No network is used.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tutelage.models import resolve
from tutelage.world.facts import FACTS, another_value
from tutelage.world.language import QUESTIONS

CHOICE = """task: world_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Quiz: {{{{question}}}} Answer:"
doc_to_target: "{{{{label}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
SHORT = """task: world_short
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["Quiz:"], max_gen_toks: 16, do_sample: false, temperature: 0}}
metric_list: [{{metric: bleu}}, {{metric: chrf}}]
"""


def write_tasks(folder: Path, count: int) -> None:
    rng = random.Random(0)
    rows = []
    for fact in rng.sample(FACTS, count):
        question = QUESTIONS[fact.relation][0].format(s=fact.subject)
        choices = [fact.value]
        while len(choices) < 4:
            other = another_value(fact.relation, fact.subject, rng)
            choices += [other] * (other not in choices)
        rng.shuffle(choices)
        rows.append(
            {"question": question, "choices": choices, "label": choices.index(fact.value), "answer": fact.value}
        )
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("choice", CHOICE), ("short", SHORT)):
        (folder / f"{name}.yaml").write_text(text.format(data=data))


def run(lm_eval: str, folder: Path, name: str, model: str, arguments: str, task: str, *more: str) -> dict[str, float]:
    """The scores of one task by one backend."""
    out = folder / name
    words = [lm_eval, "--model", model, "--model_args", arguments, "--tasks", task, "--include_path", str(folder)]
    words += ["--output_path", str(out), "--log_samples", *more]
    offline = {
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "OPENAI_API_KEY": "none",
        "HF_HOME": str(folder / "hf"),
    }
    done = subprocess.run(words, env={**os.environ, **offline}, capture_output=True, text=True)
    found = next(out.rglob("results*.json"), None)
    if done.returncode or found is None:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    scores = json.loads(found.read_text())["results"][task]
    return {key: value for key, value in scores.items() if isinstance(value, float) and "stderr" not in key}


@contextmanager
def served(checkpoint: str) -> Iterator[str]:
    """The address of a server that calls the checkpoint m."""
    command = [sys.executable, "-m", "tutelage", "serve", "--model", f"m={checkpoint}", "--port", "0"]
    server = subprocess.Popen([*command, "--dtype", "float32"], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = None
        while address is None:
            line = server.stderr.readline()
            if not line:
                raise SystemExit("the server did not start")
            address = re.search(r"serving .* at (http://\S+)/v1", line)
        yield address[1]
    finally:
        server.terminate()
        server.wait(timeout=60)


def measure(model: str, lm_eval: str, questions: int) -> dict[str, Any]:
    """The scores of each backend, and whether those of the same task are equal."""
    checkpoint = str(resolve(model))
    with tempfile.TemporaryDirectory() as name, served(checkpoint) as address:
        folder = Path(name)
        write_tasks(folder, questions)
        hf = f"pretrained={checkpoint},dtype=float32"
        tokens = f"tokenizer={checkpoint},tokenizer_backend=huggingface"
        api, often = f"model=m,base_url={address}/v1", "num_concurrent=4,max_retries=3"
        far = (f"{api}/completions,{tokens},{often}", f"{api}/chat/completions,{often}")
        cpu, chat = ("--device", "cpu"), "--apply_chat_template"
        asked = {
            "hf": ("hf", hf, "world_choice", *cpu),
            "local-completions": ("local-completions", far[0], "world_choice"),
            "hf, chat": ("hf", hf, "world_short", *cpu, chat),
            "local-chat-completions": ("local-chat-completions", far[1], "world_short", chat),
        }
        found = {name: run(lm_eval, folder, name.replace(", ", "-"), *words) for name, words in asked.items()}
    pairs = (("hf", "local-completions"), ("hf, chat", "local-chat-completions"))
    equal = all(
        found[a].keys() == found[b].keys() and all(abs(found[a][k] - found[b][k]) < 1e-9 for k in found[a])
        for a, b in pairs
    )
    return {**found, "equal": equal, "questions": questions, "model": model}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="world")
    parser.add_argument("--lm-eval", default="lm_eval")
    parser.add_argument("--questions", type=int, default=40)
    options = parser.parse_args()
    found = measure(options.model, options.lm_eval, options.questions)
    print(json.dumps(found))
    sys.exit(0 if found["equal"] else 1)


if __name__ == "__main__":
    main()
