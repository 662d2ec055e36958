"""Errors as clients of OpenAI's interfaces read them: a status, and JSON that names the field at fault.

{"error": {"message": "...", "type": "invalid_request_error", "param": "messages[0].content", "code": null}}
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from engine import errors as engine_errors
from rsa import errors as rsa_errors
from rsa.serve.answering import RunEndedError
from rsa.serve.kinds import MARK
from rsa.settings.config import Limits, RSAConfig
from rsa.words import shortened

SERVER_ERROR = "server_error"
"""The type of an error that is not the client's to mend."""
RETRY_AFTER_S = "1"
"""The seconds to wait after an engine died: the next request opens it again."""
LONGEST_MESSAGE = 1000
"""Characters of what a client is told: a message may quote what it sent, which may be megabytes."""
_NOWHERE = {
    404: ("not_found", "there is nothing at {where}: /openapi.json says what there is"),
    405: ("method_not_allowed", "{where} takes no {method}: /openapi.json says what it takes"),
}
"""What a client is told, and by which word, where no route answers."""
_SHOWN_CHARACTERS = 80
_logger = logging.getLogger("rsa.serve")
_FIRST_WORD = re.compile(r"(?:unknown setting ')?(\w+(?:\.\w+)*)")


class ApiError(rsa_errors.RSAError):
    """What a request is answered with instead of what it asked for.

    param    the field of the request that is at fault, as a path: `messages[2].content[0].image_url`.
    code     a word for programs: `model_not_found`.
    type     OpenAI's kind of error: `invalid_request_error`, `server_error`, `rate_limit_error`, ...
    headers  of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str = "invalid_request_error",  # noqa: A002 - as the field is called
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.type = status, message, param, code, type
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON of the response, and of an event that ends a stream."""
        message = shortened(self.message, LONGEST_MESSAGE)
        param = None if self.param is None else shortened(self.param, LONGEST_MESSAGE)
        return {"error": {"message": message, "type": self.type, "param": param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


def api_error(error: Exception) -> ApiError:
    """What a client is told of an error. What is none of ours is a bug: it is logged with its traceback, and the client
    learns no more than that."""
    match error:
        case ApiError():
            return error
        case ValidationError():
            return _of_validation(error)
        case HTTPException():
            return ApiError(error.status_code, error.detail, headers=error.headers)
        case rsa_errors.RSAError():
            return _of_rsa(error)
        case engine_errors.EngineError():
            return _of_engine(error)
        case _:
            _logger.error("a request ended in a bug", exc_info=error)
            return ApiError(500, "an error inside the server, whose log says more", type=SERVER_ERROR)


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """Starlette's handler of exceptions."""
    if isinstance(error, HTTPException) and error.status_code in _NOWHERE:
        code, said = _NOWHERE[error.status_code]
        message = said.format(where=shortened(request.url.path, _SHOWN_CHARACTERS), method=request.method)
        return ApiError(error.status_code, message, code=code, headers=error.headers).response()
    return api_error(error).response()


def _of_rsa(error: rsa_errors.RSAError) -> ApiError:
    match error:
        case rsa_errors.ConfigError():
            return ApiError(400, str(error), param=_setting_of(str(error)))
        case rsa_errors.PromptError():
            return ApiError(400, str(error), param="rsa.task")
        case rsa_errors.ProblemError():
            return ApiError(400, str(error), param=_part_of(str(error)))
        case RunEndedError(interrupted=True):
            return ApiError(503, str(error), type=SERVER_ERROR, code="interrupted", headers={"Retry-After": "5"})
        case RunEndedError():
            return ApiError(409, str(error), code="cancelled")
        case rsa_errors.RunLockedError() | rsa_errors.ResumeMismatchError():
            return ApiError(409, str(error), code="conflict")
        case _:
            return ApiError(500, str(error), type=SERVER_ERROR)


def _of_engine(error: engine_errors.EngineError) -> ApiError:
    match error:
        case engine_errors.ContextError():
            return ApiError(400, str(error), param="messages", code="context_length_exceeded")
        case engine_errors.ImageError():
            return ApiError(400, str(error), param="messages", code="invalid_image")
        case engine_errors.RequestError():
            return ApiError(400, str(error), param=_part_of(str(error)))
        case engine_errors.EngineClosedError():
            retry = {"Retry-After": RETRY_AFTER_S}
            return ApiError(503, str(error), type=SERVER_ERROR, code="engine_closed", headers=retry)
        case engine_errors.ModelError() | engine_errors.BackendError():
            return ApiError(503, str(error), type=SERVER_ERROR, code="model_unavailable")
        case _:
            return ApiError(503, str(error), type=SERVER_ERROR)


def _of_validation(error: ValidationError) -> ApiError:
    """The fault that lies deepest: of a union, pydantic tells of each of its members."""
    details = max(error.errors(include_url=False), key=lambda found: len(found["loc"]))
    param = path_of(details["loc"]) or None
    message = details["msg"].removeprefix("Value error, ").replace("Input should", "should")
    return ApiError(400, f"{param}: {message}" if param else message, param=param)


def path_of(parts: tuple[int | str, ...]) -> str:
    """A place in JSON as people write it: `messages[2].content`. What names a member of a union is left out."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.startswith(MARK):
            pass
        elif re.fullmatch(r"[a-z]\w*", part) and part not in ("str", "int", "float", "bool", "list", "dict", "none"):
            path += f".{part}" if path else part
        elif not re.fullmatch(r"[\w.-]*[\[(].*", part) and part not in ("str", "int", "float", "bool", "list", "dict"):
            path += f"[{part!r}]"
    return path


def _part_of(message: str) -> str:
    """The field of a prompt that a model refuses."""
    return "tools" if " has tools, but " in message else "messages"


def _setting_of(message: str) -> str | None:
    """The setting that a ConfigError begins with."""
    found = _FIRST_WORD.match(message)
    if found is None:
        return None
    if found[1] in Limits.model_fields:
        return f"rsa.limits.{found[1]}"
    known = found[1].split(".")[0] in RSAConfig.model_fields
    return f"rsa.{found[1]}" if known or message.startswith("unknown setting") else None
