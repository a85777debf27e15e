"""The compare page: the same prompts to many models, read side by side, voted on blind."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from tutelage.errors import UserError
from tutelage.feedback.ranking import LETTERS, RankingError, parse_ranking, ranks_of, shown_cards
from tutelage.report.comparison import render_comparison
from tutelage.report.reward_strip import strip
from tutelage.web.access import LEADS, Denied, allow, number_field, text_field, uploaded
from tutelage.web.compared import answer_rows, as_csv, as_page, kept_words, rating_rows
from tutelage.web.differences import differences
from tutelage.web.pages import page, wants_json
from tutelage.workbench.bench import Workbench
from tutelage.workbench.comparisons import Column, Comparison, Settings
from tutelage.workbench.filling import column, cost, is_world
from tutelage.workbench.models import is_endpoint, require_known

router = APIRouter(prefix="/compare")
POLL = 0.25  # seconds between looks for changes, so at most four paints a second
CLASSES = {
    "compliance": ("full", "answers in full"),
    "partial": ("partial", "answers in part"),
    "refusal": ("refused", "refuses"),
}


def bench_of(request: Request) -> Workbench:
    return request.app.state.workbench


def _to(request: Request, where: str) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/compare{where}", 303)


# --- setting up ----------------------------------------------------------------------------------------------------


@router.get("")
@allow(*LEADS)
def setup(request: Request) -> Response:
    return _setup(request)


def _setup(request: Request, fault: str = "", status: int = 200) -> Response:
    bench = bench_of(request)
    found = bench.models.found()
    return page(
        request,
        "compare.html",
        status=status,
        fault=fault,
        policies=[one for one in found if one.role == "policy"],
        rewards=[one for one in found if one.role == "reward"],
        endpoints=[one for one in found if one.role == "endpoint"],
        outputs=bench.brought_in("outputs"),
        prompts=bench.brought_in("prompts"),
        stored=[(one, one.counts()) for one in bench.stored()[:20]],
        sent=request.state.sent,
        free=may_type(request),
    )


def may_type(request: Request) -> bool:
    """Whether this person may name any folder or address: on their own machine, or as an administrator."""
    return request.app.state.local or request.state.person.role == "admin"


@router.post("")
@allow(*LEADS)
def make(request: Request) -> Response:
    """Make a comparison; where nothing is paid for, it begins at once."""
    try:
        made = _made(request)
    except UserError as error:
        place = f"{error.where}: " if error.where else ""
        return _setup(request, f"{place}{error.what}; {error.mend or 'look again'}.", 422)
    if not cost(made):
        bench_of(request).fill(made)
    return _to(request, f"/{made.id}")


def _made(request: Request) -> Comparison:
    bench = bench_of(request)
    known = [*bench.models.found(), *(one for one, _ in bench.brought_in("outputs"))]
    names = {one.spec: one.name for one in known}
    specs = [(names.get(spec, spec), spec) for spec in _list(request, "models")]
    for line in text_field(request, "more", 4000).splitlines():
        if line.strip():
            name, equals, spec = line.strip().partition("=")
            given = (name, spec) if equals and "/" not in name and ":" not in name else (line.strip(), line.strip())
            specs.append(given)
    columns = [_column(name, require_known(spec, known, anything=may_type(request)), bench) for name, spec in specs]
    prompts = bench.asked(
        text_field(request, "typed", 40_000), text_field(request, "battery"), text_field(request, "file", 400)
    )
    reward = text_field(request, "reward", 400)
    judges = tuple(filter(None, [text_field(request, "judge", 400)]))
    for spec in filter(None, (reward, *judges)):
        require_known(spec, known, anything=may_type(request))
    settings = Settings(
        max_tokens=max(1, min(number_field(request, "max_tokens"), 4096)),
        temperature=_temperature(request),
        seed=number_field(request, "seed"),
        reward=reward,
        reward_identity=_column("reward", reward, bench).identity if reward else "",
        judges=(*(["gold"] if prompts and is_world(prompts) else []), *judges),
        blind=text_field(request, "blind", 1) == "1",
    )
    made = Comparison.create(bench.comparisons, columns, prompts, settings)
    return bench.comparison(made.id)  # the one that all requests share


def _list(request: Request, name: str) -> list[str]:
    value = request.state.sent.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, str) and len(one) <= 400 for one in value):
        raise Denied(400, f"The field {name} cannot be used.")
    return value


def _column(name: str, spec: str, bench: Workbench) -> Column:
    if is_endpoint(spec) and not spec.partition(":")[2]:
        raise UserError("names no model", where=spec, mend=f"write {spec}MODEL in the field below the list")
    return column(name, spec, bench.runs)


def _temperature(request: Request) -> float:
    try:
        return max(0.0, min(float(text_field(request, "temperature", 8)), 2.0))
    except ValueError as error:
        raise UserError("is no number", where="temperature", mend="give 0 to 2") from error


@router.post("/import")
@allow(*LEADS)
def bring_in(request: Request) -> Response:
    file, kind = uploaded(request, "file"), text_field(request, "kind", 16)
    if kind not in ("outputs", "prompts"):
        raise Denied(400, "Say what the file holds.")
    bench_of(request).bring_in(file.filename or "", file.file.read(), kind)
    return _to(request, "")


# --- the matrix ----------------------------------------------------------------------------------------------------


@router.get("/{name}")
@allow(*LEADS)
def matrix(request: Request, name: str, open: int = -1) -> Response:
    bench = bench_of(request)
    one = bench.comparison(name)
    missing = {
        c.name: [one.prompts[p].id for p in range(len(one.prompts)) if one.cells[p, i].state == "missing"]
        for i, c in enumerate(one.columns)
        if c.kind == "outputs"
    }
    return page(
        request,
        "comparison.html",
        one=one,
        rows=[_row(request, one, p) for p in range(len(one.prompts))],
        columns=[(c, kept_words(c, bench.reproducible(c))) for c in one.columns],
        costs=cost(one),
        missing={name: ids for name, ids in missing.items() if ids},
        opened=_opened(request, one, open) if 0 <= open < len(one.prompts) else None,
        open=open,
        **_progress(request, one),
        **_ratings(request, one),
    )


def _progress(request: Request, one: Comparison) -> dict[str, Any]:
    filling = bench_of(request).fillings.get(one.id)
    counts = one.counts()
    waiting = counts["queued"] + counts["running"] + counts["failed"]
    waiting += sum(len(one.to_judge(judge)) for judge in one.settings.judges)
    failure = filling.failure if filling else ""
    return {"counts": counts, "running": bool(filling and filling.running), "waiting": waiting, "failure": failure}


def _ratings(request: Request, one: Comparison) -> dict[str, Any]:
    """In a blind comparison what judges, rewards and others say would tell before the vote: rows count once seen."""
    seen = one.seen(request.state.person.id) if one.settings.blind else None
    standings = one.standings(seen)
    low = min((r["ci95"][0] for s in standings.values() for r in s["rows"]), default=900.0)
    high = max((r["ci95"][1] for s in standings.values() for r in s["rows"]), default=1100.0)
    return {
        "of": len(one.prompts),
        "standings": standings,
        "scale": (low, max(high, low + 1)),
        "unrated": one.unrated(),
        "lost": one.lost(),
        "seen": None if seen is None or len(seen) == len(one.prompts) else len(seen),
    }


def _row(request: Request, one: Comparison, p: int) -> dict[str, Any]:
    hidden = not one.revealed(request.state.person.id, p)
    cells = [one.cells[p, c] for c in range(len(one.columns))]
    answered = one.answered(p)
    tags = [] if hidden else _tags(one, p)
    return {
        "p": p,
        "prompt": one.prompts[p],
        "hidden": hidden,
        "complete": one.complete(p),
        "ready": len(answered),
        "cells": []
        if hidden
        else [(cell, CLASSES[cell.refusal] if cell.state in ("done", "cut") else None) for cell in cells],
        "tags": tags,
        "voted": any(v["prompt"] == p and v["person"] == request.state.person.id and v["ranks"] for v in one.votes),
    }


def _tags(one: Comparison, p: int) -> list[str]:
    """What the filters above the table look for."""
    cells = [one.cells[p, c] for c in range(len(one.columns))]
    classes = {cell.refusal for cell in cells if cell.state in ("done", "cut")}
    found = [state for state in ("failed", "cut", "missing") if any(c.state == state for c in cells)]
    return found + (["disagree"] if len(classes) > 1 else []) + (["refused"] if "refusal" in classes else [])


@router.get("/{name}/rows")
@allow(*LEADS)
def rows(request: Request, name: str, n: str) -> Response:
    """Some rows of the table anew."""
    one = bench_of(request).comparison(name)
    numbers = [int(part) for part in n.split(",")[:200] if part.isdecimal() and int(part) < len(one.prompts)]
    return page(request, "comparison_rows.html", one=one, rows=[_row(request, one, p) for p in numbers], open=-1)


@router.get("/{name}/rows/{p}")
@allow(*LEADS)
def open_row(request: Request, name: str, p: int, against: int = 0) -> Response:
    one = bench_of(request).comparison(name)
    _require_row(one, p)
    return page(request, "comparison_open.html", one=one, opened=_opened(request, one, p, against))


@router.get("/{name}/ratings")
@allow(*LEADS)
def ratings_part(request: Request, name: str) -> Response:
    return page(request, "comparison_ratings.html", **_ratings(request, bench_of(request).comparison(name)))


def _require_row(one: Comparison, p: int) -> None:
    if not 0 <= p < len(one.prompts):
        raise Denied(404, "There is no such prompt.")


def _opened(request: Request, one: Comparison, p: int, against: int = 0) -> dict[str, Any]:
    """A row to read. Blind: cards in an order of this person's, equal answers on one; nothing but their texts."""
    hidden = not one.revealed(request.state.person.id, p)
    places = one.answered(p)
    shown: dict[str, Any] = {"p": p, "prompt": one.prompts[p], "hidden": hidden, "complete": one.complete(p)}
    if hidden:
        cards = _cards(request, one, p)
        texts = [one.cells[p, places[card[0]]].text for card in cards]
        return {
            **shown,
            "ready": len(places),
            "cards": list(zip(LETTERS, texts, strict=False)) if one.complete(p) else [],
            "shown": _shown(texts),
        }
    base = against if against in places else (places[0] if places else -1)
    cells = []
    for c, model in enumerate(one.columns):
        cell = one.cells[p, c]
        pieces = differences(one.cells[p, base].text, cell.text) if c in places and c != base else [("same", cell.text)]
        cells.append(
            {
                "model": model,
                "cell": cell,
                "answered": c in places,
                "is_base": c == base,
                "pieces": pieces,
                "class": CLASSES[cell.refusal],
                "strip": strip(cell.tokens, cell.prefix_rewards),
                "names_itself": c in one.self_naming(p),
            }
        )
    verdicts = [v for (q, *_), v in list(one.verdicts.items()) if q == p]
    said = [(v["judge"], _verdict(one, v)) for v in verdicts]
    votes = [(v["person"], _ranking(one, v), v["why"]) for v in one.votes if v["prompt"] == p and v["ranks"]]
    return {**shown, "cells": cells, "verdicts": said, "votes": votes, "base": base}


