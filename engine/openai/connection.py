"""How servers are reached: settings, keys, clients, and what went wrong in words for people."""

from __future__ import annotations

import math
import os
import random
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from engine.errors import ContextError, EngineError, ModelError, RequestError
from engine.openai.wire import message_of

CONNECT_S = 10.0
LONGEST_BACKOFF_S = 30.0
LONGEST_RETRY_AFTER_S = 300.0
"""A server that wants to be asked later than that is asked then."""
_RETRYABLE = frozenset({429, 500, 502, 503, 504})
_PROXY_NAMES = "HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
_TOO_LONG = ("maximum context length", "context length", "context_length_exceeded", "context size", "too many tokens")


class BrokenError(Exception):
    """A request that came to grief on the way, and may do better another time; the message is a line.

    after_s  when the server wants to be asked again; None if it did not say.
    """

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model's servers are reached; see `engine.openai.engine.open_openai` for what each means."""

    base_urls: tuple[str, ...]
    api_key_env: str
    max_rows: int
    timeout_s: float
    max_retries: int
    backoff_s: float
    certificates: ssl.SSLContext = field(repr=False)
    transport: Any = field(default=None, repr=False)

    @property
    def api_key(self) -> str | None:
        """Read anew each time, and kept nowhere."""
        return os.environ.get(self.api_key_env, "").strip() or None

    @property
    def client_options(self) -> dict[str, Any]:
        """Of a client, synchronous or not. Proxies are those that the environment names."""
        key = self.api_key
        return {
            "headers": {"authorization": f"Bearer {key}"} if key else {},
            "timeout": httpx2.Timeout(self.timeout_s, connect=min(CONNECT_S, self.timeout_s), pool=None),
            "limits": httpx2.Limits(max_connections=None, max_keepalive_connections=self.max_rows),
            "verify": self.certificates,
            "transport": self.transport,
        }

    def backoff(self, attempt: int) -> float:
        """Seconds to wait before the attempt after so many that failed: full jitter over what doubles each time, so
        that those who failed together do not come again together."""
        return random.uniform(0, min(LONGEST_BACKOFF_S, self.backoff_s * 2 ** min(attempt, 16)))

    def without_key(self, message: str) -> str:
        """A message in which a server may have quoted the key."""
        key = self.api_key
        return message.replace(key, "***") if key else message


def settings_of(
    base_url: str | Sequence[str] | None,
    *,
    api_key_env: str,
    max_rows: int,
    timeout_s: float,
    max_retries: int,
    backoff_s: float,
    transport: Any = None,
) -> Settings:
    """Checked settings. Raises RequestError."""
    given = base_url if base_url is not None else os.environ.get("OPENAI_BASE_URL") or ()
    if not isinstance(given, str | Sequence):
        raise RequestError(f"`base_url` = {given!r}: should be a URL, or a list of them")
    if not isinstance(api_key_env, str):
        raise RequestError(f"`api_key_env` = {api_key_env!r}: should be the name of an environment variable")
    urls = given.replace(",", " ").split() if isinstance(given, str) else [str(each).strip() for each in given]
    if not urls:
        raise RequestError("no server given: set `base_url` to its URL, such as http://127.0.0.1:8000/v1")
    if not os.environ.get(api_key_env, "").strip().isprintable():
        raise RequestError(f"the key in {api_key_env} holds what no key does: line breaks, or worse")
    if not os.environ.get(api_key_env, "").isascii():
        raise RequestError(f"the key in {api_key_env} is not all ASCII: is it the key?")
    for name, value, least in (("max_rows", max_rows, 1), ("max_retries", max_retries, 0)):
        if not isinstance(value, int) or value < least:
            raise RequestError(f"`{name}` = {value!r}: should be at least {least}")
    if not _is_number(timeout_s) or timeout_s <= 0 or not _is_number(backoff_s) or backoff_s < 0:
        raise RequestError("timeout_s should be more than 0, and backoff_s not less")
    return Settings(
        base_urls=tuple(dict.fromkeys(_with_path(url) for url in urls)),
        api_key_env=api_key_env,
        max_rows=max_rows,
        timeout_s=timeout_s,
        max_retries=max_retries,
        backoff_s=backoff_s,
        certificates=_certificates(),
        transport=transport,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


def _certificates() -> ssl.SSLContext:
    """Whom to trust: those that SSL_CERT_FILE or SSL_CERT_DIR name, else the system's. Reading them takes a while."""
    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # an SSLError is one
        named = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), "the system's files")
        where = f"{named} = {os.environ[named]}" if named in os.environ else named
        raise RequestError(f"certificates cannot be read from {where} ({error.strerror or _why(error)})") from None


