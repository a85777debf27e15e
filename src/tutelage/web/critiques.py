"""The pages of Constitutional AI: every critique, revision and verdict, row by row."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tutelage.web.access import LEADS, allow
from tutelage.web.compare import bench_of
from tutelage.web.pages import page
from tutelage.workbench.critiques import PAGE, critiques, find_critiques, picked

router = APIRouter(prefix="/critiques")


@router.get("")
@allow(*LEADS)
def all_files(request: Request) -> Response:
    return page(request, "critiques.html", files=find_critiques(bench_of(request).runs))


@router.get("/{name:path}")
@allow(*LEADS)
def one_file(
    request: Request, name: str, kind: str = "", principle: str = "", round: str = "", outcome: str = "", first: int = 0
) -> Response:
    file = critiques(bench_of(request).runs, name, kind)
    wanted = {"principle": principle, "round": round, "outcome": outcome}
    return page(request, "critique_rows.html", file=file, wanted=wanted, shown=picked(file, wanted, first), size=PAGE)