def _shown(texts: list[str]) -> str:
    """What stood on the cards, so that a vote on others is noticed."""
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()


def _cards(request: Request, one: Comparison, p: int) -> list[list[int]]:
    texts = [one.cells[p, c].text for c in one.answered(p)]
    return shown_cards(texts, one.id, p, request.state.person.id)


def _verdict(one: Comparison, v: dict[str, Any]) -> str:
    a, b = one.columns[v["a"]].name, one.columns[v["b"]].name
    if v["points"] is None:
        return f"{a}, {b}: {v['problem']}"
    sign = ">" if v["points"] == 1 else "<" if v["points"] == 0 else "="
    return f"{a} {sign} {b}" + (" (the two orders disagreed)" if v["flipped"] else "")


def _ranking(one: Comparison, vote: dict[str, Any]) -> str:
    groups: dict[int, list[str]] = {}
    for c, rank in enumerate(vote["ranks"]):
        if rank is not None:
            groups.setdefault(rank, []).append(one.columns[c].name)
    return " > ".join(" = ".join(groups[rank]) for rank in sorted(groups))


# --- acts ----------------------------------------------------------------------------------------------------------


@router.post("/{name}/run")
@allow(*LEADS)
def start(request: Request, name: str) -> Response:
    bench_of(request).fill(bench_of(request).comparison(name))
    return JSONResponse({"running": True}) if wants_json(request) else _to(request, f"/{name}")


