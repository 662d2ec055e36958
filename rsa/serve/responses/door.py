"""`/v1/responses`: what clients ask, and how they are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio
from sse_starlette import ServerSentEvent
from starlette.endpoints import HTTPEndpoint
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response as Reply
from starlette.routing import BaseRoute, Route

from rsa.serve.errors import ApiError, api_error
from rsa.serve.records import read_query, read_request
from rsa.serve.responses.events import LAST
from rsa.serve.responses.live import Line
from rsa.serve.responses.request import CreateResponse, ItemsQuery, RetrieveQuery
from rsa.serve.responses.response import Answered, DeletedResponse, ItemList
from rsa.serve.responses.wishes import renamed
from rsa.serve.responses.work import Responses, items_of
from rsa.serve.service import Service
from rsa.serve.streams import DONE, EventStream, begun_soon, event, unless_left

PATH = "/v1/responses"


def routes() -> list[BaseRoute]:
    one = PATH + "/{response_id}"
    return [
        Route(PATH, create, methods=["POST"]),
        Route(one, OneResponse),
        Route(f"{one}/cancel", cancel, methods=["POST"]),
        Route(f"{one}/input_items", input_items, methods=["GET"]),
    ]


async def create(request: Request) -> Reply:
    """A response: whole, streamed, or worked out in the background."""
    try:
        return await _created(request)
    except ClientDisconnect:
        raise
    except Exception as error:
        raise renamed(api_error(error)) from error


async def _created(request: Request) -> Reply:
    service, responses = _service(request), _responses(request)
    wanted = await read_request(request, CreateResponse)
    live, answering = await responses.begin(wanted)
    try:
        if not (wanted.stream or wanted.background):
            return _json(await unless_left(request, live.whole()))
        await begun_soon(answering, service.settings.first_byte_s)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await responses.leave(live)
        raise
    if wanted.stream:
        return _stream(live.follow(), service, None if wanted.background else live.leave)
    return _json(live.response)


class OneResponse(HTTPEndpoint):
    """One response by its id."""

    async def get(self, request: Request) -> Reply:
        """A response as it stands, or its events after `starting_after`."""
        responses, response_id = _responses(request), request.path_params["response_id"]
        query = read_query(request, RetrieveQuery)
        if query.stream:
            after = -1 if query.starting_after is None else query.starting_after
            return _stream(await responses.follow(response_id, after), _service(request))
        if query.starting_after is not None:
            raise ApiError(400, "starting_after is for stream = true", param="starting_after")
        return _json(await responses.read(response_id))

    async def delete(self, request: Request) -> Reply:
        """That the response is forgotten. A run that answered stays where runs are."""
        response_id = request.path_params["response_id"]
        await _responses(request).delete(response_id)
        return _json(DeletedResponse(id=response_id))


async def cancel(request: Request) -> Reply:
    """The response, cancelled if it had not ended; only one in the background can be."""
    responses = _responses(request)
    response = await responses.read(request.path_params["response_id"])
    if not response.background:
        raise ApiError(400, "only a response in the background can be cancelled: leave the others", param="response_id")
    return _json(await responses.cancel(response.id))


async def input_items(request: Request) -> Reply:
    """The items that a response was asked with."""
    query = read_query(request, ItemsQuery)
    items = items_of(await _responses(request).stored(request.path_params["response_id"]))
    found = items if query.order == "asc" else items[::-1]
    if query.after is not None:
        ids = [item["id"] for item in found]
        if query.after not in ids:
            raise ApiError(400, f"after = {query.after!r}: there is no such item", param="after")
        found = found[ids.index(query.after) + 1 :]
    page = found[: query.limit]
    ends = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return _json(ItemList(data=tuple(page), first_id=ends[0], last_id=ends[1], has_more=len(found) > query.limit))


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _responses(request: Request) -> Responses:
    responses: Responses = request.app.state.responses
    return responses


def _json(answered: Answered) -> Reply:
    return Reply(answered.model_dump_json(), media_type="application/json")


def _stream(lines: AsyncIterator[Line], service: Service, leave: Callable[[], None] | None = None) -> Reply:
    return EventStream(_sent(lines), keep_alive_s=service.settings.keep_alive_s, leave=leave)


async def _sent(lines: AsyncIterator[Line]) -> AsyncIterator[ServerSentEvent]:
    """Without the mark of the end where the server ended first: the stream can be followed again."""
    line = None
    async for line in lines:
        yield event(line.json, name=line.type)
    if line is None or line.type in LAST:
        yield DONE
