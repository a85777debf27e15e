"""A stand-in for `tutelage lab` where the pages begin it: it holds its folder, is stopped, and ends when begun again."""

import json
import subprocess
import sys
from contextlib import contextmanager

from tutelage.workbench import lessons

LESSON = {
    "scenario": "no-kl", "title": "No KL penalty", "about": "Nothing holds it.", "said": "", "fast": False, "seeds": [0],
    "measures": {"gold.change": -0.2}, "measures_ci95": {"gold.change": [-0.3, -0.1]},
    "mended": {"gold.change": 0.1}, "mended_ci95": {"gold.change": None},
    "effects": {}, "explanation": ["Gold fell."], "tripped": [], "why_mend": ["a price"], "predictions": [],
    "curves": {
        "broken": {"ppo": [{"step": i, "gold": 0.5 - i / 10, "ci95": {"gold": [0.4 - i / 10, 0.6 - i / 10]}} for i in range(4)]},
        "mended": {"ppo": [{"step": i, "gold": 0.5, "ci95": {"gold": [0.4, 0.6]}} for i in range(4)]},
    },
    "texts": [], "settings": {"ppo.kl_coef": 0.0}, "sure": None, "seconds": 9.0,
}  # fmt: skip

# Writes the curves of a stage as training would, and says how it was stopped as the command does.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from tutelage.runs.lock import lock_folder
folder = Path(sys.argv[sys.argv.index("--out") + 1])
lock = lock_folder(folder)
def end(*_):
    os.write(2, b"stopped at step 3 of x; go on with:\\n  tutelage lab\\n")
    os._exit(130)
signal.signal(signal.SIGTERM, end)
if (folder / "stop-was-here").exists():
    (folder / "lesson.json").write_text({lesson!r})
    sys.exit(0)
(folder / "stop-was-here").touch()
stage = folder.parent / "stages" / "ppo-abc"
stage.mkdir(parents=True, exist_ok=True)
(stage / "metrics.jsonl").write_text("".join('{{"step": %d, "objective/kl": %d}}\\n' % (i, i) for i in (1, 2, 3)))
print("→ ppo-abc", file=sys.stderr, flush=True)
time.sleep(600)
"""


@contextmanager
def pretended(monkeypatch):
    """The commands that were begun."""
    commands, processes, popen = [], [], subprocess.Popen

    def begin(words, **options):
        commands.append(words[3:])
        program = PROGRAM.format(path=sys.path, lesson=json.dumps(LESSON))
        processes.append(popen([sys.executable, "-c", program, *words[3:]], **options))
        return processes[-1]

    monkeypatch.setattr(lessons.subprocess, "Popen", begin)
    try:
        yield commands
    finally:
        monkeypatch.undo()
        for process in processes:
            process.kill()
            process.wait()
