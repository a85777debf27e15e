"""One offline page from a run: `write_report(run_dir)` reads report.json and writes report.html. Free of torch."""

from tutelage.report.page import write_report

__all__ = ["write_report"]