def root_of(base_url: str) -> str:
    """Where a server has what OpenAI's API does not know, `/tokenize` say: beside `/v1`."""
    return base_url.removesuffix("/v1")


def _with_path(url: str) -> str:
    """A URL of the API: where only a server is named, its API is at /v1."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        valid = valid and url.isprintable()
    except ValueError:
        valid = False
    if not valid:
        raise RequestError(
            f"`base_url` = {url if url.isprintable() else repr(url)}: should be a URL such as http://127.0.0.1:8000/v1"
        )
    if parts.query or parts.fragment:
        raise RequestError(f"`base_url` = {url}: should end before the ? or the #")
    if parts.username or parts.password:
        raise RequestError("`base_url` holds a user or a password: put the key into the environment variable instead")
    return url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/v1"


def broken_by(error: httpx2.RequestError, url: str, settings: Settings) -> BrokenError | EngineError:
    """What a failed exchange means. What can never go well is an EngineError."""
    why = settings.without_key(_why(error))
    if isinstance(error, httpx2.ConnectTimeout):
        return BrokenError(f"{url} does not answer within {CONNECT_S:g} s: is it the right URL, and is the server up?")
    if isinstance(error, httpx2.TimeoutException):
        return BrokenError(f"{url} said nothing for {settings.timeout_s:g} s")
    if isinstance(error, httpx2.ProxyError):
        return BrokenError(f"the proxy on the way to {url} refuses ({why}): see {_PROXY_NAMES}")
    if _of_certificate(error):
        return ModelError(
            f"the certificate of {url} is not trusted ({why}): name the file of the authority that signed it, "
            "or of a self-signed one itself, in the environment variable SSL_CERT_FILE"
        )
    if isinstance(error, httpx2.ConnectError):
        proxy = _proxy_of(url)
        is_up = (
            f"is the proxy {proxy} up? See {_PROXY_NAMES}" if proxy else "is it the right URL, and is the server up?"
        )
        return BrokenError(f"cannot connect to {url} ({why}): {is_up}")
    if isinstance(error, httpx2.UnsupportedProtocol):
        return RequestError(f"`base_url` = {url}: should begin with http:// or https://")
    return BrokenError(f"the connection to {url} broke ({why})")


def refused_by(status: int, body: bytes, headers: Mapping[str, str], url: str, settings: Settings) -> Exception:
    """What an answer that is no success means: BrokenError where another try may go well, else an EngineError."""
    message, code = message_of(body)
    message = settings.without_key(message)
    said = f": {message}" if message else ""
    if status in (401, 403):
        if settings.api_key is None:
            return ModelError(f"{url} wants a key ({status}{said}): put it into the environment variable "
                              f"{settings.api_key_env}, or name another with `api_key_env`")  # fmt: skip
        return ModelError(f"{url} refuses the key in {settings.api_key_env} ({status}{said})")
    if status == 429 and code == "insufficient_quota":
        return ModelError(f"{url} says that the account's quota is used up ({status}{said})")
    if status in _RETRYABLE:
        return BrokenError(f"{url} answered {status}{said}", retry_after(headers))
    if status in (400, 413, 422) and any(words in f"{message} {code}".lower() for words in _TOO_LONG):
        return ContextError(f"the prompt does not fit the context at {url} ({status}{said}): lower the budgets")
    if 300 <= status < 400:
        return ModelError(f"{url} has moved to {headers.get('location', 'an unknown place')} ({status}): use that URL")
    if status == 404:
        return ModelError(f"{url} does not know what it was asked for ({status}{said}): is it the right URL?")
    return RequestError(f"{url} refuses the request ({status}{said})")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After, whichever form it has; None without one that can be read."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (at - datetime.now(at.tzinfo or UTC)).total_seconds() if at.tzinfo else 0.0
    return min(LONGEST_RETRY_AFTER_S, seconds) if seconds >= 0 else 0.0


def _proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a URL, without a password; None if there is none."""
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    return proxy.rpartition("@")[2]


def _of_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _why(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
