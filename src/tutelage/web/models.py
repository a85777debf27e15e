"""The models that a page may name: those of the runs on this machine."""

import json
from pathlib import Path

RUNS = Path("runs")  # below the folder in which the server was started
DEPTHS = ("*", "*/*", "*/*/*", "*/*/*/*/*")  # a stage, a recipe's stage, a round's
MOST = 100


def known_models() -> list[str]:
    """`world`, and every run below runs/ that has a checkpoint, the newest first."""
    found = [path.parent.parent for depth in DEPTHS for path in RUNS.glob(f"{depth}/checkpoints/latest")]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return ["world", *(str(path) for path in found[:MOST])]


def reward_models() -> list[str]:
    """Those of them that give a score to an answer."""
    return [spec for spec in known_models()[1:] if _role(spec) == "reward"]


def _role(spec: str) -> str:
    try:
        about = json.loads((Path(spec) / "checkpoints" / "latest" / "tutelage.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(about.get("role", "")) if isinstance(about, dict) else ""
