"""The run folder: atomic writes, metrics, progress, signals, resume, lineage."""

from tutelage.runs.files import DiskFullError, atomic_write_json, atomic_write_text, read_jsonl_rows
from tutelage.runs.folder import NotFiniteError, Run, finished
from tutelage.runs.progress import Progress
from tutelage.runs.signals import Interrupt, Interrupted

write_json, write_text = atomic_write_json, atomic_write_text

__all__ = [
    "DiskFullError",
    "Interrupt",
    "Interrupted",
    "NotFiniteError",
    "Progress",
    "Run",
    "atomic_write_json",
    "atomic_write_text",
    "finished",
    "read_jsonl_rows",
    "write_json",
    "write_text",
]
