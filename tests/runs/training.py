"""A stage without torch: each step's loss depends on every step before, so that a resumed run that went wrong shows."""

import json
import random
from pathlib import Path

from tutelage.runs import Interrupt, Interrupted, Run, finished

STEPS = 5  # with checkpoints at 2, 4 and 5, and at the best so far
SAVE_EVERY = 2


def train(out: Path, *, steps: int = STEPS, resume: bool = True) -> Run:
    """All of a stage's dealings with its run, as `stages.session` has them."""
    config = {"seed": 3, "max_steps": steps, "learning_rate": 1e-5}
    run = Run.open(out, stage="sft", config=config, resume=resume, total=steps)
    if finished(out):
        return run
    model = run.resume_model()
    memory = json.loads((model / "memory.json").read_text()) if model else {"value": 1.0, "best": 9.0}
    with Interrupt() as stop:
        for step in range(run.start_step + 1, steps + 1):
            memory["value"] = (memory["value"] * 1.37 + random.Random(step).random()) % 2.0
            run.add_samples([{"step": step, "text": f"{memory['value']:.6f} ü\u2028"}])
            run.log({"step": step, "loss": memory["value"], "num_tokens": 10 * step})
            better = memory["value"] < memory["best"]
            memory["best"] = min(memory["value"], memory["best"])
            if better or step % SAVE_EVERY == 0 or step == steps or stop.requested:
                run.save(step, lambda folder: write_model(folder, memory), None, best=better)
            if stop.requested and step < steps:
                raise Interrupted(run.path, step)
    run.finish({"steps": steps})
    return run


def write_model(folder: Path, memory: dict[str, float]) -> None:
    (folder / "memory.json").write_text(json.dumps(memory))
    (folder / "weights.bin").write_bytes(repr(memory["value"]).encode() * 500)


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
        "steps": (finished(out) or {})["steps"],
    }
