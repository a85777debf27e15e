"""A checkpoint's state in and out, and the manifest that tells a complete checkpoint from a damaged one.

torch is imported inside the functions, so that this package stays light for the pages and reports.
"""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

from tutelage.runs.files import atomic_write_json

MANIFEST = "manifest.json"
STATE = "state.pt"
_SCALARS = (bool, int, float, complex, str, bytes, type(None))


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write nested dicts, lists, tuples and sets of tensors, numpy arrays and plain values.

    Raises TypeError naming the entry for anything that load_state could not read back without running code.
    """
    import torch

    with open(path, "wb") as file:
        torch.save(_storable(state, "state"), file)


def load_state(path: str | Path) -> dict[str, Any]:
    """What save_state wrote, tensors on the CPU, bit for bit. No code in the file is run."""
    import numpy as np
    import torch

    reconstruct: Any = np.empty(0).__reduce__()[0]
    dtypes: list[Any] = [type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"]
    with torch.serialization.safe_globals([reconstruct, np.ndarray, np.dtype, *dtypes]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _storable(value: Any, name: str) -> Any:
    """The value with each tensor cut to its own memory; a view would store the whole tensor it looks into."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach()
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        return value if whole else value.clone()
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in _SCALARS or (isinstance(value, np.ndarray) and value.dtype.kind in "biufc"):
        return value
    if type(value) in (dict, OrderedDict):
        return {key: _storable(item, f"{name}[{key!r}]") for key, item in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(_storable(item, f"{name}[{i}]") for i, item in enumerate(value))
    raise TypeError(f"{name} is a {type(value).__name__}; a state holds tensors, numbers, text, lists and dicts only")


def write_manifest(folder: Path, *, best: bool, keep: int) -> None:
    """state/manifest.json: the size of every file, whether the checkpoint was the best so far, how many were kept."""
    files = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    atomic_write_json(folder / "state" / MANIFEST, {"files": files, "best": best, "keep": keep})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises OSError or ValueError where there is none."""
    return json.loads((folder / "state" / MANIFEST).read_text(encoding="utf-8"))


def fault_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, in one clause, or None when it is complete."""
    try:
        files = read_manifest(folder)["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"state/{MANIFEST} is missing or damaged"
    for name, size in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None
