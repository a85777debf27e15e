"""Our training and sampling beside the peers', in turn, in one run: writes RESULTS.md and results.json.

    make benchmark MODEL=FOLDER PAIRS=FILE            # or, with environments of your own:
    python benchmarks/compare.py --model FOLDER --pairs FILE --trl PYTHON [--vllm PYTHON] [--tasks sft,reward]

MODEL is a Hugging Face folder, PAIRS a file of comparisons in any format that `tutelage data import` reads. Same model,
rows, batch, length limit and type on both sides; only non-padding tokens count; the first step of each side is left out (online two);
medians of --turns. The machine's rate of matrix products is measured in the same run. A call for some tasks keeps what an
earlier one found of the others on this machine, and what was found on other machines.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
TASKS = ("sft", "reward", "dpo", "rloo", "ppo", "ppo-adapters", "sample")
ONLINE = ("rloo", "ppo", "ppo-adapters")  # beside TRL's RLOO, which has no reward model and no critic
WORDS = {"ppo-adapters": ("ppo", "--adapters")}  # of the command, where a task is not called like its verb
SAMPLING = ((32, 1), (8, 4), (64, 1))  # prompts x samples
NEW_TOKENS = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--trl", required=True, help="python of an environment with TRL")
    parser.add_argument("--vllm", help="python of an environment with vLLM; left out when not given")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        args.rows, args.prompt_rows = _write_rows(args, work)
        table = {"machine": _machine(), "batch": args.batch, "max_length": args.max_length, "turns": args.turns}
        table |= {"model": Path(args.model).name}
        table, others = _kept(args.out / "results.json", table)
        for tasks in _groups(args.tasks.split(",")):
            found = {"sample": _sampling(args, work)} if tasks == ["sample"] else _training(tasks, args, work)
            beside = {"gemm_gflops": _gemm_gflops(), "date": time.strftime("%Y-%m-%d")}
            for task, row in found.items():
                table["results"][task] = {n: r | beside for n, r in row.items()} if task == "sample" else row | beside
            table["results"] = {name: table["results"][name] for name in TASKS if name in table["results"]}
            _write(args.out, [table, *others])  # after each, so that what was measured outlives a stop
    print((args.out / "RESULTS.md").read_text())


def _write_rows(args: argparse.Namespace, work: Path) -> tuple[Path, Path]:
    """Pairs as both sides read them, and the first turns alone as prompts."""
    from tutelage.data.sources import read_whole

    pairs, asked = work / "pairs.jsonl", work / "prompts.jsonl"
    found = [c for c in read_whole(args.pairs)[0].comparisons if sorted(c.filled_ranks(), key=str) == [1, 2]]
    with open(pairs, "w") as both, open(asked, "w") as firsts:
        for one in found[:400]:
            messages, texts = one.messages or [], one.completions or []
            best = one.filled_ranks().index(1)
            named = {"chosen": texts[best], "rejected": texts[1 - best]}
            row = {key: [{"role": "assistant", "content": text}] for key, text in named.items()}
            both.write(json.dumps({"prompt": messages, **row}) + "\n")
            if len(messages) == 1 and len(messages[0]["content"]) < 300:
                firsts.write(json.dumps({"prompt": messages}) + "\n")
    return pairs, asked


def _groups(tasks: list[str]) -> list[list[str]]:
    """Tasks that have one peer beside them."""
    online = [task for task in tasks if task in ONLINE]
    return [[task] for task in tasks if task not in ONLINE] + ([online] if online else [])


def _training(tasks: list[str], args: argparse.Namespace, work: Path) -> dict[str, dict[str, Any]]:
    """TRL's and then ours, in turn; rates in each side's unit of work, and peak resident memory."""
    turns: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {task: [] for task in tasks}
    for turn in range(args.turns):
        theirs = _trl("rloo" if tasks[0] in ONLINE else tasks[0], args)
        for task in tasks:
            ours = _ours(task, args, work / f"{task}{turn}", work)
            turns[task].append((ours, theirs))
            print(task, json.dumps({"ours": ours, "theirs": theirs}), file=sys.stderr)
    return {task: _summary(task, args, turns[task]) for task in tasks}


def _summary(task: str, args: argparse.Namespace, turns: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    unit = "tokens_per_second" if task == "sft" else "samples_per_second"
    parameters = _parameters(args.model)
    return {
        "unit": {"sft": "tokens/s", **dict.fromkeys(ONLINE, "completions/s")}.get(task, "pairs/s"),
        "peer": turns[0][1]["peer"] + (" RLOO" if task in ONLINE else ""),
        "ours": statistics.median(o[unit] for o, _ in turns),
        "theirs": statistics.median(t[unit] for _, t in turns),
        "ratios": [o[unit] / t[unit] for o, t in turns],
        "memory_ratio": statistics.median(o["peak_rss_mib"] / t["peak_rss_mib"] for o, t in turns),
        "peak_rss_mib": [turns[0][0]["peak_rss_mib"], turns[0][1]["peak_rss_mib"]],
        "planned": turns[0][0]["planned_mib"] / statistics.median(o["peak_rss_mib"] for o, _ in turns),
        "gflops": statistics.median(6 * parameters * o["tokens_per_second"] / 1e9 for o, _ in turns),
    }


def _trl(task: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [args.trl, HERE / "peers/trl_train.py", task, "--model", args.model]
    command += ["--pairs", args.prompt_rows if task == "rloo" else args.rows, "--batch", args.batch]
    return _last_json([*command, "--max-length", args.max_length, "--steps", 5])


def _ours(task: str, args: argparse.Namespace, out: Path, work: Path) -> dict[str, Any]:
    command: list[Any] = [
        sys.executable,
        "-m",
        "tutelage",
        *WORDS.get(task, (task,)),
        "--model",
        args.model,
        "--out",
        out,
        "--seed",
        "0",
    ]
    command += [
        "--max-steps",
        8 if task in ONLINE else 20,
        "--batch-size",
        args.batch,
        "--max-length",
        args.max_length,
        "--dtype",
        "bfloat16",
    ]
    if task in ONLINE:
        reward = work / "reward-model"
        if not reward.exists():
            start = [sys.executable, "-m", "tutelage", "reward", "--model", args.model, "--data", args.rows]
            _run([*start, "--out", reward, "--max-steps", 2, "--batch-size", args.batch, "--dtype", "bfloat16"])
        command += ["--data", args.prompt_rows, "--reward-model", reward, "--max-new-tokens", NEW_TOKENS, "--force"]
        command += ["--minibatch-size", args.batch, "--group-size", 4, "--eval-prompts", 1, "--eval-every", 100]
    else:
        command += ["--data", args.rows]
    peak = _run(command)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    # The reference passes of DPO come before its first step: there the whole time counts. Online, a checkpoint is written
    # after the first step, which the second one's time has in it.
    first = None if task == "dpo" else rows[1 if task in ONLINE else 0]
    rows = [r for r in rows if "eval/scores" not in r]  # steps that also answer held-out prompts
    seconds = rows[-1]["seconds"] - (first["seconds"] if first else 0)
    steps = rows[-1]["step"] - (first["step"] if first else 0)
    tokens = rows[-1]["num_tokens"] - (first["num_tokens"] if first else 0)
    rates = {"tokens_per_second": tokens / seconds, "samples_per_second": args.batch * steps / seconds}
    planned = _last_json([*command[:3], "plan", *command[3:], "--json"])["peak_bytes"] / 2**20
    return rates | {"peak_rss_mib": peak, "planned_mib": planned}


def _sampling(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    found = {}
    for prompts, samples in SAMPLING:
        rates: dict[str, list[float]] = {"ours": [], "transformers": [], "vLLM": []}
        size = ["--model", args.model, "--pairs", args.prompt_rows, "--prompts", prompts, "--samples", samples]
        for turn in range(args.turns):
            own = [sys.executable, "-m", "tutelage", "sample", "--model", args.model, "--data", args.prompt_rows]
            own += ["--out", work / f"{prompts}x{samples}-{turn}.jsonl", "--prompts", prompts, "--samples", samples]
            own += ["--max-new-tokens", NEW_TOKENS, "--min-new-tokens", NEW_TOKENS, "--seed", turn, "--json"]
            rates["ours"].append(_last_json(own)["tokens_per_second"])
            for peer, python in (("transformers", args.trl), ("vLLM", args.vllm)):
                if python:
                    script = [python, HERE / "peers/generate.py", peer.lower(), *size]
                    rates[peer].append(_last_json(script)["tokens_per_second"])
            print(f"sample {prompts}x{samples}", json.dumps(rates), file=sys.stderr)
        for peer in ("transformers", "vLLM"):
            if rates[peer]:
                found[f"{prompts} x {samples}, {peer}"] = {
                    "unit": "tokens/s",
                    "peer": peer,
                    "ours": statistics.median(rates["ours"]),
                    "theirs": statistics.median(rates[peer]),
                    "ratios": [a / b for a, b in zip(rates["ours"], rates[peer], strict=True)],
                }
    return found


def _run(command: list[Any]) -> int:
    """Run to the end; the process's largest resident size, MiB."""
    process = subprocess.Popen([str(x) for x in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, int(status.split("VmHWM:")[1].split()[0]) // 1024)
        except (OSError, IndexError):
            pass
        time.sleep(0.1)
    if process.returncode:
        assert process.stderr is not None
        sys.exit(f"{' '.join(map(str, command))}: {process.stderr.read()[-500:]}")
    return peak


def _last_json(command: list[Any]) -> dict[str, Any]:
    """The last line of JSON that a program prints; vLLM logs behind it. Its cache is sized for a small machine."""
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "2"}
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr[-500:]}")
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not found:
        sys.exit(f"{' '.join(map(str, command))}: printed no result: {(done.stdout + done.stderr)[-500:]}")
    return json.loads(found[-1])


