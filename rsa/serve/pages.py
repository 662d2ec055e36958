"""The live page, and what it reads: runs in lists, their events made small, the text of one candidate, reports.

The page needs nothing from elsewhere, and its policy forbids it: scripts and styles are files of this package, and what
models and people wrote becomes text, never markup.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, get_args

import anyio.to_thread
from pydantic import Field
from sse_starlette import ServerSentEvent
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.api import Message
from rsa.events import CandidateFinished, CandidateProgress
from rsa.results import RoundKind
from rsa.serve.errors import ApiError, api_error
from rsa.serve.feed import Feed, text_of
from rsa.serve.orders import RunSummary, read_order
from rsa.serve.records import RequestRecord, read_request
from rsa.serve.reports import Reports
from rsa.serve.runs import RunHandle
from rsa.serve.service import Asked, Service
from rsa.serve.streams import EventStream, event
from rsa.serve.wishes import Wishes

MAX_LISTED = 200
_TYPES = {"css": "text/css", "js": "text/javascript"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class NewRun(RequestRecord):
    """What the form of the page sends. `settings` are keys of `RSAConfig`."""

    model: str
    problem: str
    settings: dict[str, Any] = Field(default_factory=dict)


def page_routes() -> list[BaseRoute]:
    """The page and all it asks for, but for `/v1`."""
    return [
        Route("/", show_page),
        Route("/page/assets/{name}", show_asset),
        Route("/page/runs", list_runs),
        Route("/page/runs", start_run, methods=["POST"]),
        Route("/page/runs/{id}", show_run),
        Route("/page/runs/{id}/events", follow_run),
        Route("/page/runs/{id}/candidates/{kind}/{round:int}/{index:int}", follow_candidate),
        Route("/page/runs/{id}/report", order_report, methods=["POST"]),
        Route("/page/reports/{ticket}", show_report),
    ]


async def show_page(_: Request) -> Response:
    """The page itself."""
    page = _assets()["index.html"]
    return Response(page, media_type="text/html", headers={**_HEADERS, "Content-Security-Policy": _POLICY})


async def show_asset(request: Request) -> Response:
    """A script or the style of the page."""
    name = request.path_params["name"]
    kind = _TYPES.get(name.rpartition(".")[2])
    if kind is None or name not in _assets():
        raise ApiError(404, f"the page has no part {name!r}")
    return Response(_assets()[name], media_type=kind, headers=_HEADERS)


async def list_runs(request: Request) -> Response:
    """The newest runs, the newest first, as rows of a list."""
    service: Service = request.app.state.service
    summaries = await service.runs.list(MAX_LISTED)
    return JSONResponse({"data": [_row(summary) for summary in summaries]})


async def start_run(request: Request) -> Response:
    """Start a run that goes on when the page is closed."""
    service: Service = request.app.state.service
    wanted = await read_request(request, NewRun)
    route = service.served.route(wanted.model)
    if not route.rsa:
        raise ApiError(400, f"{wanted.model} is no run: ask for {wanted.model}:rsa", param="model")
    if not wanted.problem.strip():
        raise ApiError(400, "the problem is empty", param="problem")
    message = Message(role="user", text=wanted.problem)
    answering = service.ask(Asked(route, [message], Wishes(rsa=wanted.settings), background=True))
    answering.leave()
    return JSONResponse({"id": answering.run_id}, 201)


async def show_run(request: Request) -> Response:
    """How a run stands."""
    handle = await _run(request)
    return JSONResponse({**_row(handle.summary), "report": _reports(request).available})


async def follow_run(request: Request) -> Response:
    """A run's small events, from the first one on; the last one says how it stands."""
    return _stream(request, _told(await _run(request)))


async def follow_candidate(request: Request) -> Response:
    """What one candidate writes as it comes, then all that it wrote."""
    kind = request.path_params["kind"]
    if kind not in get_args(RoundKind):
        raise ApiError(404, f"there is no round of the kind {kind!r}")
    handle = await _run(request)
    where = request.path_params
    return _stream(request, _written(handle, kind, where["round"], where["index"]))


