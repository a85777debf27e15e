"""The run folder: atomic writes, metrics, progress, signals, resume, lineage."""

from tutelage.runs.folder import DiskFullError, Run, write_json, write_text
from tutelage.runs.progress import Progress
from tutelage.runs.signals import Interrupt, Interrupted

__all__ = ["DiskFullError", "Interrupt", "Interrupted", "Progress", "Run", "write_json", "write_text"]