def _parameters(model: str) -> int:
    """Weights of a checkpoint; tied embeddings count once."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)).parameters())


def _gemm_gflops(seconds: float = 3.0) -> float:
    """Rate of large bfloat16 matrix products, the best of several, GFLOP/s."""
    a, b = (torch.randn(2048, 2048).to(torch.bfloat16) for _ in range(2))
    best, stop = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best / 1e9


def _machine() -> dict[str, Any]:
    import transformers

    import tutelage

    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = {"tutelage": tutelage.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    return {"processor": names[0] if names else platform.processor(), "threads": torch.get_num_threads(), **versions}


def _kept(path: Path, table: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """This machine's table with what an earlier call measured in the same settings, and the tables of others."""
    before = json.loads(path.read_text()) if path.exists() else []
    same = [one for one in before if all(one.get(name) == value for name, value in table.items())]
    return table | {"results": same[0]["results"] if same else {}}, [one for one in before if one not in same]


def _write(out: Path, tables: list[dict[str, Any]]) -> None:
    (out / "results.json").write_text(json.dumps(tables, indent=1) + "\n")
    lines = [
        "# Beside the peers",
        "",
        "Made by `make benchmark`; both sides in turn, medians. The rate of large matrix products",
    ]
    lines[-1] += " is measured beside each kind of work: a machine is not the same every day."
    lines[-1] += " How the cost grows with batch, length, answers and model: [growth.md](growth.md)."
    for table in tables:
        lines += ["", *_section(table)]
    (out / "RESULTS.md").write_text("\n".join(lines) + "\n")


