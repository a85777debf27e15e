"""How the cost of a training step grows: with the batch, the length, the answers of one prompt, and the model.

    python benchmarks/growth.py --model FOLDER [--out benchmarks]

Times the forward and backward pass of the token loss on random tokens, bfloat16; the four series are timed in turn,
round by round, and medians are kept. Writes growth.json, growth.svg and growth.md.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

from tutelage.engine.attention import NAME
from tutelage.engine.layers import use_own_layers
from tutelage.engine.packing import pack
from tutelage.models import Policy, load_policy
from tutelage.report.svg import Line, line_panel

PROMPT, ANSWER = 192, 64
BATCHES, LENGTHS, ANSWERS, HIDDEN = (1, 2, 4, 8, 16), (64, 128, 256, 512, 1024), (1, 2, 4, 8), (128, 256, 384, 576, 768)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    policy = load_policy(args.model, "bfloat16")
    series: dict[str, tuple[list[int], Callable[[int], tuple[Policy, list[list[int]]]]]] = {
        "sequences of 256 tokens": (list(BATCHES), lambda n: (policy, _random(policy, [256] * n))),
        "tokens in each of 4 sequences": (list(LENGTHS), lambda n: (policy, _random(policy, [n] * 4))),
        f"answers of {ANSWER} tokens to one prompt of {PROMPT}": (
            list(ANSWERS),
            lambda k: (policy, _answers(policy, k)),
        ),
        "hidden size (4 x 256 tokens)": (list(HIDDEN), lambda h: _sized(args.model, h)),
    }
    found: dict[str, list[dict[str, float]]] = {}
    for name, (sizes, make) in series.items():
        cases = [(size, *make(size)) for size in sizes]
        times: dict[int, list[float]] = {size: [] for size in sizes}
        for number in range(args.rounds + 1):
            for size, model, sequences in cases:
                seconds = _seconds(model, sequences)
                if number:
                    times[size].append(seconds)
        found[name] = [
            {"size": size, "seconds": statistics.median(times[size]), "tokens": sum(map(len, sequences))}
            for size, _, sequences in cases
        ]
        print(name, json.dumps(found[name]), file=sys.stderr)
    _write(args.out, Path(args.model).name, found)


def _seconds(policy: Policy, sequences: list[list[int]]) -> float:
    """One forward and backward pass; a prompt that answers share is computed once."""
    start = time.perf_counter()
    packed = pack(sequences, share=True)
    inside = torch.ones(len(packed.input_ids), dtype=torch.bool)
    inside[packed.offsets[:-1]] = False
    logprobs, _ = policy.logprobs(packed, inside.nonzero()[:, 0])
    logprobs.mean().backward()
    seconds = time.perf_counter() - start
    policy.model.zero_grad()
    return seconds


def _random(policy: Policy, lengths: list[int]) -> list[list[int]]:
    high = policy.model.config.vocab_size
    return [
        torch.randint(0, high, (n,), generator=torch.Generator().manual_seed(n + i)).tolist()
        for i, n in enumerate(lengths)
    ]


def _answers(policy: Policy, count: int) -> list[list[int]]:
    prompt, *answers = _random(policy, [PROMPT] + [ANSWER] * count)
    return [prompt + answer for answer in answers]


def _sized(model: str, hidden: int) -> tuple[Policy, list[list[int]]]:
    """A Llama of this width and the model's vocabulary and depth."""
    config: Any = AutoConfig.from_pretrained(model)
    shape = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 64 * 64,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        tie_word_embeddings=True,
    )
    shape._attn_implementation = NAME
    made = LlamaForCausalLM(shape).to(torch.bfloat16)
    use_own_layers(made)
    policy = Policy(made, None)
    return policy, _random(policy, [256] * 4)


def _write(out: Path, model: str, found: dict[str, list[dict[str, float]]]) -> None:
    (out / "growth.json").write_text(json.dumps({"model": model, "series": found}, indent=1) + "\n")
    style = "<style>.t{font:12px sans-serif}.end{text-anchor:end}.mid{text-anchor:middle}.l{fill:none;stroke:#27c;"
    style += "stroke-width:2}.m{fill:#27c}.grid{stroke:#ddd}.axis{stroke:#888}</style>"
    panels = []
    for number, (name, points) in enumerate(found.items()):
        line = Line("", [(p["size"], p["seconds"]) for p in points])
        chart = line_panel([line], name, x_label=name, y_limits=(0, 1.1 * max(p["seconds"] for p in points)))
        x, y = 410 * (number % 2), 260 * (number // 2)
        panels.append(chart.replace("<svg ", f'<svg x="{x}" y="{y}" width="400" height="250" ', 1))
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 520" width="820" height="520">'
    background = '<rect width="820" height="520" fill="#fff"/>'
    (out / "growth.svg").write_text(head + style + background + "".join(panels) + "</svg>\n")
    rows = [
        "# How the cost grows",
        "",
        f"`python benchmarks/growth.py --model {model}`: seconds of one pass forward and back.",
        "",
    ]
    rows += ["![Four charts of seconds against size](growth.svg)"]
    for name, points in found.items():
        rows += ["", f"| {name} | seconds | tokens/s |", "|---|---|---|"]
        rows += [f"| {p['size']} | {p['seconds']:.3f} | {p['tokens'] / p['seconds']:.0f} |" for p in points]
    (out / "growth.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
