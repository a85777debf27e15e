"""The run folder: atomic writes, metrics, progress, signals, resume, lineage."""

from tutelage.runs.files import DiskFullError, is_disk_full, write_json, write_text
from tutelage.runs.folder import Run, check_folder, check_out, check_same, finished, write_config
from tutelage.runs.progress import Progress
from tutelage.runs.signals import Interrupt, Interrupted

__all__ = [
    "DiskFullError",
    "Interrupt",
    "Interrupted",
    "Progress",
    "Run",
    "check_folder",
    "check_out",
    "check_same",
    "finished",
    "is_disk_full",
    "write_config",
    "write_json",
    "write_text",
]
