"""Who may ask, for how much, and how many at once.

`Guard` stands before the routes: hosts, origins, keys and the size of bodies. It is a plain ASGI application, since
Starlette's `BaseHTTPMiddleware` would stand between a stream and the news that its client has gone. `Slots` is asked
by what takes the engine's time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rsa.serve.errors import ApiError

OPEN_PATHS = frozenset({"/", "/health"})
"""The paths that need no key: whether the server is well, and the page, which asks for the key."""
OPEN_PREFIXES = ("/page/assets/", "/page/reports/")
"""The beginnings of paths that need no key: the page's files, and reports, whose address is a secret of its own."""
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "authorization, content-type, last-event-id",
    "Access-Control-Max-Age": "600",
}
_LONGEST_RETRY_S = 60
_REMEMBERED = 64


class Keys:
    """The keys that open a server. Only digests of them are kept, so that no dump, log or `repr` can show one."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __repr__(self) -> str:
        return f"Keys({len(self._digests)})"

    def opens(self, key: str) -> bool:
        """Whether it is one of the keys; takes as long whichever it is, and if it is none."""
        given = _digest(key)
        found = [hmac.compare_digest(given, digest) for digest in self._digests]  # all of them, whichever it is
        return any(found)


class Guard:
    """Lets through to `app` what may be asked, and answers the rest in OpenAI's form.

    keys        without any, whoever reaches the port is served; then the Host must be one of this machine's names
                (below), or a page of the internet whose name leads here could ask in its reader's browser.
    hosts       names that this server is reached under, besides addresses and localhost; `*`: any.
    origins     web sites whose pages may ask from browsers; `*`: all. Without any, pages of other sites are refused.
    body_bytes  the largest body.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Sequence[str] = (),
        hosts: Sequence[str] = (),
        origins: Sequence[str] = (),
        body_bytes: int,
    ) -> None:
        self._app = app
        self._keys = Keys(keys)
        self._hosts = {host.lower().rstrip(".") for host in hosts}
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = self._allowed_origin(headers)
        if origin is not None:
            send = _with_cors(send, origin)
        try:
            self._check_host(headers)
            self._check_origin(headers, origin)
            if scope["method"] == "OPTIONS" and origin is not None:
                await _preflight(send)
                return
            self._check_key(scope["path"], headers)
            self._check_length(headers)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        await self._app(scope, self._limited(receive), send)

    def _check_host(self, headers: Headers) -> None:
        host = headers.get("host")
        if self._keys or "*" in self._hosts or host is None:  # without one, it is no browser: a check of HTTP/1.0, say
            return
        name = _name_of(host)
        if name not in _LOCAL and name not in self._hosts and not _is_address(name):
            raise ApiError(
                421,
                f"this server is not known as {host[:80]!r}: ask for it by its address, or start it with --allow-host",
                code="unknown_host",
            )

    def _check_origin(self, headers: Headers, allowed: str | None) -> None:
        """A page of another site may send what needs no leave of ours; without a key it would be served."""
        origin = headers.get("origin")
        if origin is None or allowed is not None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower():
            return
        raise ApiError(
            403, "pages of other web sites may not ask here: --allow-origin lets them", code="origin_refused"
        )

    def _allowed_origin(self, headers: Headers) -> str | None:
        origin = headers.get("origin")
        return origin if origin is not None and ("*" in self._origins or origin.lower() in self._origins) else None

    def _check_key(self, path: str, headers: Headers) -> None:
        if not self._keys or path in OPEN_PATHS or path.startswith(OPEN_PREFIXES):
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if not key.strip():
            raise _unauthorised("this server asks for a key: send it as Authorization: Bearer KEY")
        if scheme.lower() != "bearer" or not self._keys.opens(key.strip()):
            raise _unauthorised("the key is not one of this server's")

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._body_bytes:
            raise self._too_large()

    def _limited(self, receive: Receive) -> Receive:
        """A body that comes in pieces says its length nowhere: it is counted. Raises ApiError to who reads it."""
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._body_bytes:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        size = f"{self._body_bytes / 2**20:g} MiB" if self._body_bytes >= 2**20 else f"{self._body_bytes:,} bytes"
        return ApiError(413, f"the request is larger than {size}", code="request_too_large")


class Slots:
    """How many may be worked on at a time, and how many may wait; they are served in the order in which they asked.

    Belongs to one event loop.
    """

    def __init__(self, most: int, queue: int) -> None:
        self.most, self.queue = most, queue
        self.working = self.waiting = 0
        self._free = anyio.Semaphore(most)
        self._took_s: deque[float] = deque(maxlen=_REMEMBERED)

    def ticket(self, *, bounded: bool = True) -> Ticket:
        """A place in the queue, at once. Raises ApiError (429) with Retry-After if there is none, but not for what is
        no new request (`bounded=False`).

        Whoever has one enters it, which waits for the turn, or closes it.
        """
        if bounded and self.working + self.waiting >= self.most + self.queue:
            raise ApiError(
                429,
                f"the server is busy: {self.working} requests are worked on and {self.waiting} wait; try again later",
                type="rate_limit_error",
                code="server_busy",
                headers={"Retry-After": str(self._retry_after_s())},
            )
        return Ticket(self)

    def _retry_after_s(self) -> int:
        """When a place in the queue is likely to be free: the next of those that work ends it."""
        mean_s = sum(self._took_s) / len(self._took_s) if self._took_s else 1.0
        return min(max(round(mean_s / self.most), 1), _LONGEST_RETRY_S)


class Ticket:
    """A place among those that wait, then, within `async with`, among those that are worked on."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._waits, self._works = True, False
        self._since = 0.0
        slots.waiting += 1

    async def __aenter__(self) -> Self:
        try:
            await self._slots._free.acquire()
        except BaseException:
            self.close()
            raise
        if not self._waits:  # closed meanwhile
            self._slots._free.release()
            raise ApiError(503, "the request was given up before its turn", type="server_error")
        self._waits, self._works = False, True
        self._slots.waiting -= 1
        self._slots.working += 1
        self._since = anyio.current_time()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._works:
            self._slots._took_s.append(anyio.current_time() - self._since)
        self.close()

    def close(self) -> None:
        """Leave the queue, or the work. Idempotent."""
        if self._waits:
            self._slots.waiting -= 1
        if self._works:
            self._slots.working -= 1
            self._slots._free.release()
        self._waits = self._works = False


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _name_of(host: str) -> str:
    """The name in a Host header, without its port; empty if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        valid = parts.netloc == host and parts.username is None and (parts.port is None or parts.port > 0)
    except ValueError:
        return ""
    return (parts.hostname or "").rstrip(".") if valid else ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _unauthorised(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _with_cors(send: Send, origin: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Access-Control-Allow-Origin"] = origin
            headers.add_vary_header("Origin")
        await send(message)

    return sending


async def _preflight(send: Send) -> None:
    raw = [(name.lower().encode(), value.encode()) for name, value in _PREFLIGHT.items()]
    await send({"type": "http.response.start", "status": 204, "headers": raw})
    await send({"type": "http.response.body", "body": b""})
