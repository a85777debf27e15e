"""The runs page: live curves, samples by step, alarms in plain words, stop and resume, lineage."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from markupsafe import Markup

from tutelage.report.svg import Line, line_panel
from tutelage.web.access import LEADS, allow
from tutelage.web.compare import bench_of
from tutelage.web.pages import page
from tutelage.workbench.watching import (
    UNITS,
    RunView,
    alarms,
    curves,
    departures,
    find_runs,
    lineage,
    read_run,
    resume_run,
    samples,
    stop_run,
)

router = APIRouter(prefix="/runs")
CHARTS = 8  # drawn open; the others are folded
SAID = {
    "stop": "It stops after this step, with a checkpoint; you can resume it.",
    "resume": "It goes on where it was stopped.",
}


@router.get("")
@allow(*LEADS)
def all_runs(request: Request) -> Response:
    found = find_runs(bench_of(request).runs)
    return page(request, "runs.html", runs=found, folder=str(bench_of(request).runs))


@router.get("/{name:path}/live")
@allow(*LEADS)
def live(request: Request, name: str, beside: str = "") -> Response:
    """The part of the page that is fetched anew while the run goes on."""
    run = read_run(bench_of(request).runs, name)
    return page(request, "run_live.html", run=run, beside=beside, **_measured(request, run, beside))


@router.post("/{name:path}/stop")
@allow(*LEADS)
def stop(request: Request, name: str) -> Response:
    stop_run(read_run(bench_of(request).runs, name))
    return _back(request, name, "stop")


@router.post("/{name:path}/resume")
@allow(*LEADS)
def resume(request: Request, name: str) -> Response:
    resume_run(read_run(bench_of(request).runs, name))
    return _back(request, name, "resume")


def _back(request: Request, name: str, said: str) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/runs/{name}?said={said}", 303)


@router.get("/{name:path}")
@allow(*LEADS)
def one_run(request: Request, name: str, step: int | None = None, beside: str = "", said: str = "") -> Response:
    root = bench_of(request).runs
    run = read_run(root, name)
    steps, at, shown = samples(run, step)
    differing, same = departures(run)
    others = [other.name for other in find_runs(root) if other.stage == run.stage and other.name != run.name]
    return page(
        request,
        "run.html",
        run=run,
        said=SAID.get(said, ""),
        steps=steps,
        at=at,
        samples=shown,
        differing=differing,
        same=same,
        lineage=lineage(run, root),
        others=others,
        beside=beside if beside in others else "",
        **_measured(request, run, beside if beside in others else ""),
    )


def _measured(request: Request, run: RunView, beside: str) -> dict[str, Any]:
    theirs = {s.metric: s for s in curves(read_run(bench_of(request).runs, beside))} if beside else {}
    charts = []
    for series in curves(run):
        look = "s-sft" if run.stage == "sft" else "s-ppo"
        lines = [Line(run.path.name if beside else "", series.points, look, None)]
        if series.metric in theirs:
            lines.append(Line(beside.rpartition("/")[2], theirs[series.metric].points, "s-base", None, dash=True))
        # Escaped piece by piece in report.svg.
        chart = Markup(line_panel(lines, series.sentence, x_label="step", width=400, height=210))
        charts.append((series, chart, UNITS.get(series.metric, ("", None, ""))[2]))
    return {"charts": charts[:CHARTS], "folded": charts[CHARTS:], "alarms": alarms(run)}
