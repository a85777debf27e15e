"""What a real model learns from what real people preferred: writes real-model.json and real-model.md.

    python benchmarks/real_model.py --model FOLDER --pairs FILE [--threads 1] [--part reward|dpo|policy]

1. Reward models (three seeds) on the first 1,412 pairs, tested on the rest: accuracy, its interval, calibration.
2. DPO (seed 0) on the same pairs: held-out accuracy of its implicit reward, its interval, seconds and memory.
3. A held-out reward model, trained on the rest and tested on the first: it judges, and no policy is trained against it.
4. SFT on the preferred answers of the first pairs, then PPO against the reward model of seed 0: reward, KL, length, entropy
   on the way, the memory and the speed of its first and last tenth, and win rates by the held-out reward model and by seed 1's.

Every command is one a user would give; what it wrote is kept under --out, and a second call goes on where the first stopped.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

TRAINED_ON = 1412
SEEDS = (0, 1, 2)
PARTS = ("reward", "dpo", "policy")
REWARD = ["--batch-size", 16, "--learning-rate", 2e-5, "--epochs", 1, "--max-length", 512, "--eval-every", 1000]
DPO = ["--batch-size", 8, "--learning-rate", 5e-6, "--epochs", 1, "--max-length", 512, "--eval-every", 1000]
SFT = ["--batch-size", 16, "--learning-rate", 2e-5, "--max-steps", 44, "--max-length", 512]
# At 0.05 (and 3e-5) all answers become "I'm sorry." within 60 iterations, KL 10: comparisons of harmlessness alone reward it.
PPO = ["--batch-size", 16, "--group-size", 4, "--minibatch-size", 16, "--learning-rate", 2e-5, "--kl-coef", 0.2]
PPO += ["--max-new-tokens", 48, "--max-length", 256, "--eval-every", 25, "--eval-prompts", 32, "--ema", 0.95]
SHOWN = 3  # held-out prompts whose answers are printed
PROMPT = 300  # characters; one turn: so that most of what PPO computes is answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=300, help="iterations of PPO")
    parser.add_argument("--part", choices=PARTS, help="only this; all when not given")
    parser.add_argument("--out", type=Path, default=Path("runs/real-model"), help="what the runs write")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    _write_rows(args)
    found: dict[str, Any] = {"model": Path(args.model).name, "threads": args.threads}
    parts = (args.part,) if args.part else PARTS
    if "reward" in parts:
        found["reward_models"] = [_reward(args, f"reward-{seed}", "first", seed) for seed in SEEDS]
        found["accuracy"] = statistics.mean(one["accuracy"] for one in found["reward_models"])
    if "dpo" in parts:
        found["dpo"] = _dpo(args)
    if "policy" in parts:
        found["held_out_reward_model"] = _reward(args, "reward-rest", "rest", 0)
        found["policy"] = _policy(args)
    (args.results / "real-model.json").write_text(json.dumps(found, indent=1) + "\n")
    text = "\n".join(_markdown(found)) + "\n"
    (args.results / "real-model.md").write_text(text)
    print(text)


def _markdown(found: dict[str, Any]) -> list[str]:
    lines = [
        "# A real model on real comparisons",
        "",
        f"`benchmarks/real_model.py`; {found['model']}, full fine-tuning.",
    ]
    cards = [*found.get("reward_models", []), *([found["held_out_reward_model"]] if "policy" in found else [])]
    if cards:
        heads = "| reward model | accuracy (95 %) | pairs | calibration error | by length alone |"
        lines += ["", heads, "|" + "---|" * 5]
    for number, card in enumerate(cards):
        name = (
            f"seed {card['seed']}" if number < len(found.get("reward_models", [])) else "held out: trained on the rest"
        )
        low, high = card["ci95"]
        lines.append(
            f"| {name} | {card['accuracy']:.1%} ({low:.1%} to {high:.1%}) | {card['pairs']} "
            f"| {card['calibration_error']:.3f} | {card['length_accuracy']:.1%} |"
        )
    if "accuracy" in found:
        lines += ["", f"Mean of the seeds: {found['accuracy']:.1%}."]
    if "dpo" in found:
        dpo = found["dpo"]
        low, high = dpo["ci95"]
        said = f"DPO, one epoch: {dpo['accuracy']:.1%} ({low:.1%} to {high:.1%}) of {dpo['pairs']} held-out pairs"
        lines += ["", f"{said}, in {dpo['seconds']:.0f} s, {dpo['peak_mib']:.0f} MiB."]
    if "policy" in found:
        policy = found["policy"]
        lines += ["", f"PPO from the SFT model, {policy['iterations']} iterations in {policy['seconds']:.0f} s:", ""]
        lines += ["| | first tenth | last tenth |", "|---|---|---|"]
        for name in policy["first"]:
            lines.append(f"| {name} | {policy['first'][name]:.3g} | {policy['last'].get(name, float('nan')):.3g} |")
        memory = policy["resident_mib"]
        lines.append(f"| resident memory, MiB | {memory['after_a_tenth']:.0f} | {memory['end']:.0f} |")
        lines += ["", "| win rate | judge | (95 %) |", "|---|---|---|"]
        for row in policy["eval"]:
            low, high = row["ci95"]
            pair = f"{row['policy']} over {row['baseline']}: {row['win_rate']:.1%}"
            lines.append(f"| {pair} | {Path(row['judge']).name} | {low:.1%} to {high:.1%} |")
        for one in policy["samples"]:
            lines += ["", f"“{one['prompt']}”", ""]
            lines += [f"- iteration {step}: {' '.join(text.split())}" for step, text in one["answers"].items()]
    return lines


def _write_rows(args: argparse.Namespace) -> None:
    """Two folders of the same pairs, trained and tested on crosswise; demonstrations and prompts of one turn."""
    from tutelage.data.sources import read_whole

    pairs = [c for c in read_whole(args.pairs)[0].comparisons if sorted(c.filled_ranks(), key=str) == [1, 2]]
    rows = []
    for one in pairs:
        texts, best = one.completions or [], one.filled_ranks().index(1)
        named = {"chosen": texts[best], "rejected": texts[1 - best]}
        answers = {key: [{"role": "assistant", "content": text}] for key, text in named.items()}
        rows.append({"prompt": one.messages, **answers})
    first, rest = rows[:TRAINED_ON], rows[TRAINED_ON:]
    for name, (train, test) in {"first": (first, rest), "rest": (rest, first)}.items():
        (args.out / name).mkdir(exist_ok=True)
        _lines(args.out / name / "train.jsonl", train)
        _lines(args.out / name / "test.jsonl", test)
    (args.out / "prompts").mkdir(exist_ok=True)
    asked = [[{"prompt": r["prompt"]} for r in part if _is_short(r["prompt"])] for part in (first, rest)]
    shares = {"train": asked[0][32:], "validation": asked[0][:32], "test": asked[1]}
    for name, part in shares.items():
        _lines(args.out / "prompts" / f"{name}.jsonl", part)


def _is_short(messages: list[dict[str, str]]) -> bool:
    return len(messages) == 1 and len(messages[0]["content"]) < PROMPT


def _reward(args: argparse.Namespace, name: str, data: str, seed: int) -> dict[str, Any]:
    _tutelage(args, "reward", args.model, name, ["--data", args.out / data, "--seed", seed, *REWARD])
    card = json.loads((args.out / name / "summary.json").read_text())["reward_model"]
    kept = ("accuracy", "ci95", "calibration_error", "length_accuracy", "pairs", "gate")
    return {"seed": seed, "seconds": _rows(args.out / name)[-1]["seconds"]} | {k: card[k] for k in kept}


def _dpo(args: argparse.Namespace) -> dict[str, Any]:
    memory = _tutelage(args, "dpo", args.model, "dpo", ["--data", args.out / "first", *DPO])
    held_out = json.loads((args.out / "dpo" / "summary.json").read_text())["held_out"]
    interval = [held_out["rewards/accuracies_low"], held_out["rewards/accuracies_high"]]
    seconds = _rows(args.out / "dpo")[-1]["seconds"]
    found = {"accuracy": held_out["rewards/accuracies"], "ci95": interval, "pairs": held_out["pairs"]}
    return {**found, "seconds": seconds, "peak_mib": memory["peak"]}


def _policy(args: argparse.Namespace) -> dict[str, Any]:
    for seed in SEEDS[:2]:  # one that the policy learns against, and one that judges it too
        _reward(args, f"reward-{seed}", "first", seed)
    _tutelage(args, "sft", args.model, "sft", ["--data", args.out / "first", *SFT])
    ppo = [
        "--data",
        args.out / "prompts",
        "--reward-model",
        args.out / "reward-0",
        "--max-steps",
        args.steps,
        *PPO,
        "--force",
    ]
    memory = _tutelage(args, "ppo", args.out / "sft", "ppo", ppo)
    judge = ["--models", f"sft={args.out / 'sft'}", f"ppo={args.out / 'ppo'}", f"base={args.model}"]
    judge += [
        "--judge",
        f"reward:{args.out / 'reward-rest'}",
        f"reward:{args.out / 'reward-1'}",
        "--max-new-tokens",
        48,
    ]
    _tutelage(args, "eval", None, "eval", ["--data", args.out / "prompts", *judge])
    rows = _rows(args.out / "ppo")
    tenth = max(1, len(rows) // 10)
    watched = (
        "objective/scores",
        "objective/kl",
        "objective/entropy",
        "response_length/mean",
        "eval/scores",
        "eval/kl",
    )
    found: dict[str, Any] = {"iterations": len(rows), "seconds": rows[-1]["seconds"]}
    for name, part in (("first", rows[:tenth]), ("last", rows[-tenth:])):
        found[name] = {k: statistics.mean(r[k] for r in part if k in r) for k in watched if any(k in r for r in part)}
        found[name]["seconds_per_iteration"] = (part[-1]["seconds"] - part[0]["seconds"]) / max(1, len(part) - 1)
    found["resident_mib"] = memory
    found["samples"] = _samples(args.out / "ppo" / "samples.jsonl")
    win_rates = json.loads((args.out / "eval" / "eval.json").read_text())["win_rates"]
    found["eval"] = [
        {key: row[key] for key in ("policy", "baseline", "judge", "win_rate", "ci95")} for row in win_rates
    ]
    return found


def _samples(path: Path) -> list[dict[str, Any]]:
    """What the policy said to the first held-out prompts at the first, a middle and the last time that they were asked."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    steps = sorted({row["step"] for row in rows})
    asked = list(dict.fromkeys(row["prompt"] for row in rows))[:SHOWN]
    chosen = (steps[0], steps[len(steps) // 2], steps[-1])
    return [
        {
            "prompt": prompt,
            "answers": {row["step"]: row["text"] for row in rows if row["prompt"] == prompt and row["step"] in chosen},
        }
        for prompt in asked
    ]


def _tutelage(args: argparse.Namespace, verb: str, model: Any, name: str, options: list[Any]) -> dict[str, float]:
    """One verb, unless it was done before; its resident memory, MiB, after a tenth of its time and at the end."""
    out, done = args.out / name, args.out / f"{name}.done"
    if done.exists():
        return json.loads(done.read_text())
    command = [sys.executable, "-m", "tutelage", verb, "--out", out, *(["--model", model] if model else []), *options]
    if (out / "metrics.jsonl").exists():
        command.append("--resume")
    env = os.environ | {"OMP_NUM_THREADS": str(args.threads), "OMP_WAIT_POLICY": "passive"}
    process = subprocess.Popen([str(x) for x in command], env=env)
    sizes: list[float] = []
    watch = threading.Thread(target=_watch, args=(process, sizes))
    watch.start()
    if process.wait():
        sys.exit(f"{verb}: exit {process.returncode}")
    watch.join()
    tenth = max(1, len(sizes) // 10)
    found = {"after_a_tenth": max(sizes[: 2 * tenth]), "end": max(sizes[-tenth:]), "peak": max(sizes)}
    done.write_text(json.dumps(found))
    return found


def _watch(process: "subprocess.Popen[bytes]", sizes: list[float]) -> None:
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            sizes.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
        except (OSError, IndexError):
            pass
        time.sleep(1)


def _rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