@router.post("/{name}/stop")
@allow(*LEADS)
def stop(request: Request, name: str) -> Response:
    if filling := bench_of(request).filling(name):
        filling.stop()
    return JSONResponse({"running": False}) if wants_json(request) else _to(request, f"/{name}")


@router.post("/{name}/rows/{p}/vote")
@allow(*LEADS)
def vote(request: Request, name: str, p: int) -> Response:
    """A ranking of the cards as this person saw them (blind), or of the columns by letter."""
    one = bench_of(request).comparison(name)
    _require_row(one, p)
    person, places = request.state.person.id, one.answered(p)
    blind = not one.revealed(person, p)
    cards = _cards(request, one, p) if blind else [[i] for i in range(len(places))]
    read = text_field(request, "shown", 40)
    if blind and read and read != _shown([one.cells[p, places[card[0]]].text for card in cards]):
        # An answer that had failed has come since: the letters are others now.
        raise UserError("the answers changed since you read them", mend="read this row again")
    try:
        groups = parse_ranking(text_field(request, "ranking"), LETTERS[: len(cards)])
    except RankingError as error:
        raise UserError(str(error), mend="write, for example, B > A = C") from error
    by_place = ranks_of(groups, cards)
    if sum(rank is not None for rank in by_place) < 2:
        raise UserError("ranks fewer than two answers", mend="write, for example, B > A")
    ranks: list[int | None] = [None] * len(one.columns)
    for place, rank in zip(places, by_place, strict=True):
        ranks[place] = rank
    stored = one.vote(person, p, ranks)
    said = [
        f"{letter} was {_and([one.columns[places[i]].name for i in card])}"
        for letter, card in zip(LETTERS, cards, strict=False)
    ]
    reply = {
        "rated": stored["rated"],
        "why": stored["why"],
        "names": "; ".join(said),
        "self_naming": len(stored["self_naming"]),
    }
    return JSONResponse(reply) if wants_json(request) else _to(request, f"/{name}?open={p}")


