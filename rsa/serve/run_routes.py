"""`/v1/runs`: the runs of a server, for whoever wants to look, follow, stop or go on with one."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sse_starlette import ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rsa.serve.errors import ApiError, api_error
from rsa.serve.orders import RunSummary
from rsa.serve.runs import RunHandle
from rsa.serve.service import Service
from rsa.serve.streams import EventStream, event

MAX_LISTED = 1000


async def list_runs(request: Request) -> Response:
    """The newest runs, the newest first: `?limit=` of them."""
    service: Service = request.app.state.service
    limit = _number(request.query_params.get("limit", "100"), "limit", most=MAX_LISTED)
    summaries = await service.runs.list(limit)
    return JSONResponse({"object": "list", "data": [_shown(summary) for summary in summaries]})


async def show_run(request: Request) -> Response:
    """How a run stands."""
    return JSONResponse(_shown((await _run(request)).summary))


async def cancel_run(request: Request) -> Response:
    """End a run now; what it has until then is kept, and it can be resumed."""
    handle = await _run(request)
    handle.cancel()
    await handle.over()
    return JSONResponse(_shown(handle.summary))


async def resume_run(request: Request) -> Response:
    """Go on with a run that did not finish: what its log has is not generated again. It goes on in the background."""
    service: Service = request.app.state.service
    service.refuse_if_draining()
    return JSONResponse(_shown((await service.runs.resume(request.path_params["id"])).summary))


async def follow_run(request: Request) -> Response:
    """The events of a run, from the first one on, or after the one that `Last-Event-ID` (or `?after=`) names.

    Events have the names and the content that `rsa.events` gives them. Those of progress have no id. After the last
    one, `end` says how the run stands.
    """
    service: Service = request.app.state.service
    after = request.headers.get("last-event-id") or request.query_params.get("after", "0")
    number = _number(after, "after")
    handle = await _run(request)
    return EventStream(_told(handle, number), keep_alive_s=service.settings.keep_alive_s)


async def _told(handle: RunHandle, after: int) -> AsyncIterator[ServerSentEvent]:
    try:
        async for numbered in handle.follow(after):
            told = numbered.event
            yield event(told.model_dump_json(), name=told.type, number=numbered.number)
        await handle.over()
        yield event(_shown(handle.summary), name="end")
    except Exception as error:
        yield event(api_error(error).body(), name="error")


async def _run(request: Request) -> RunHandle:
    service: Service = request.app.state.service
    return await service.runs.get(request.path_params["id"])


def _shown(summary: RunSummary) -> dict[str, object]:
    return {"object": "run", **summary.model_dump(mode="json", exclude={"format"})}


def _number(text: str, name: str, *, most: int = 2**53) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > most:
        raise ApiError(400, f"{name} = {text!r}: should be a whole number up to {most}", param=name)
    return int(text)