async def order_report(request: Request) -> Response:
    """Have a run's report written. A tab cannot send a key, so this gives an address that needs none for a while."""
    handle = await _run(request)
    if not handle.ended:
        raise ApiError(409, "the run has not ended: its report comes afterwards", code="conflict")
    ticket = await _reports(request).write(handle.folder)
    return JSONResponse({"url": f"page/reports/{ticket}"}, 201)


async def show_report(request: Request) -> Response:
    """A report that was ordered."""
    path = _reports(request).find(request.path_params["ticket"])
    headers = {**_HEADERS, "Content-Security-Policy": _REPORT_POLICY}
    return FileResponse(path, media_type="text/html", headers=headers)


async def _run(request: Request) -> RunHandle:
    service: Service = request.app.state.service
    return await service.runs.get(request.path_params["id"])


def _reports(request: Request) -> Reports:
    state = request.app.state
    if not hasattr(state, "reports"):
        state.reports = Reports()
    found: Reports = state.reports
    return found


def _stream(request: Request, events: AsyncIterator[ServerSentEvent]) -> Response:
    service: Service = request.app.state.service
    return EventStream(events, keep_alive_s=service.settings.keep_alive_s)


async def _told(handle: RunHandle) -> AsyncIterator[ServerSentEvent]:
    feed, told_problem = Feed(), False
    yield event(_state(handle))
    try:
        async for numbered in handle.follow():
            if not told_problem:  # from the first event on it is on the disk
                yield event(await _problem(handle))
                told_problem = True
            for small in feed.take(numbered.event):
                yield event(small)
        await handle.over()
        if not told_problem:
            yield event(await _problem(handle))
        yield event(_state(handle))
    except Exception as error:
        yield event({"type": "state", "state": "failed", "error": api_error(error).message})


async def _written(handle: RunHandle, kind: RoundKind, number: int, index: int) -> AsyncIterator[ServerSentEvent]:
    began = False
    try:
        if not handle.ended:
            yield event({"type": "waiting", "message": "It has not written anything yet."})
        async for numbered in handle.follow():
            match numbered.event:
                case CandidateProgress(kind=k, round=r, index=i) if (k, r, i) == (kind, number, index):
                    began = True
                    yield event(text_of(numbered.event))
                case CandidateFinished(kind=k, candidate=candidate) if (k, candidate.round, candidate.index) == (
                    kind,
                    number,
                    index,
                ):
                    yield event(text_of(numbered.event))
                    return
        message = "It did not come to its end." if began else "It is not in the log of this run."
        yield event({"type": "missing", "message": message})
    except Exception as error:
        yield event({"type": "missing", "message": api_error(error).message})


async def _problem(handle: RunHandle) -> dict[str, Any]:
    order = await anyio.to_thread.run_sync(read_order, handle.folder)
    images = len(order.problem.images)
    return {"type": "problem", "text": order.problem.text, "earlier": len(order.problem.earlier), "images": images}


def _state(handle: RunHandle) -> dict[str, Any]:
    run = handle.summary
    return {"type": "state", "state": run.state, "error": run.error, "seconds": _seconds(run)}


def _row(summary: RunSummary) -> dict[str, Any]:
    kept = {"id", "name", "model", "title", "state", "n", "t", "answer", "check", "error"}
    return {
        **summary.model_dump(mode="json", include=kept),
        "created_at_iso": datetime.fromtimestamp(summary.created_at, UTC).isoformat(timespec="seconds"),
        "seconds": _seconds(summary),
        "tokens": summary.usage.completion_tokens,
        "votes": [{"answer": vote.answer, "count": vote.count, "of": vote.of} for vote in summary.votes[:1]],
    }


def _seconds(summary: RunSummary) -> float | None:
    """How long a run that has ended took, its waiting included."""
    return None if summary.finished_at is None else round(summary.finished_at - summary.created_at, 2)


@cache
def _assets() -> dict[str, bytes]:
    """The files of the page, by name; nothing outside of them can be asked for."""
    folder = resources.files("rsa.serve") / "page"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
