"""A stage without torch: each step's loss depends on every step before, so that a resumed run that went wrong shows.

`python training.py OUT [SECONDS_A_STEP]` runs it with --resume, as the command line would.
"""

import json
import random
import sys
import time
from pathlib import Path

from tutelage.runs import Interrupt, Interrupted, Run

STEPS = 12
SAVE_EVERY = 3


def train(out: Path, *, pause: float = 0.0, steps: int = STEPS, resume: bool = True, size: int = 40) -> Run:
    run = Run.open(out, stage="sft", config={"seed": 3, "max_steps": steps, "learning_rate": 1e-5}, resume=resume)
    if run.finished:
        return run
    model = run.resume_model()
    memory = json.loads((model / "memory.json").read_text()) if model else {"value": 1.0, "best": 9.0}
    with Interrupt() as stop:
        for step in range(run.start_step + 1, steps + 1):
            time.sleep(pause)
            memory["value"] = (memory["value"] * 1.37 + random.Random(step).random()) % 2.0
            run.log({"step": step, "loss": memory["value"], "num_tokens": 10 * step})
            run.add_samples([{"step": step, "text": f"{memory['value']:.6f} ü\u2028"}])
            if step % SAVE_EVERY == 0 or step == steps or stop.requested:
                better = memory["value"] < memory["best"]
                memory["best"] = min(memory["value"], memory["best"])
                run.save(step, lambda folder: write_model(folder, memory, size), None, best=better)
            if stop.requested and step < steps:
                raise Interrupted(run.path, step)
    memory["final"] = 1.0  # as the reward stage does, whose bias is set when training is over
    run.save(steps, lambda folder: write_model(folder, memory, size), None)
    run.finish({})
    return run


def write_model(folder: Path, memory: dict[str, float], size: int) -> None:
    (folder / "memory.json").write_text(json.dumps(memory))
    with open(folder / "weights.bin", "wb", buffering=0) as file:
        for _ in range(size):  # many small writes: there is time to be killed between them
            file.write(repr(memory["value"]).encode() * 50)


def facts(out: Path) -> dict[str, object]:
    """All of a run that must not depend on whether it was interrupted."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    checkpoints = out / "checkpoints"
    return {
        "rows": [{k: v for k, v in row.items() if k != "seconds"} for row in rows],
        "samples": (out / "samples.jsonl").read_text(),
        "latest": (checkpoints / "latest" / "weights.bin").read_bytes(),
        "best": (checkpoints / "best" / "memory.json").read_text(),
        "files": sorted(str(p.relative_to(out)) for p in out.rglob("*")),
        "config": (out / "config.yaml").read_text(),
    }


if __name__ == "__main__":
    try:
        train(Path(sys.argv[1]), pause=float(sys.argv[2]) if len(sys.argv) > 2 else 0.0, size=400)
    except Interrupted as stopped:
        print(stopped.message)
        sys.exit(130)