def _and(names: list[str]) -> str:
    return " and ".join(names)


@router.post("/{name}/rows/{p}/reveal")
@allow(*LEADS)
def reveal(request: Request, name: str, p: int) -> Response:
    one = bench_of(request).comparison(name)
    _require_row(one, p)
    one.reveal(request.state.person.id, p)
    return JSONResponse({"revealed": True}) if wants_json(request) else _to(request, f"/{name}?open={p}")


@router.get("/{name}/events")
@allow(*LEADS)
async def events(request: Request, name: str, since: int = 0) -> Response:
    """Server-sent events: which rows changed, and how far the work is."""
    one = bench_of(request).comparison(name)

    async def stream() -> AsyncIterator[str]:
        seen = since
        while not await request.is_disconnected():
            progress = _progress(request, one)
            if one.revision > seen or not progress["running"]:
                changed = [p for p, revision in list(one.touched.items()) if revision > seen]
                seen = one.revision
                yield f"data: {json.dumps({'rows': changed, 'revision': seen, **progress})}\n\n"
                if not progress["running"]:
                    return
            await asyncio.sleep(POLL)

    return StreamingResponse(stream(), media_type="text/event-stream")


@router.get("/{name}/export")
@allow(*LEADS)
def export(request: Request, name: str, kind: str = "comparisons") -> Response:
    """comparisons: the rated votes, as records that `tutelage reward --data` reads. answers: every cell, ratings: the
    tables of the page, as CSV. page: all of it as one HTML file that opens without a connection."""
    one = bench_of(request).comparison(name)
    if kind == "page":
        shown = [_row(request, one, p) | {"opened": _opened(request, one, p)} for p in range(len(one.prompts))]
        kept = [bench_of(request).reproducible(c) for c in one.columns]
        body = render_comparison(as_page(one, shown, kept, _ratings(request, one)))
        return _download(body, f"comparison-{name[:8]}.html", "text/html")
    if kind == "comparisons":
        body = "".join(json.dumps(r.to_json(), ensure_ascii=False) + "\n" for r in one.records())
        return _download(body, f"comparisons-{name[:8]}.jsonl", "application/jsonl")
    kind = "ratings" if kind == "ratings" else "answers"
    revealed = [one.revealed(request.state.person.id, p) for p in range(len(one.prompts))]
    rows = rating_rows(_ratings(request, one)["standings"]) if kind == "ratings" else answer_rows(one, revealed)
    return _download(as_csv(rows), f"{kind}-{name[:8]}.csv", "text/csv")


def _download(body: str, name: str, kind: str) -> Response:
    return Response(body, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})
