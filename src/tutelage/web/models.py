"""The models that a page may name: those of the runs on this machine."""

from pathlib import Path

RUNS = Path("runs")  # below the folder in which the server was started
DEPTHS = ("*", "*/*", "*/*/*", "*/*/*/*/*")  # a stage, a recipe's stage, a round's
MOST = 100


def known_models() -> list[str]:
    """`world`, and every run below runs/ that has a checkpoint, the newest first."""
    found = [path.parent.parent for depth in DEPTHS for path in RUNS.glob(f"{depth}/checkpoints/latest")]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return ["world", *(str(path) for path in found[:MOST])]
