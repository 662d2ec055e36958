"""Reading a request's JSON into a record; a fault names its field."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from rsa.errors import did_you_mean
from rsa.serve.errors import ApiError

RecordT = TypeVar("RecordT", bound="RequestRecord")


class RequestRecord(BaseModel):
    """Base of the records that clients send: types are kept to, and a field that nobody knows is refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


async def read_request(request: Request, kind: type[RecordT]) -> RecordT:
    """The record in the body of a request. Raises ApiError, pydantic.ValidationError."""
    return parse(await request.body(), kind)


def parse(body: bytes, kind: type[RecordT]) -> RecordT:
    """The record that a body spells out. Raises ApiError, pydantic.ValidationError."""
    if not body.strip():
        raise ApiError(400, "the request has no body: send JSON")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1:
                name = str(detail["loc"][0])
                meant = did_you_mean(name, kind.model_fields)
                raise ApiError(400, f"unknown field {name!r}{meant}", param=name, code="unknown_parameter") from None
        raise


class QueryRecord(BaseModel):
    """Base of what stands after the ? of a URL; names that nobody knows are left out."""

    model_config = ConfigDict(frozen=True)


QueryT = TypeVar("QueryT", bound=QueryRecord)


def read_query(request: Request, kind: type[QueryT]) -> QueryT:
    """The record in the query of a request. Raises pydantic.ValidationError."""
    return kind.model_validate(dict(request.query_params))
