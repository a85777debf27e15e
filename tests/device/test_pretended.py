"""Every stage, the sampler and the server on a GPU that is not there (see `pretended.py`), in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_on_a_pretended_gpu():
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(HERE / "pretended_gpu.py")]
    try:
        import xdist  # noqa: F401
    except ImportError:
        command.remove("-n0")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
