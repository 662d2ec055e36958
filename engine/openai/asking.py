"""Short questions to a server whose answer is waited for: what it can do, and how it counts tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import httpx2

from engine.errors import EngineClosedError, EngineError, ModelError, RequestError
from engine.openai.connection import CONNECT_S, BrokenError, Settings, broken_by, refused_by, root_of
from engine.openai.wire import Delta, ServerError, WireError, read_answer, read_json

T = TypeVar("T")
ATTEMPTS = 3
"""A server that is starting, or has its hands full, gets so many tries before a short question is given up."""
_LONGEST_WAIT_S = 5.0
LONGEST_ANSWER_S = 60.0
"""A server that says nothing for so long has not taken a short question, or has too much to do."""
DONE = "[DONE]"


class Asker:
    """Asks the first of several URLs that answers. Blocks; safe to call from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._patience_s = min(settings.timeout_s, LONGEST_ANSWER_S)
        try:
            patience = httpx2.Timeout(self._patience_s, connect=CONNECT_S, pool=None)
            self._client = httpx2.Client(**{**settings.client_options, "timeout": patience})
        except (ValueError, ImportError, httpx2.InvalidURL) as error:  # a proxy that the environment names
            why = " ".join(str(error).split())
            raise RequestError(f"no proxy can be made of HTTPS_PROXY, HTTP_PROXY or ALL_PROXY ({why})") from None
        self.base_url = settings.base_urls[0]
        self._closed = False

    def close(self) -> None:
        self._closed = True
        self._client.close()

    def get(self, url: str, read: Callable[[Mapping[str, Any]], T]) -> T | None:
        """What `read` makes of the object at a URL; None if there is none. Raises EngineError, and UnreachableError."""
        return self._asked(lambda: self._found(url, read), url)

    def _found(self, url: str, read: Callable[[Mapping[str, Any]], T]) -> T | None:
        response = self._open().request("GET", url)
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise refused_by(response.status_code, response.content, response.headers, url, self.settings)
        try:
            return read(read_json(response.content))
        except WireError:
            return None

    def post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to a body, at a path of the API. Raises EngineError."""
        return self._at_any(lambda base: self._json(base + path, body))

    def post_beside(self, path: str, body: Mapping[str, Any], read: Callable[[Mapping[str, Any]], T]) -> T:
        """What `read` makes of the answer to a body, at a path that is not of the API, but of the server. Raises
        EngineError."""
        return self._at_any(lambda base: read(self._json(root_of(base) + path, body)))

    def stream(self, path: str, body: Mapping[str, Any]) -> tuple[list[Delta], bool]:
        """The answer to a body that asks for a stream, and whether it was one. Raises EngineError."""
        return self._at_any(lambda base: self._stream(base + path, body))

    def _at_any(self, ask: Callable[[str], T]) -> T:
        urls = [self.base_url, *(url for url in self.settings.base_urls if url != self.base_url)]
        for number, base in enumerate(urls):
            try:
                answer = self._asked(partial(ask, base), base)
            except UnreachableError as error:
                if number == len(urls) - 1:
                    raise ModelError(str(error)) from None
            else:
                self.base_url = base
                return answer
        raise AssertionError("there is a URL")

    def _asked(self, ask: Callable[[], T], url: str) -> T:
        for attempt in range(ATTEMPTS):
            try:
                return ask()
            except httpx2.ReadTimeout:  # it would take as long again
                raise UnreachableError(f"{url} said nothing for {self._patience_s:g} s: is it the right URL?") from None
            except httpx2.RequestError as error:
                found = broken_by(error, url, self.settings)
                if isinstance(found, EngineError):
                    raise found from None
                broken = found
            except BrokenError as error:
                broken = error
            except RuntimeError:  # a client that was closed meanwhile
                self._open()
                raise
            except (WireError, ServerError) as error:
                raise ModelError(f"{url} is no server of the OpenAI API, or not a whole one: {error}") from None
            if attempt < ATTEMPTS - 1:
                time.sleep(min(_LONGEST_WAIT_S, broken.after_s or self.settings.backoff(attempt)))
        raise UnreachableError(str(broken))

    def _open(self) -> httpx2.Client:
        if self._closed:
            raise EngineClosedError("the engine is closed: open a new one")
        return self._client

    def _json(self, url: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        response = self._open().request("POST", url, json=body)
        if response.status_code != 200:
            raise refused_by(response.status_code, response.content, response.headers, url, self.settings)
        return read_json(response.content)

    def _stream(self, url: str, body: Mapping[str, Any]) -> tuple[list[Delta], bool]:
        with self._open().stream("POST", url, json=body) as response:
            if response.status_code != 200:
                raise refused_by(response.status_code, response.read(), response.headers, url, self.settings)
            if is_stream(response):
                return list(_deltas(response)), True
            return [read_answer(read_json(response.read()))], False


class UnreachableError(Exception):
    """A server did not answer, however often it was asked; the message is a line for people."""


def is_stream(response: httpx2.Response) -> bool:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"


def _deltas(response: httpx2.Response) -> Iterator[Delta]:
    for event in httpx2.EventSource(response):
        if event.data == DONE:
            return
        if event.data:
            yield read_answer(read_json(event.data))