def _section(table: dict[str, Any]) -> list[str]:
    machine = table["machine"]
    about = f"torch {machine['torch']}; {table['model']}, batch {table['batch']}, at most {table['max_length']} tokens"
    lines = [
        f"## {machine['processor']}, {machine['threads']} threads",
        "",
        f"{about}, bfloat16; {table['turns']} turns.",
        "",
        "| work | peer | ours | theirs | ratio (each turn) | memory, ours / theirs | memory, planned / measured "
        "| GEMM rate, GFLOP/s (share of it) | measured |",
        "|" + "---|" * 9,
    ]
    for task, found in table["results"].items():
        for name, row in found.items() if task == "sample" else [(task, found)]:
            ratio = f"**{statistics.median(row['ratios']):.1f}** ({', '.join(f'{x:.1f}' for x in row['ratios'])})"
            memory = f"{row['memory_ratio']:.2f}" if "memory_ratio" in row else ""
            planned = f"{row['planned']:.2f}" if "planned" in row else ""
            share = f" ({row['gflops'] / row['gemm_gflops']:.0%})" if "gflops" in row and task not in ONLINE else ""
            share = f"{row['gemm_gflops']:.0f}{share} | {row['date']}"
            rates = f"{row['ours']:.3g} {row['unit']} | {row['theirs']:.3g}"
            lines.append(f"| {name} | {row['peer']} | {rates} | {ratio} | {memory} | {planned} | {share} |")
    return lines


if __name__ == "__main__":
    main()
