"""`/openapi.json`: what the server takes and gives, made from the records that read and write it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, Field, RootModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rsa.events import Event as RunEvent
from rsa.folders import versions_of
from rsa.serve.chat_records import ChatRequest
from rsa.serve.responses.events import Event
from rsa.serve.responses.request import CreateResponse, ItemsQuery, RetrieveQuery
from rsa.serve.responses.response import DeletedResponse, ItemList
from rsa.serve.responses.response import Response as ResponseObject

Json = dict[str, Any]
Names = Mapping[Any, Json]
"""References to the schemas of records, by record and mode."""
PACKAGE = "markovian-rsa"
_REF = "#/components/schemas/{model}"
_FAULTS = {
    "400": "The request is wrong; `param` names the field.",
    "401": "A key is missing or wrong.",
    "404": "There is no such thing.",
    "409": "It is being worked on.",
    "413": "The request is too large.",
    "422": "A call of a tool was wanted, and the model made none.",
    "429": "Too much is asked of the server at once; `Retry-After` says when to come back.",
    "503": "The model cannot be had now.",
}


class Fault(BaseModel):
    """What is wrong, `type` and `code` for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """The body of an answer that is none of what was asked for."""

    error: Fault


class ResponseEvent(RootModel[Event]):
    """An event of the stream of a response."""


class RunEvents(RootModel[RunEvent]):
    """An event of a run."""


class AfterQuery(BaseModel):
    """Events after the one of this number."""

    after: int = Field(0, ge=0, lt=2**53)


class LimitQuery(BaseModel):
    """How many, of the newest."""

    limit: int = Field(100, ge=0, le=1000)


@dataclass(frozen=True, slots=True)
class Operation:
    """A route and a method.

    takes   the record of its body; `query`, of what stands after the ?.
    gives   the record of what it answers; None: an object that is described in words alone.
    streams the record of an event, where it can also answer with a stream.
    """

    method: str
    path: str
    summary: str
    takes: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    gives: type[BaseModel] | None = None
    streams: type[BaseModel] | None = None


_ONE_RESPONSE = "/v1/responses/{response_id}"
OPERATIONS = (
    Operation("get", "/v1/models", "The models that are served, by all their names"),
    Operation("get", "/v1/models/{name}", "One model"),
    Operation("post", "/v1/chat/completions", "A chat completion, of a model or of a run", takes=ChatRequest),
    Operation(
        "post",
        "/v1/responses",
        "A response, of a model or of a run",
        takes=CreateResponse,
        gives=ResponseObject,
        streams=ResponseEvent,
    ),
    Operation(
        "get",
        _ONE_RESPONSE,
        "A response as it stands, or its events",
        query=RetrieveQuery,
        gives=ResponseObject,
        streams=ResponseEvent,
    ),
    Operation("delete", _ONE_RESPONSE, "Forget a response", gives=DeletedResponse),
    Operation("post", f"{_ONE_RESPONSE}/cancel", "Cancel a response in the background", gives=ResponseObject),
    Operation("get", f"{_ONE_RESPONSE}/input_items", "What it was asked with", query=ItemsQuery, gives=ItemList),
    Operation("get", "/v1/runs", "The newest runs", query=LimitQuery),
    Operation("get", "/v1/runs/{id}", "How a run stands"),
    Operation("get", "/v1/runs/{id}/events", "Follow a run", query=AfterQuery, streams=RunEvents),
    Operation("post", "/v1/runs/{id}/cancel", "End a run"),
    Operation("post", "/v1/runs/{id}/resume", "Go on with a run that did not finish"),
)


async def show(_: Request) -> Response:
    """The document."""
    return JSONResponse(document())


@cache
def document() -> Json:
    """The whole description, in OpenAPI 3.1."""
    names, schemas = models_json_schema(sorted(_records(), key=lambda pair: pair[0].__name__), ref_template=_REF)
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rsa serve",
            "version": versions_of(PACKAGE)[PACKAGE],
            "description": "Models, and Markovian RSA on them, behind OpenAI's interfaces.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _records() -> Iterator[tuple[type[BaseModel], JsonSchemaMode]]:
    """All records, those that are read and those that are written."""
    yield Error, "serialization"
    for operation in OPERATIONS:
        if operation.takes is not None:
            yield operation.takes, "validation"
        for written in (operation.gives, operation.streams):
            if written is not None:
                yield written, "serialization"


def _described(operation: Operation, names: Names) -> Json:
    described: Json = {
        "summary": operation.summary,
        "operationId": f"{operation.method}{operation.path.replace('/', '_').replace('{', '').replace('}', '')}",
        "responses": {"200": {"description": "As asked.", "content": _content(operation, names)}, **_faults(names)},
    }
    parameters = [*_path_parameters(operation.path), *_query_parameters(operation.query)]
    if parameters:
        described["parameters"] = parameters
    if operation.takes is not None:
        schema = names[operation.takes, "validation"]
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return described


def _content(operation: Operation, names: Names) -> Json:
    content: Json = {}
    if operation.streams is not None:
        event = names[operation.streams, "serialization"]["$ref"]
        said = f"Server-sent events; the data of each is one of {event}, and [DONE] at the end of an answer."
        content["text/event-stream"] = {"schema": {"type": "string", "description": said}}
    elif operation.takes is ChatRequest:
        content["text/event-stream"] = {"schema": {"type": "string", "description": "Chunks, as OpenAI has them."}}
    if operation.streams is not RunEvents:
        schema = {"type": "object"} if operation.gives is None else names[operation.gives, "serialization"]
        content["application/json"] = {"schema": schema}
    return content


def _faults(names: Names) -> Json:
    schema = names[Error, "serialization"]
    return {
        status: {"description": said, "content": {"application/json": {"schema": schema}}}
        for status, said in _FAULTS.items()
    }


def _path_parameters(path: str) -> Iterator[Json]:
    for part in path.split("/"):
        if part.startswith("{"):
            yield {
                "name": part.strip("{}"),
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            }


def _query_parameters(query: type[BaseModel] | None) -> Iterator[Json]:
    if query is None:
        return
    for name, schema in query.model_json_schema()["properties"].items():
        kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]  # what is null is left out
        yield {"name": name, "in": "query", "required": False, "schema": {**schema, **(kinds[0] if kinds else {})}}
