"""The runs page: live curves, samples by step, alarms in plain words, stop and resume, two runs compared, lineage."""

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from markupsafe import Markup

from tutelage.errors import UserError
from tutelage.report.graph import Node, graph
from tutelage.report.parts import data
from tutelage.report.svg import Line, line_panel
from tutelage.web.access import LEADS, allow
from tutelage.web.compare import bench_of
from tutelage.web.compared import as_csv
from tutelage.web.pages import page
from tutelage.workbench.critiques import files_in, find_critiques
from tutelage.workbench.health import alarms, chosen_answers, first_step, proxy_and_gold
from tutelage.workbench.watching import (
    ON_POLICY,
    UNITS,
    RunView,
    Series,
    Source,
    curves,
    departures,
    differences,
    find_runs,
    last_words,
    lineage,
    metrics_table,
    read_run,
    resume_run,
    samples,
    stop_run,
)

router = APIRouter(prefix="/runs")
CHARTS = 8  # drawn open; the others are folded
ROWS = 30  # of the table under a curve, at most; its CSV has all
MEANT = {
    "proxy": "mean reward-model score of the held-out answers: what is maximized",
    "gold": "mean score of the same answers by the judge that training never sees: what was meant",
}
SAID = {
    "stop": "It stops after this step, with a checkpoint; you can resume it.",
    "resume": "It goes on where it was stopped.",
}


@router.get("")
@allow(*LEADS)
def all_runs(request: Request) -> Response:
    found = find_runs(bench_of(request).runs)
    root = bench_of(request).runs
    return page(request, "runs.html", runs=found, folder=str(root), critiques=find_critiques(root))


@router.get("/{name:path}/live")
@allow(*LEADS)
def live(request: Request, name: str, beside: str = "") -> Response:
    """The part of the page that is fetched anew while the run goes on."""
    run = read_run(bench_of(request).runs, name)
    return page(request, "run_live.html", run=run, beside=beside, **_measured(request, run, beside))


@router.get("/{name:path}/metrics.csv")
@allow(*LEADS)
def metrics_csv(request: Request, name: str, metric: str = "") -> Response:
    """Every number behind the curves, or behind one of them."""
    table = metrics_table(read_run(bench_of(request).runs, name))
    if metric:
        if metric not in table[0]:
            raise UserError(f"the run logs no {metric!r}", mend="choose a curve of its page")
        places = [i for i, column in enumerate(table[0]) if column in ("step", metric)]
        table = [kept for row in table if (kept := [row[i] for i in places])[-1] is not None]
    file = f"{metric.replace('/', '-') or 'metrics'}.csv"
    return Response(
        as_csv(table), media_type="text/csv", headers={"content-disposition": f'attachment; filename="{file}"'}
    )


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
    others = [other.name for other in find_runs(root) if _alike(run, other)]
    beside = beside if beside in others else ""
    sources = lineage(run, root)
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
        checks=first_step(run),
        sources=sources,
        graph=_graph(request, run, sources),
        others=others,
        beside=beside,
        critiques=files_in(run.path),
        apart=differences(run, read_run(root, beside)) if beside else [],
        **_measured(request, run, beside),
    )


def _alike(run: RunView, other: RunView) -> bool:
    """Whether two runs have curves to draw beside each other: of one stage, or both on-policy."""
    same = other.stage == run.stage or {run.stage, other.stage} <= set(ON_POLICY)
    return same and other.name != run.name


def _graph(request: Request, run: RunView, sources: list[Source]) -> Markup:
    """Data, models and judges behind a run. A run's box leads to its page, any other to its line in the list."""
    root = request.scope.get("root_path", "")
    nodes = []
    for place, one in enumerate(sources):
        away = one.run is not None and one.run != run.name
        roles = {role for other in sources for role, at in other.inputs if at == place}
        note = "this run" if one.run == run.name else ", ".join(sorted(roles)).replace("_", " ") or one.kind
        href = f"{root}/runs/{one.run}" if away else f"#from-{place}"
        nodes.append(Node(one.name, note, href, f"g-{one.kind}", tuple(dict.fromkeys(at for _, at in one.inputs))))
    # Escaped piece by piece in report.graph.
    return Markup(graph(nodes, f"What {run.name} was made of")) if nodes else Markup()


def _measured(request: Request, run: RunView, beside: str) -> dict[str, Any]:
    theirs = {s.metric: s for s in curves(read_run(bench_of(request).runs, beside))} if beside else {}
    whole = f"{request.scope.get('root_path', '')}/runs/{quote(run.name)}/metrics.csv?metric="
    charts = []
    for series in curves(run):
        look = "s-sft" if run.stage == "sft" else "s-ppo"
        lines = [Line(run.path.name if beside else "", series.points, look, None)]
        if series.metric in theirs:
            lines.append(Line(beside.rpartition("/")[2], theirs[series.metric].points, "s-base", None, dash=True))
        # Escaped piece by piece in report.svg.
        chart = Markup(line_panel(lines, series.sentence, x_label="step", width=400, height=210))
        address = whole + quote(series.metric, safe="")
        below = Markup(data("", ["step", series.metric], series.points, shown=ROWS, address=address))
        charts.append((series, chart, UNITS.get(series.metric, ("", None, ""))[2], below))
    charts = _proxy_and_gold(run) + charts
    found = {"alarms": alarms(run), "watched": run.stage in ON_POLICY, "chosen": chosen_answers(run)}
    found["words"] = last_words(run)
    return {"charts": charts[:CHARTS], "folded": charts[CHARTS:], **found}


def _proxy_and_gold(run: RunView) -> list[tuple[Series, Markup, str, Markup]]:
    """What PPO maximizes and what it was meant to, on how far it went, where the samples carry gold."""
    points = proxy_and_gold(run)
    if len(points) < 2:
        return []
    made = []
    for name in ("proxy", "gold"):
        best = max(points, key=lambda p: p[name])
        along = [(max(0.0, p["kl"]) ** 0.5, p[name]) for p in points]
        sentence = f"{name} {along[0][1]:.2f} → {along[-1][1]:.2f}, best at KL {best['kl']:.1f} (step {best['step']})"
        note = (max(0.0, best["kl"]) ** 0.5, best[name], "best") if best is not points[-1] else None
        line = Line("", along, "s-ppo" if name == "proxy" else "s-gold", "triangle", note=note)
        chart = Markup(line_panel([line], sentence, x_label="√KL to the reference, √nats", width=400, height=210))
        rows = [[p["step"], p["kl"], p[name]] for p in points]
        below = Markup(data(f"{run.path.name}-{name}", ["step", "kl", name], rows))
        made.append((Series(name, along, sentence), chart, MEANT[name], below))
    return made
