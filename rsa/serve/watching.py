"""Every request from its first byte to its last: its id, its line in the log, its place in the metrics.

The outermost layer of the application, so that refusals are seen, too.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from h11 import LocalProtocolError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rsa.serve.logs import log
from rsa.serve.metrics import Metrics

RouteOf = Callable[[Scope], str]
REQUEST_ID = "X-Request-Id"
_GIVEN_ID = re.compile(r"[\w.:-]{1,128}")
_MOST_LOGGED_BYTES = 1 << 16
_LONGEST_ERROR_BYTES = 1 << 14


class Watched:
    """`app`, with each of its requests logged and counted.

    route_of     the route of a request, for labels; asked after it was found.
    log_prompts  whether bodies of requests are logged, up to 64 KiB of each.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, route_of: RouteOf, log_prompts: bool = False) -> None:
        self._app = app
        self._metrics = metrics
        self._route_of = route_of
        self._log_prompts = log_prompts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = _Seen(scope, self._route_of, self._metrics, keep_body=self._log_prompts)
        try:
            await self._app(scope, seen.receiving(receive), seen.sending(send))
        except LocalProtocolError:  # the client does not speak HTTP, as the server told it meanwhile
            pass
        except Exception:
            seen.failed()  # who is outside of this answers it
            raise
        finally:
            seen.end()


class _Seen:
    """One request as it goes by."""

    def __init__(self, scope: Scope, route_of: RouteOf, metrics: Metrics, *, keep_body: bool) -> None:
        given = Headers(scope=scope).get(REQUEST_ID, "")
        self.id = given if _GIVEN_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        self._scope, self._route_of, self._metrics = scope, route_of, metrics
        self._keep_body = keep_body
        self._began = time.perf_counter()
        self._status = 0
        self._first_s: float | None = None
        self._sent = 0
        self._left = self._whole = False
        self._body = bytearray()
        self._error = bytearray()
        metrics.began()

    def receiving(self, receive: Receive) -> Receive:
        async def received() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                self._left = True
            elif self._keep_body and len(self._body) < _MOST_LOGGED_BYTES:
                self._body += message.get("body", b"")
            return message

        return received

    def sending(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = self.id
            elif message["type"] == "http.response.body":
                self._take(message)
            await send(message)

        return sent

    def _take(self, message: Message) -> None:
        body = message.get("body", b"")
        if body and self._first_s is None:
            self._first_s = time.perf_counter() - self._began
            self._metrics.first_byte(self._route_of(self._scope), self._first_s)
        self._sent += len(body)
        self._whole = not message.get("more_body", False)
        if self._status >= 400 and len(self._error) < _LONGEST_ERROR_BYTES:
            self._error += body

    def failed(self) -> None:
        self._status = self._status or 500

    def end(self) -> None:
        seconds = time.perf_counter() - self._began
        status = self._status or 499  # as nginx counts those who left before an answer
        self._metrics.ended(self._route_of(self._scope), status, seconds)
        error = _error_of(bytes(self._error)) if status >= 400 else {}
        if status >= 400:
            self._metrics.error(str(error.get("code") or error.get("type") or status))
        client = self._scope.get("client")
        log(
            "request",
            level=logging.ERROR if status >= 500 else logging.INFO,
            id=self.id,
            method=self._scope["method"],
            path=self._scope["path"][:200],
            status=status,
            seconds=round(seconds, 4),
            first_byte_s=None if self._first_s is None else round(self._first_s, 4),
            bytes=self._sent,
            client=client[0] if client else None,
            left=True if self._left and not self._whole else None,
            error=error.get("code") or error.get("type"),
            param=error.get("param"),
            body=bytes(self._body[:_MOST_LOGGED_BYTES]).decode("utf-8", "replace") if self._keep_body else None,
        )


def _error_of(body: bytes) -> dict[str, Any]:
    """The error in a response's body, or nothing."""
    try:
        found = json.loads(body)["error"]
    except (ValueError, LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
