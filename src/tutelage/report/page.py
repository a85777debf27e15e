"""Reads a run's folder and writes report.html: one file that opens without a connection."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.report import abilities, behaviors, card, judging, measured, methods, story
from tutelage.report.document import document

LIMIT = 2_500_000


def read_run(
    run_dir: Path, source: str = "report.json"
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]], dict[str, dict[str, Any]]]:
    """(the report or the evaluation, metrics by sub-folder, config and lineage texts by sub-folder). Raises UserError."""
    path = run_dir / source
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no {source}", where=str(run_dir), mend="name the folder of a finished run") from None
    except ValueError as error:
        raise UserError(f"not valid JSON ({error})", where=str(path), mend="run `tutelage eval` again") from None
    if not isinstance(report, dict):
        raise UserError("not an object", where=str(path), mend="run `tutelage eval` again")
    metrics: dict[str, list[dict[str, Any]]] = {}
    texts: dict[str, dict[str, Any]] = {}
    for folder in [run_dir, *sorted(p for p in run_dir.iterdir() if p.is_dir())]:
        log = folder / "metrics.jsonl"
        if folder != run_dir and log.is_file():
            metrics[folder.name] = _rows(log)
        found = {
            f: (folder / f).read_text("utf-8", "replace")[:60_000]
            for f in ("config.yaml", "lineage.json")
            if (folder / f).is_file()
        }
        if found:
            texts["run" if folder == run_dir else folder.name] = found
    return report, metrics, texts


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed may be half written
        if isinstance(row, dict):
            rows.append(row)
    return rows


def render(
    report: dict[str, Any],
    metrics: dict[str, list[dict[str, Any]]],
    texts: dict[str, dict[str, Any]],
    samples: int = 40,
    points: int = 200,
) -> str:
    """The page; sections without data are left out."""
    sentence, numbers = story.headline(report)
    hacking = measured.overoptimization(report) + story.exploited(report)
    wins = measured.win_rates(report)
    wins += judging.ratings(report) + judging.verdicts(report) if wins else ""
    sections = [
        ("pipeline", "How it was made", story.pipeline(report)),
        ("wins", "Who wins", wins),
        ("behaviors", "Behaviors", behaviors.behaviors(report)),
        ("truth", "Truth and calibration", abilities.truth(report)),
        ("rubric", "Answers rated one by one", abilities.rubric(report)),
        ("tax", "Alignment tax", behaviors.tax(report) + abilities.tasks(report)),
        ("hacking", "Reward hacking", hacking),
        ("samples", "One prompt, every stage", story.samples(report, samples)),
        ("reward-model", "The reward model", measured.reward_model(report)),
        ("labelers", "Who judged", judging.agreement(report)),
        *methods.sections(report, metrics, texts, points),
        ("curves", "Training curves", measured.curves(metrics, points)),
        ("alarms", "Alarms", story.alarms(report)),
        ("lineage", "Lineage", story.lineage(report, texts)),
        ("card", "Model card", card.model_card(report)),
        ("limits", "What this cannot show", story.limits(report)),
    ]
    return document(str(report.get("name") or report.get("recipe") or "run"), "report", sentence, numbers, sections)


def write_report(run_dir: Path, source: str = "report.json") -> Path:
    """Write run_dir/report.html from run_dir/report.json (or an evaluation's eval.json) and the stages' logs.

    Returns its path. The page is at most 2.5 MB: with more data, fewer samples and points are drawn. Raises UserError
    where the source is missing or cannot be read.
    """
    report, metrics, texts = read_run(Path(run_dir), source)
    page = ""
    for samples, points in ((40, 200), (20, 100), (8, 50), (3, 20)):
        page = render(report, metrics, texts, samples, points)
        if len(page.encode()) <= LIMIT:
            break
    path = Path(run_dir) / "report.html"
    temporary = path.with_name(".report.html.tmp")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path
